"""`arclight down`: ends a cluster that `up` started, and never a job in silence."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from arclight.errors import ArclightError, RefusedError, printable
from arclight.store import find_store
from cluster.head_record import TOKEN, find_head
from cluster.launch import JOB_STOP_S, stop_head
from cluster.profiles import load_profile
from cluster.submit_client import JobServer
from jobs.entry import STORE
from jobs.guard import INTERRUPTED
from jobs.say import answer, say
from jobs.submissions import read_submission, record_cancel, record_exit
from jobs.up import cluster_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.store import Store
    from cluster.submit_client import ServerJob

WAIT_S = JOB_STOP_S + 10.0
POLL_S = 0.5


def down_command(*, profile: str, force: bool, as_json: bool) -> None:
    """Stop a cluster that `up` started, and every process of it.

    Raises:
        RefusedError: jobs run there, or cannot be counted, and it is not forced.
        ConflictError: it runs on another machine, or in another container.
    """
    place = load_profile(profile)
    folder = cluster_folder(place)
    head = find_head(folder)
    ended: tuple[ServerJob, ...] = ()
    if head is not None:
        server = JobServer(head.jobs_url, folder / TOKEN)
        ended = _running(server, profile, force=force)
        _ask_to_end(server, ended)
    was_up = stop_head(folder)
    for job in ended:
        _record_end(job)
    say("down: the cluster has ended." if was_up else "down: no cluster was up.")
    answer({"was_up": was_up, "ended": [job.id for job in ended]}, as_json=as_json)


def _running(server: JobServer, profile: str, *, force: bool) -> tuple[ServerJob, ...]:
    """Return the jobs that the end of a cluster would end, if they may be ended."""
    way_out = f"`arclight down --profile {printable(profile)} --force`"
    try:
        found = server.running()
    except ArclightError as error:
        why = printable(error.message, limit=400).rstrip(".")
        if force:
            say(f"down: the jobs that run cannot be counted: {why}.")
            return ()
        raise RefusedError(
            f"the jobs of cluster '{printable(profile)}' must be counted before it goes down, "
            f"but {why}; end it with {way_out}, whatever runs there."
        ) from error
    if found and not force:
        raise RefusedError(
            f"cluster '{printable(profile)}' must run no job to go down, but {_told(found)}; "
            f"wait with `arclight wait ID`, or end them with it: {way_out}."
        )
    return found


def _told(jobs: Sequence[ServerJob]) -> str:
    count = "1 job runs" if len(jobs) == 1 else f"{len(jobs)} jobs run"
    return f"{count} there ({printable(', '.join(job.id for job in jobs))})"


def _ask_to_end(server: JobServer, jobs: Sequence[ServerJob]) -> None:
    """Have jobs stop, and give them the time to record how they ended."""
    if not jobs:
        return
    say(f"down: {_told(jobs)}; ending.")
    ours = {job.id for job in jobs if job.is_submitted}
    try:
        for job in jobs:
            store = _store_of(job)
            if store is not None:
                record_cancel(store, job.id)
            if job.is_submitted:
                server.stop(job.id)
        deadline = time.monotonic() + WAIT_S
        while ours & {job.id for job in server.running()} and time.monotonic() < deadline:
            time.sleep(POLL_S)
    except ArclightError as error:
        say(f"down: they could not be asked to stop: {printable(error.message, limit=400)}")


def _record_end(job: ServerJob) -> None:
    """Record the end of a job that could not do it itself; a record of its own holds."""
    store = _store_of(job)
    if store is None:
        return
    try:
        reason = "its cluster was ended by `arclight down --force`."
        record_exit(store, job.id, status=INTERRUPTED, reason=reason)
    except ArclightError as error:
        say(f"down: the end of {job.id} is not recorded: {printable(error.message, limit=400)}")


def _store_of(job: ServerJob) -> Store | None:
    """Return the store of a job's submission; None for what somebody else runs there."""
    try:
        store = find_store(job.variables.get(STORE, ""))
        read_submission(store, job.id)
    except ArclightError:
        return None
    return store
