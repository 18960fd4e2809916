"""`arclight jobs`, `logs`, `wait` and `cancel`: what became of submissions."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from arclight.errors import ArclightError, EngineError, printable
from cluster.submit_client import SilentServerError
from jobs.listing import Listing
from jobs.runs import known_store, store_words
from jobs.say import answer, say
from jobs.submissions import (
    LOG,
    SHELF,
    JobState,
    list_jobs,
    read_submission,
    record_cancel,
)
from jobs.submit import look, server_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arclight.store import Store
    from cluster.submit_client import JobServer
    from jobs.submissions import Submission

POLL_S = 1.0
PATIENCE_S = 120.0
"""How long a server that has answered before may not answer."""
LIST_TIMEOUT_S = 5.0
"""How long a list waits for a server, once."""
MAX_LINE = 10_000


class JobFailedError(ArclightError):
    """A job that was waited for did not end well; its exit status becomes ours."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def jobs_command(*, store: str | None, as_json: bool) -> None:
    """List submissions and where they stand."""
    held = known_store(store, Path.cwd()).store
    listing, gone = Listing("jobs", "job"), set()
    silent: dict[str, str] = {}
    for job in list_jobs(held):
        with listing.reading(job):
            submission = read_submission(held, job)
            state, is_gone = _look_if_possible(held, submission, silent)
            listing.rows.append(
                {"job": job, "at": submission.made_at, "state": state.name, "reason": state.reason}
            )
            gone |= {submission.jobs_url} if is_gone else set()
    if gone:
        where = f"cluster at {gone.pop()} is" if len(gone) == 1 else f"{len(gone)} clusters are"
        say(f"jobs: the {where} down; what became of their jobs is from the store's records.")
    listing.end(as_json=as_json)


def logs_command(job: str, *, store: str | None, follow: bool) -> None:
    """Print a job's output; with `follow`, until the job is over."""
    held = known_store(store, Path.cwd()).store
    submission = read_submission(held, job)
    server = server_of(held, submission)
    _say_if_gone("logs", server)
    for line in job_output(held, submission, server, follow=follow):
        sys.stdout.write(printable(line, limit=MAX_LINE) + "\n")
        sys.stdout.flush()


def wait_command(job: str, *, store: str | None, as_json: bool) -> None:
    """Wait for a job and take its exit status."""
    held = known_store(store, Path.cwd()).store
    submission = read_submission(held, job)
    server = server_of(held, submission)
    state = wait_for(held, submission, server)
    _say_if_gone("wait", server)
    answer({"job": job, "state": state.name, "status": state.exit_status}, as_json=as_json)
    if state.exit_status != 0:
        raise JobFailedError(
            f"job '{job}' must end well, but it is {state.name}: {state.reason} "
            f"`arclight logs {job}{store_words(store, held.root)}` shows its output.",
            1 if state.exit_status is None else state.exit_status,
        )
    say(f"wait: {job} is done.", style="green")


def cancel_command(job: str, *, store: str | None, as_json: bool) -> None:
    """Stop a job; one that is over stays as it is."""
    held = known_store(store, Path.cwd()).store
    submission = read_submission(held, job)
    state = cancel_job(held, submission, server_of(held, submission))
    say(f"cancel: {job} is {state.name}: {state.reason}")
    answer({"job": job, "state": state.name}, as_json=as_json)


def cancel_job(store: Store, submission: Submission, server: JobServer) -> JobState:
    """Record that a job is to stop, and have the cluster stop it; again is the same.

    Raises:
        EngineError: the cluster cannot be reached; the job will not begin if it has not.
    """
    state = look(store, submission, server)
    if state.is_over:
        return state
    record_cancel(store, submission.id)
    server.stop(submission.id)
    return look(store, submission, server)


def wait_for(
    store: Store, submission: Submission, server: JobServer, *, poll_s: float = POLL_S
) -> JobState:
    """Return where a job stands when it is over.

    Raises:
        EngineError: the cluster cannot be reached, and the job has left no record.
    """
    look_again = _patiently(store, submission, server)
    while not (state := look_again()).is_over:
        time.sleep(poll_s)
    return state


def _patiently(store: Store, submission: Submission, server: JobServer) -> Callable[[], JobState]:
    """Return a look that outlives a server which does not answer for a while.

    Not the first time: then the address may be wrong. It raises after `PATIENCE_S` without any
    answer.
    """
    seen_at: float | None = None

    def again() -> JobState:
        nonlocal seen_at
        is_told = False
        while True:
            try:
                state = look(store, submission, server)
            except EngineError as error:
                if seen_at is None or time.monotonic() - seen_at > PATIENCE_S:
                    raise
                if not is_told:
                    say(f"{error.message} Asking again for {PATIENCE_S:.0f} s.")
                is_told = True
                time.sleep(POLL_S)
            else:
                seen_at = time.monotonic()
                return state

    return again


def job_output(
    store: Store, submission: Submission, server: JobServer, *, follow: bool
) -> Iterator[str]:
    """Yield a job's output line by line: the store's copy, or the cluster's if there is none."""
    path = store.path(SHELF, submission.id, LOG)
    look_again = _patiently(store, submission, server)
    while follow and not path.exists() and not look_again().is_over:
        time.sleep(POLL_S)
    if not path.exists():
        yield from server.logs(submission.id).splitlines()
        return
    with path.open(encoding="utf-8", errors="replace") as log:
        is_last = not follow
        while not is_last:
            is_last = look_again().is_over
            yield from _whole_lines(log)
            if not is_last:
                time.sleep(POLL_S)
        yield from log.read().splitlines()


def _whole_lines(log: TextIO) -> Iterator[str]:
    """Yield the lines that are complete, and stand before the first that is not."""
    while True:
        before = log.tell()
        line = log.readline()
        if not line.endswith("\n"):
            log.seek(before)
            return
        yield line[:-1]


def _look_if_possible(
    store: Store, submission: Submission, silent: dict[str, str]
) -> tuple[JobState, bool]:
    """Return where a job stands, and whether its cluster has ended.

    A cluster that cannot be asked is a state, not an error; one that was silent is not asked
    again.

    Args:
        store: of the submission.
        submission: of the job.
        silent: what was said of each server that could not be reached, by its address.
    """
    url = submission.jobs_url
    try:
        server = replace(server_of(store, submission), timeout_s=LIST_TIMEOUT_S)
        state = look(store, submission, None if url in silent else server)
    except ArclightError as error:
        if isinstance(error, SilentServerError):
            silent[url] = error.message
        return JobState("unknown", error.message), False
    if state.name == "unknown":
        return JobState("unknown", silent[url]), False
    return state, server.is_gone


def _say_if_gone(command: str, server: JobServer) -> None:
    if server.is_gone:
        say(f"{command}: the cluster at {server.url} is down; this is from the store's records.")
