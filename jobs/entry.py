"""What a cluster runs for a submission: `python -m jobs.entry`, a constant command.

Which job it is comes from two variables, what it is to do from the files of that job in the
store. The command itself runs below this process, which keeps its output and records its end.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from arclight.child import module_command, own_variables
from arclight.errors import ArclightError, MissingError, RefusedError, SpecError, printable
from arclight.store import find_store
from cluster.profiles import HOST_PORT, Profile
from cluster.submit_client import job_server
from jobs.guard import INTERRUPTED, guarded
from jobs.say import say
from jobs.submissions import (
    ASKED_BY,
    LOG,
    PROFILE,
    SHELF,
    SPEC,
    as_yaml,
    is_cancelled,
    job_id,
    read_exit,
    read_submission,
    record_exit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from io import RawIOBase
    from pathlib import Path

    from arclight.store import Store
    from jobs.submissions import Submission

ENTRYPOINT = "python -m jobs.entry"
JOB, STORE = "ARCLIGHT_SUBMISSION", "ARCLIGHT_STORE"
MAX_LOG_BYTES = 64 << 20
_FULL = b"[the log ends here: it is full]\n"
_GONE = "its cluster ended, and it was ended too; submit it again when the cluster is up."
_GAP = b"\n[lines are missing here: there was no room for them]\n"
PASS_ON_S = 5.0
ANSWER_S = 3.0
END_S = 20.0
"""In which a command whose cluster is gone puts its things away."""
_POLL_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PORT_OPEN = re.compile(HOST_PORT)


def main() -> int:
    """Run the job that the environment names and return its exit status."""
    status = 1

    def work() -> None:
        nonlocal status
        store, submission = find_job(os.environ)
        folder = store.path(SHELF, submission.id)
        profile = place_profile(folder, os.environ)
        command = module_command(
            *("jobs.cli", "run", str(folder / SPEC)),
            *("--store", str(store.root), "--profile", str(profile)),
            *submission.options,
        )
        os.environ[ASKED_BY] = job_id(submission.name, submission.key, 1)
        status = supervise(store, submission.id, command, is_gone=cluster_watch(folder))

    said = guarded(work)
    return said or status


def find_job(variables: Mapping[str, str]) -> tuple[Store, Submission]:
    """Return the store and the submission that the environment names.

    Raises:
        SpecError: a variable is missing or is no id.
        MissingError: the store, or the job in it, is not to be seen from here.
    """
    for name in (JOB, STORE):
        if not variables.get(name):
            raise SpecError(f"variable {name} must be set; start jobs with `arclight submit`.")
    try:
        store = find_store(variables[STORE])
        return store, read_submission(store, variables[JOB])
    except MissingError as error:
        job, root = printable(variables[JOB]), printable(variables[STORE])
        raise MissingError(
            f"job '{job}' must be in the store '{root}' as '{socket.gethostname()}' sees it, but "
            "is not; the store must lie under the same path here and there: share its folder, or "
            "give another --store."
        ) from error


def place_profile(folder: Path, variables: Mapping[str, str]) -> Path:
    """Write the profile as it is on the cluster: its Ray is the one this job runs on.

    Ray tells a job the address of the newest Ray on the machine, which may be another one; so
    that holds only where the profile's own address does not answer from here.
    """
    body: dict[str, Any] = json.loads((folder / PROFILE).read_bytes())
    ray = body["ray"]
    address, token = variables.get("RAY_ADDRESS", ""), variables.get("RAY_AUTH_TOKEN_PATH")
    if _PORT_OPEN.match(address) and token:
        own = str(ray.get("address"))
        ray.update({"address": own if _answers(own) else address, "token_path": token})
    path = folder / f".here-{os.getpid()}.yaml"
    path.touch(mode=0o600)
    path.write_text(as_yaml(body), encoding="utf-8")
    return path


def _answers(address: str) -> bool:
    """Say whether somebody listens at a host and port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, ValueError):
        return False
    return True


def cluster_watch(folder: Path) -> Callable[[], bool]:
    """Return what says whether a job's cluster has ended, whose end nobody else may tell it.

    Ray ends its jobs by processes that `kill -9` of the head takes with it.
    """
    server = job_server(Profile.model_validate_json((folder / PROFILE).read_bytes()))

    def is_gone() -> bool:
        with suppress(OSError, ArclightError):  # a home that cannot be read now tells nothing
            return server.is_gone
        return False

    return is_gone


def supervise(
    store: Store,
    job: str,
    command: Sequence[str],
    *,
    is_gone: Callable[[], bool] = lambda: False,
) -> int:
    """Run a command, keep its output beside the job, record how it ended, return its status.

    A job that has ended or is cancelled does not begin; one whose cluster is gone is ended.
    """
    ended = read_exit(store, job)
    if ended is not None:
        say(f"job {job} has ended before: {ended.reason}")
        return ended.status
    if is_cancelled(store, job):
        return record_exit(store, job, status=INTERRUPTED, reason="cancelled in time.").status
    path = store.path(SHELF, job) / LOG
    with path.open("ab", buffering=0) as log:  # before the command: none runs unwatched
        path.chmod(0o600)
        with suppress(OSError):  # a file system may have no locks
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # tells that this process is there
        try:
            child = subprocess.Popen(  # noqa: S603 -- an argument list of ours, no shell
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=own_variables(),
            )
        except OSError as error:
            reason = f"the command did not start: {printable(error)}"
            return record_exit(store, job, status=1, reason=reason).status
        asked = threading.Event()
        for number in _SIGNALS:
            signal.signal(number, lambda *_: asked.set())
        stream = child.stdout
        if stream is None:
            raise ArclightError("a job's output must be a pipe; report it.")
        pump = threading.Thread(target=_keep, args=(stream, log), daemon=True)
        pump.start()
        code = _wait(child, asked, is_gone)
        pump.join(timeout=5)
        if code is None:  # while the log is held: nobody takes the job for lost in between
            return record_exit(store, job, status=INTERRUPTED, reason=_GONE).status
    status = code if code >= 0 else 128 - code
    if status and is_cancelled(store, job):
        # the signal goes to the whole tree: what came of an engine's end is no news
        return record_exit(store, job, status=INTERRUPTED, reason="it was cancelled.").status
    return record_exit(store, job, status=status, reason=_reason(code)).status


def _wait(
    child: subprocess.Popen[bytes], asked: threading.Event, is_gone: Callable[[], bool]
) -> int | None:
    """Wait for the command; pass a signal on that it does not seem to have got itself.

    A cluster that stops a job signals the whole tree; a second signal at once would interrupt
    the command while it is putting its things away.

    Returns:
        How the command ended; None if it was ended because its cluster was gone.
    """
    while not asked.is_set():
        with suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=_POLL_S)
        if is_gone():
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=END_S)
            child.kill()  # it may wait for a Ray that does not answer any more
            return None if child.wait() else 0
    with suppress(subprocess.TimeoutExpired):
        return child.wait(timeout=PASS_ON_S)
    child.terminate()
    return child.wait()


def _keep(stream: IO[bytes], log: RawIOBase) -> None:
    """Write output to the job's log, up to its limit, and to our own output.

    It is read to its end even where neither can be written: a command that nobody reads from
    waits for ever.
    """
    size, gap = 0, b""
    for line in stream:
        with suppress(OSError):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        if size < MAX_LOG_BYTES:
            size += len(line)
            text = gap + (line if size < MAX_LOG_BYTES else _FULL)
            try:
                is_whole = log.write(text) == len(text)
            except OSError:
                is_whole = False
            gap = b"" if is_whole else _GAP


def _reason(code: int) -> str:
    if code == 0:
        return "it ended well."
    if code == RefusedError.exit_status:
        return "it was refused by a check, a gate or a lock; see its log."
    if code == -signal.SIGKILL:
        return "it was killed, most likely for its memory; give it more or make it smaller."
    if code < 0:
        return f"signal {-code} ended it; see its log."
    return f"it ended with status {code}; see its log."


if __name__ == "__main__":
    sys.exit(main())
