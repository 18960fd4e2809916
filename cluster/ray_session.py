"""The only place that starts or joins Ray: a local cluster on loopback, or an attached one."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray import _raylet
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray.exceptions import RayError

from arclight.errors import EngineError, RefusedError, printable
from arclight.store import held
from cluster.environment import environment
from cluster.machine import look_at_machine
from cluster.signals import kept_signals
from cluster.sizing import plan_sizes
from cluster.tokens import create_token, private_folder, read_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cluster.profiles import Profile
    from cluster.sizing import Sizes

LOOPBACK = "127.0.0.1"
# A socket's path may have 107 bytes; Ray appends 64 of them:
# /session_YYYY-MM-DD_HH-MM-SS_ffffff_PID/sockets/plasma_store
MAX_TEMP_PATH = 43
# /arc-PID-random/r is up to 23 of those
MAX_PARENT_PATH = MAX_TEMP_PATH - 23
SHORT_TEMP = Path("/tmp")  # noqa: S108 -- only a private 0700 folder is made in it
TEMP_PREFIX = "arc-"
RAY_FOLDER = "r"
EXIT_TIMEOUT_S = 5
STARTS = 2
"""Of a cluster of this process, until one answers."""
PATIENCE = 2
"""Times that Ray asks for a first answer, each of some 40 s; its own number is 20."""
NEEDED = frozenset({ray_constants.PROCESS_TYPE_GCS_SERVER, ray_constants.PROCESS_TYPE_RAYLET})
UNSAFE_PREFIXES = ("RAY_DATA_AUTOLOAD_", "RAY_testing_")
UNSAFE_PARTS = ("ALLOW_UNSAFE",)

EMPTY_LOGS = shutil.ignore_patterns("old", "nsight", "profiles", "rocprof_sys", "export_*")

# Read by Ray when its processes start.
VARIABLES: dict[str, str | None] = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": None,
    "RAY_ADDRESS": None,
    # a report waits for the controller's poll, which is 2 s by default
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # keeps CUDA_VISIBLE_DEVICES as it is for workers without a GPU, and Ray from warning of it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

LOCAL_VARIABLES: dict[str, str | None] = {
    # fixed ports would make a second cluster on this host fail
    "AUTOSCALER_METRIC_PORT": "0",
    "DASHBOARD_METRIC_PORT": "0",
}


@contextmanager
def ray_session(
    profile: Profile, *, log_folder: Path, temp_folder: Path | None = None
) -> Iterator[str]:
    """Connect this process to Ray for the length of a block and yield the address.

    Without an address in the profile an own cluster is started on loopback, and every process
    of it has ended when the block ends.

    Args:
        profile: where to run and how big.
        log_folder: Ray's own logs are put there, under `ray/`.
        temp_folder: short folder for sockets and spilled objects; None makes one.

    Raises:
        RefusedError: an unsafe variable is set, the token is readable by others, or the
            temporary path is too long.
        EngineError: Ray did not start, or the address does not answer.
    """
    refuse_unsafe_variables(os.environ)
    with _nothing_printed():
        if profile.ray.address is None:
            with _local_cluster(profile, log_folder, temp_folder) as address:
                yield address
        else:
            with _attached_cluster(profile) as address:
                yield address


def lost_parts() -> tuple[str, ...]:
    """Return which processes that an own cluster cannot do without have ended by themselves."""
    node = ray_worker._global_node
    dead = () if node is None else node.dead_processes()
    return tuple(sorted({kind for kind, _ in dead} & NEEDED))


def refuse_unsafe_variables(variables: Iterable[str]) -> None:
    """Refuse variables that make Ray run code found in data, or that inject faults.

    Raises:
        RefusedError: one of them is set.
    """
    for name in sorted(variables):
        if name.startswith(UNSAFE_PREFIXES) or any(part in name for part in UNSAFE_PARTS):
            raise RefusedError(
                f"environment variable '{printable(name)}' must be unset: it lets data run code "
                "or injects faults; run `unset` on it."
            )


@contextmanager
def _local_cluster(profile: Profile, log_folder: Path, temp_folder: Path | None) -> Iterator[str]:
    folder = _short_folder(temp_folder)
    with held(folder), _cluster_in(folder, profile, log_folder) as address:
        yield address


@contextmanager
def _cluster_in(folder: Path, profile: Profile, log_folder: Path) -> Iterator[str]:
    """Run a cluster in a folder that is gone in the end."""
    token = create_token(folder / "token")
    variables = {**VARIABLES, **LOCAL_VARIABLES, "RAY_AUTH_TOKEN_PATH": str(token)}
    machine = look_at_machine(folder)
    sizes = plan_sizes(profile, machine)
    before = set(psutil.Process().children())
    try:
        with environment(variables), _loopback_only():
            _reload_token()
            # Ray opens its own folder to everybody, so it gets one inside ours
            address = _start_again(sizes, machine.gpus, folder / RAY_FOLDER, before)
            roots = set(psutil.Process().children()) - before
            try:
                with environment({"RAY_ADDRESS": address}):
                    yield address
            finally:
                started = _with_descendants(roots)
                ray.shutdown(wait_for_processes=True)
                _end(started)
    finally:
        _keep_logs(folder, log_folder)
        shutil.rmtree(folder, ignore_errors=True)


def _start_again(sizes: Sizes, gpus: int, folder: Path, before: set[psutil.Process]) -> str:
    """Start a cluster; one whose first process hangs is ended, and another one started.

    Seen once in some hundred starts on a busy machine: the process is there and answers nobody,
    for which Ray waits a quarter of an hour.

    Args:
        sizes: of the cluster.
        gpus: that it has.
        folder: for its files.
        before: the children that this process had already.
    """
    for _ in range(STARTS - 1):
        with suppress(EngineError):
            return _start_or_leave_nothing(sizes, gpus, folder, before)
    return _start_or_leave_nothing(sizes, gpus, folder, before)


def _start_or_leave_nothing(
    sizes: Sizes, gpus: int, folder: Path, before: set[psutil.Process]
) -> str:
    """Start a cluster; one that fails or is interrupted as it starts is ended to its last process.

    Ray itself ends it as this process ends, but for its agents, which stay for a minute.
    """
    try:
        return _start(sizes, gpus, folder)
    except BaseException:
        started = _with_descendants(set(psutil.Process().children()) - before)
        ray.shutdown()
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _end(started)
        raise


def _start(sizes: Sizes, gpus: int, folder: Path) -> str:
    """Start a cluster of this process and return its address."""
    patience = ray_constants.NUM_REDIS_GET_RETRIES
    ray_constants.NUM_REDIS_GET_RETRIES = PATIENCE
    try:
        with kept_signals(), _handlers_of_ray_left_out():
            context = ray.init(
                address="local",
                num_cpus=sizes.cores,
                num_gpus=gpus,
                object_store_memory=sizes.ray_object_store_bytes,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address=LOOPBACK,
                _temp_dir=str(folder),
            )
    except (RayError, OSError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"Ray did not start ({printable(error)}); see its logs in the run's folder."
        ) from error
    finally:
        ray_constants.NUM_REDIS_GET_RETRIES = patience
    return str(context.address_info["gcs_address"])


@contextmanager
def _attached_cluster(profile: Profile) -> Iterator[str]:
    address, token = str(profile.ray.address), Path(str(profile.ray.token_path))
    read_token(token)
    with environment({**VARIABLES, "RAY_AUTH_TOKEN_PATH": str(token)}):
        _reload_token()
        try:
            with kept_signals(), _handlers_of_ray_left_out():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (RayError, OSError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"Ray at '{address}' cannot be joined ({printable(error)}); check that it runs "
                "and that token_path holds its token."
            ) from error
        try:
            with environment({"RAY_ADDRESS": address}):
                yield address
        finally:
            ray.shutdown()


@contextmanager
def _handlers_of_ray_left_out() -> Iterator[None]:
    """Keep Ray from taking SIGTERM over as it starts, which takes it seconds.

    Its handlers exit where they stand: the run's journal would not tell of the interrupt, and
    what has started by then would stay.
    """
    before = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = _taken_by_nobody
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = before


def _taken_by_nobody(_: object) -> None:
    """Take a handler that Ray would set, and set none."""


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Make Ray bind 127.0.0.1.

    Ray turns a loopback address into the host's outer one and then listens on all interfaces,
    unless it believes that this system can have no cluster of several nodes. That belief is a
    constant read from the environment when Ray is imported, so both are set: the constant for
    this process, the variable for its children. A test lists the open ports.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with environment({name: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """Keep Ray's word on a dead worker off stdout, where a command's answer goes.

    Ray prints it from a thread whatever `log_to_driver` says; errors and Ray's logs have it too.
    """
    before = ray_worker._worker_logs_enabled
    ray_worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray_worker._worker_logs_enabled = before


def _reload_token() -> None:
    """Make this process read its token again: Ray caches both the mode and the token."""
    raylet: Any = _raylet
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _short_folder(wanted: Path | None) -> Path:
    """Make a private folder short enough for Ray's socket paths.

    Raises:
        RefusedError: the wanted folder's path is too long.
    """
    if wanted is not None:
        return _private_in(private_folder(wanted).resolve())
    system = Path(tempfile.gettempdir()).resolve()
    parent = system if _fits(system) else SHORT_TEMP
    _sweep(parent)
    return _private_in(parent)


def _private_in(parent: Path) -> Path:
    if not _fits(parent):
        raise RefusedError(
            f"Ray's temporary folder must have a path of at most {MAX_PARENT_PATH} bytes, got "
            f"'{printable(parent)}'; leave it out."
        )
    return Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}{os.getpid()}-", dir=parent))


def _fits(parent: Path) -> bool:
    return len(os.fsencode(parent)) <= MAX_PARENT_PATH


def _sweep(parent: Path) -> None:
    """Remove folders that a killed process of this user has left.

    Nobody holds them: the number of a process of another container means nothing here.
    """
    for folder in parent.glob(f"{TEMP_PREFIX}*-*"):
        pid = folder.name.removeprefix(TEMP_PREFIX).split("-")[0]
        with suppress(FileNotFoundError):  # its own command has just ended
            owned = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
            if owned and pid.isdigit() and not psutil.pid_exists(int(pid)):
                with held(folder, alone=True) as is_ours:
                    if is_ours:
                        shutil.rmtree(folder, ignore_errors=True)


def _with_descendants(roots: set[psutil.Process]) -> set[psutil.Process]:
    """Return Ray's processes and all they have started; children of this process are left out."""
    found = set(roots)
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            found.update(root.children(recursive=True))
    return found


def _end(processes: set[psutil.Process]) -> None:
    """Wait for what was started to end, and kill by its own id what does not."""
    _, alive = psutil.wait_procs(processes, timeout=EXIT_TIMEOUT_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=EXIT_TIMEOUT_S)


def _keep_logs(folder: Path, log_folder: Path) -> None:
    """Copy Ray's logs beside the run's, where there is room; the temporary folder goes away."""
    for logs in sorted(folder.glob(f"{RAY_FOLDER}/session_2*/logs")):
        # a full disk, or a store that may only be read, takes nothing from what Ray was up for
        with suppress(OSError):
            shutil.copytree(
                logs, log_folder / "ray", ignore=EMPTY_LOGS, dirs_exist_ok=True, symlinks=True
            )
