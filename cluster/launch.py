"""Bring a Ray head with a job server up on this machine, and down again, by process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from ray._private.ray_constants import ENABLE_RAY_CLUSTERS_ENV_VAR

from arclight.child import module_command, own_variables
from arclight.errors import ConflictError, EngineError, IntegrityError, printable
from arclight.progress import silent_tell
from arclight.store import held
from cluster.head import LOOPBACK
from cluster.head_record import (
    HEAD,
    LOG,
    PROFILE,
    REQUEST,
    TOKEN,
    Head,
    HeadRequest,
    find_head,
    head_elsewhere,
)
from cluster.machine import look_at_machine
from cluster.ray_session import VARIABLES, refuse_unsafe_variables
from cluster.sizing import plan_sizes
from cluster.tokens import create_secret, create_token, private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arclight.progress import Tell
    from cluster.profiles import Profile

TEMP_PREFIX = "arc.h"
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
JOB_STOP_S = 20
"""Time a job has to end by itself after it was told to; Ray's default of 3 s is too short for a
JVM and for the record of how the job ended."""


def start_head(
    profile: Profile,
    folder: Path,
    *,
    timeout_s: float = START_TIMEOUT_S,
    tell: Tell = silent_tell,
) -> Head:
    """Start a Ray head on loopback, with a token of its own and a job server.

    Args:
        profile: how big.
        folder: where the head's record, token and log are kept, one head a folder.
        timeout_s: how long it may take.
        tell: told when it is begun, and not refused.

    Raises:
        ConflictError: a head of this folder runs, here or elsewhere.
        EngineError: it did not start; its log is in the folder.
    """
    refuse_unsafe_variables(os.environ)
    private_folder(folder)
    with _alone(folder):
        return _start(profile, folder, timeout_s, tell)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only command that starts or ends a cluster of a folder."""
    with held(folder, alone=True) as is_alone:
        if not is_alone:
            raise ConflictError(
                f"another command starts or ends a cluster in '{printable(folder)}' now; wait for "
                "it."
            )
        yield


def _start(profile: Profile, folder: Path, timeout_s: float, tell: Tell) -> Head:
    known = find_head(folder)
    if known is not None:
        raise ConflictError(
            f"a cluster runs already at {known.jobs_url} (process {known.pid}); use it, or stop "
            "it with `arclight down` and the same --profile."
        )
    _refuse_elsewhere(folder)
    sizes = plan_sizes(profile, look_at_machine(folder))
    tell(f"starting Ray for profile '{profile.name}'; this takes about 10 s.")
    _remove_temp(folder)  # of one that was killed
    for name in (HEAD, f".{HEAD}", REQUEST, TOKEN, LOG, PROFILE):
        (folder / name).unlink(missing_ok=True)
    temp = tempfile.mkdtemp(prefix=TEMP_PREFIX, dir="/tmp")
    request = HeadRequest(
        cores=sizes.cores,
        object_store_bytes=sizes.ray_object_store_bytes,
        dashboard_port=_free_port(),
        temp_folder=f"{temp}/r",  # Ray opens the folder it is given to everybody, but not ours
    )
    create_secret(folder / REQUEST, request.to_json())
    create_token(folder / TOKEN)
    create_secret(folder / LOG, "")
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 -- our own module, no shell
            module_command("cluster.head", str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_variables(folder / TOKEN, temp),
            cwd=folder,
            start_new_session=True,
        )
    try:
        return _wait_for(process, folder, timeout_s)
    except BaseException:
        _end(process.pid)
        shutil.rmtree(temp, ignore_errors=True)
        raise


def stop_head(folder: Path) -> bool:
    """Stop the head of a folder and everything below it.

    Returns:
        Whether there was one; stopping twice is not an error.

    Raises:
        ConflictError: it runs on another machine, or in another container, or another command
            starts or ends it now.
    """
    if not folder.is_dir():
        return False
    with _alone(folder):
        _refuse_elsewhere(folder)
        head = find_head(folder)
        if head is not None:
            _end(head.pid)
        _remove_temp(folder)
        for name in (HEAD, REQUEST, TOKEN, PROFILE):
            (folder / name).unlink(missing_ok=True)
        return head is not None


def _refuse_elsewhere(folder: Path) -> None:
    """Refuse to touch the folder of a head that only another machine or container can end."""
    head = head_elsewhere(folder)
    if head is not None:
        raise ConflictError(
            f"the cluster at {head.jobs_url} must be used and ended where it runs, on "
            f"'{printable(head.host)}', another machine or container with this home; type it "
            f"there, or remove '{printable(folder / HEAD)}' if that one is no more."
        )


def _remove_temp(folder: Path) -> None:
    """Remove what Ray kept for a head that has ended, or was killed before it had a record."""
    with suppress(FileNotFoundError, IntegrityError):
        asked = HeadRequest.from_json((folder / REQUEST).read_bytes(), source=REQUEST)
        temp = Path(asked.temp_folder).parent
        if temp.name.startswith(TEMP_PREFIX):
            shutil.rmtree(temp, ignore_errors=True)


def _variables(token: Path, temp: str) -> dict[str, str]:
    """Return the environment of the head and of the jobs it will run.

    Their temporary files go with the head: Ray's dashboard leaves some when it is ended.
    """
    wanted = {
        **VARIABLES,
        "RAY_AUTH_TOKEN_PATH": str(token),
        "TMPDIR": os.environ.get("TMPDIR") or temp,
        "RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_S),
        # read when Ray is imported: without it Ray listens on all interfaces
        ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
        "AUTOSCALER_METRIC_PORT": "0",
        "DASHBOARD_METRIC_PORT": "0",
        # jobs run `python -m jobs.entry`: this Python, and the packages of `own_variables`
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    kept = {name: value for name, value in own_variables().items() if name not in wanted}
    return {**kept, **{name: value for name, value in wanted.items() if value is not None}}


def _wait_for(process: subprocess.Popen[bytes], folder: Path, timeout_s: float) -> Head:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EngineError(
                f"the Ray head ended with status {process.returncode} before it was up "
                f"({printable(_last_line(folder / LOG))}); see '{printable(folder / LOG)}'."
            )
        head = find_head(folder)
        if head is not None and _listens(head.jobs_url):
            return head
        time.sleep(0.1)
    raise EngineError(
        f"the Ray head must be up within {timeout_s:g} s, but is not; see "
        f"'{printable(folder / LOG)}'."
    )


def _listens(url: str) -> bool:
    host, port = url.split("://", 1)[1].split(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _end(pid: int) -> None:
    """End a process and its descendants, each by its own id: asked first, then killed."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    with suppress(psutil.NoSuchProcess):
        root.terminate()
    _, alive = psutil.wait_procs(tree, timeout=STOP_TIMEOUT_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)


def _last_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
