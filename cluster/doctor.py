"""Everything about a machine that can spoil a run, found before it starts."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from arclight.errors import ArclightError, printable
from cluster.java import find_java
from cluster.linkrace import race_for_names
from cluster.machine import look_at_machine
from cluster.sizing import GIB, MIB, plan_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cluster.machine import Machine
    from cluster.profiles import Profile

State = Literal["ok", "warn", "fail"]

LOWEST_PYTHON = (3, 11)
DISK_WARN_BYTES = 10 * GIB
DISK_FAIL_BYTES = 1 * GIB
SHM_WARN_BYTES = 256 * MIB
MEMORY_WARN_BYTES = 4 * GIB
PORTS = {8000: "arclight serve"}
"""What is listened on unless another port is given; a cluster of `up` takes free ones."""
CLOCK_SKEW_S = 5.0
CLOCK_JUMP_S = 1.0
EARLIEST_YEAR, LATEST_YEAR = 2024, 2100
RACES = 50
UNSAFE = ("RAY_DATA_AUTOLOAD_", "RAY_testing_", "ARCLIGHT_FAIL_POINT")
UNSAFE_PARTS = ("ALLOW_UNSAFE",)
# set by a user for another Spark, Ray or Python, they end up in ours
FOREIGN = ("SPARK_HOME", "SPARK_CONF_DIR", "RAY_ADDRESS", "PYTHONHOME", "PYTHONSTARTUP")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `advice` is empty when there is nothing to do."""

    check: str
    state: State
    found: str
    advice: str = ""


def examine(profile: Profile, constraints: Path | None, store: Path) -> tuple[Finding, ...]:
    """Look at this machine as a run with this profile would meet it.

    Args:
        profile: where the run would happen.
        constraints: the list of tested versions; None skips that check.
        store: folder of the store; made if it does not exist, left as it was found otherwise.
    """
    began = time.time(), time.monotonic()
    scratch = Path(tempfile.gettempdir())
    machine = look_at_machine(scratch)
    installed = {dist.name: dist.version for dist in metadata.distributions()}
    wanted = read_constraints(constraints) if constraints is not None else {}
    return (
        check_python(sys.version_info[:3]),
        check_java(),
        *check_versions(installed, wanted),
        *check_machine(profile, machine),
        *check_disks({"store": store, "temporary folder": scratch}),
        *check_ports(PORTS),
        check_time_zone(datetime.now(UTC)),
        check_clock(store),
        *check_variables(os.environ),
        check_commit_rule(store),
        judge_steadiness(time.time() - began[0], time.monotonic() - began[1]),
    )


def find_constraints() -> Path | None:
    """Return the list of tested versions of this checkout, or None in an installed wheel."""
    file = Path(__file__).resolve().parent.parent / "constraints.txt"
    return file if file.is_file() else None


def read_constraints(file: Path) -> dict[str, str]:
    """Return the pinned version of each distribution named in a constraints file."""
    lines = (line.split("#")[0].strip() for line in file.read_text("utf-8").splitlines())
    pairs = (line.split("==", 1) for line in lines if "==" in line)
    return {_normal(name): version.strip() for name, version in pairs}


def check_python(version: tuple[int, ...]) -> Finding:
    """Python itself."""
    found = ".".join(str(part) for part in version)
    if version < LOWEST_PYTHON:
        return Finding("python", "fail", found, "Install Python 3.11 and run `make setup` again.")
    return Finding("python", "ok", found)


def check_java() -> Finding:
    """The Java that Spark will start with."""
    try:
        java = find_java()
    except ArclightError as error:
        return Finding("java", "fail", "none that fits", error.message)
    return Finding("java", "ok", f"{java.major} in {printable(java.home)}")


def check_versions(installed: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[Finding]:
    """Compare installed distributions with the tested ones; what is not installed is no fault."""
    held = {_normal(name): version.split("+")[0] for name, version in installed.items()}
    other = {
        name: (held[name], version)
        for name, version in sorted(wanted.items())
        if name in held and held[name] != version
    }
    for name, (have, want) in other.items():
        yield Finding(
            f"version of {name}",
            "warn",
            f"{have}, tested with {want}",
            f"Run: {sys.executable} -m pip install {name}=={want}",
        )
    if wanted and not other:
        common = len(held.keys() & wanted.keys())
        yield Finding("versions", "ok", f"{common} packages as tested")


def check_machine(profile: Profile, machine: Machine) -> Iterator[Finding]:
    """Cores, memory and shared memory against what the profile plans."""
    try:
        sizes = plan_sizes(profile, machine)
    except ArclightError as error:
        yield Finding("memory", "fail", _gib(machine.memory_bytes), error.message)
        return
    if sizes.cores > machine.cores:
        yield Finding(
            "cores",
            "warn",
            f"{machine.cores}, profile '{profile.name}' asks for {sizes.cores}",
            f"Set cores: {machine.cores} in the profile; more only adds waiting.",
        )
    else:
        yield Finding("cores", "ok", f"{sizes.cores} of {machine.cores}")
    few = sizes.memory_bytes < MEMORY_WARN_BYTES
    yield Finding(
        "memory",
        "warn" if few else "ok",
        f"{_gib(sizes.memory_bytes)}, Spark gets {sizes.spark_driver_memory_mib:,} MiB",
        "Use at least 4 GiB for more than small tables." if few else "",
    )
    small = machine.shm_bytes < max(SHM_WARN_BYTES, sizes.ray_object_store_bytes)
    yield Finding(
        "shared memory",
        "warn" if small else "ok",
        f"{machine.shm_bytes // MIB:,} MiB in /dev/shm",
        "Start the container with --shm-size=1g; Ray uses slow disk instead." if small else "",
    )


def check_disks(folders: Mapping[str, Path]) -> Iterator[Finding]:
    """Free space where data and scratch files go."""
    for name, folder in folders.items():
        free = shutil.disk_usage(_existing(folder)).free
        yield judge_disk(name, folder, free)


def judge_disk(name: str, folder: Path, free_bytes: int) -> Finding:
    """Say whether a disk has room for a run."""
    state: State = "ok"
    if free_bytes < DISK_WARN_BYTES:
        state = "fail" if free_bytes < DISK_FAIL_BYTES else "warn"
    found = f"{_gib(free_bytes)} free at {printable(folder)}"
    advice = "" if state == "ok" else "Free space there, or name another folder."
    return Finding(f"disk of {name}", state, found, advice)


def check_ports(ports: Mapping[int, str]) -> Iterator[Finding]:
    """Ports that something of ours would like to have."""
    for port, user in ports.items():
        if is_port_free(port):
            yield Finding(f"port {port}", "ok", "free")
        else:
            yield Finding(
                f"port {port}",
                "warn",
                "in use",
                f"It is wanted by {user}: stop what listens there, or give another with --port.",
            )


def is_port_free(port: int) -> bool:
    """Return whether a server could listen on a loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def check_time_zone(now: datetime) -> Finding:
    """The wall clock's year; the zone is only told, because every time of ours is UTC."""
    found = f"{now:%Y-%m-%d %H:%M} UTC, local zone {time.tzname[0]}"
    if not EARLIEST_YEAR <= now.year < LATEST_YEAR:
        return Finding(
            "date", "fail", found, "Set the clock; certificates and leases depend on it."
        )
    return Finding("date", "ok", found)


def judge_steadiness(wall_s: float, monotonic_s: float) -> Finding:
    """Say whether the wall clock ran like the monotonic one while the doctor looked around."""
    jump_s = wall_s - monotonic_s
    if abs(jump_s) > CLOCK_JUMP_S:
        advice = "Let the time service slew the clock, not step it."
        return Finding("clock", "warn", f"jumped by {jump_s:+.1f} s while looked at", advice)
    return Finding("clock", "ok", "runs steadily")


def check_clock(store: Path) -> Finding:
    """The store's clock against ours: on a shared folder it is another machine's."""
    try:
        store.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=store, prefix=".doctor-") as file:
            file.write(b"x")
            file.flush()
            stored = os.fstat(file.fileno()).st_mtime
    except OSError as error:
        return _unwritable("clock of the store", store, error)
    return judge_clock(time.time() - stored)


def judge_clock(skew_s: float) -> Finding:
    """Say whether a store's clock is close enough to ours."""
    found = f"{abs(skew_s):.1f} s from this machine's"
    if abs(skew_s) > CLOCK_SKEW_S:
        return Finding("clock of the store", "warn", found, "Run a time service on both hosts.")
    return Finding("clock of the store", "ok", found)


def check_variables(variables: Iterable[str]) -> Iterator[Finding]:
    """Environment variables that inject faults, let data run code, or point elsewhere."""
    names = sorted(variables)
    unsafe = [n for n in names if n.startswith(UNSAFE) or any(p in n for p in UNSAFE_PARTS)]
    for name in unsafe:
        yield Finding(
            "environment",
            "fail",
            printable(name),
            f"Run: unset {printable(name)}; it injects faults or lets data run code.",
        )
    for name in (name for name in names if name in FOREIGN):
        yield Finding(
            "environment",
            "warn",
            printable(name),
            f"It points at another installation; Arclight sets its own. Run: unset {name}",
        )
    if not unsafe:
        yield Finding("environment", "ok", "no fault or unsafe flag is set")


def check_commit_rule(store: Path) -> Finding:
    """R6: two processes race for one name; on a store that can be trusted one wins each time."""
    try:
        store.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=store, prefix=".doctor-") as folder:
            winners = race_for_names(Path(folder), RACES)
    except OSError as error:
        return _unwritable("commit rule", store, error)
    return judge_races(winners)


def judge_races(winners: list[int]) -> Finding:
    """Say whether every name had exactly one winner."""
    wrong = sum(count != 1 for count in winners)
    found = f"{len(winners) - wrong} of {len(winners)} names had one winner"
    if wrong or not winners:
        return Finding(
            "commit rule",
            "fail",
            found,
            "This file system's link() is not atomic: put the store on a local or POSIX one.",
        )
    return Finding("commit rule", "ok", found)


def _unwritable(check: str, store: Path, error: OSError) -> Finding:
    found = f"'{printable(store)}' cannot be written ({error.strerror})"
    return Finding(check, "fail", found, "Make it writable, or name another one with --store.")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")
