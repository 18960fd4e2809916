"""`arclight submit`: send a run to a cluster that is there already."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from arclight.errors import IntegrityError, MissingError
from arclight.spec_file import load_spec
from arclight.store import is_held
from cluster.profiles import Profile, load_profile
from cluster.submit_client import job_server
from jobs.check import check_sources, check_without_running
from jobs.entry import ENTRYPOINT, JOB, STORE
from jobs.runs import store_for, store_words
from jobs.say import answer, say
from jobs.signing import key_variables
from jobs.submissions import (
    LOG,
    PROFILE,
    SHELF,
    create_submission,
    decide_state,
    find_latest,
    is_cancelled,
    key_of,
    read_exit,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arclight.spec_file import LoadedSpec
    from arclight.store import Store
    from cluster.submit_client import JobServer
    from jobs.submissions import JobState, RunOption, Submission


@dataclass(frozen=True)
class Sent:
    """What came of a submission: a new job, or the one that was there already."""

    submission: Submission
    state: JobState
    is_new: bool


def submit_command(  # noqa: PLR0913 -- the options of `submit` and of `run`
    spec_file: Path,
    *,
    store: str | None,
    profile: str,
    again: bool,
    accept_schema: bool,
    new_study: bool,
    as_json: bool,
) -> None:
    """Submit a spec and say which job it is."""
    told: dict[RunOption, bool] = {"--accept-schema": accept_schema, "--new-study": new_study}
    loaded = load_spec(spec_file)
    check_without_running(loaded)
    with suppress(MissingError):  # a source that the cluster alone has is the job's to check
        check_sources(loaded)
    place = load_profile(profile)
    catalog = store_for(store, loaded.folder)
    options = tuple(option for option, is_given in told.items() if is_given)
    sent = submit_spec(catalog.store, loaded, place, again=again, options=options)
    job = sent.submission.id
    if sent.is_new:
        say(f"submit: {job} is with {sent.submission.jobs_url}.", style="green")
    else:
        when = "" if sent.state.is_over else " once it is over"
        say(
            f"submit: this is job {job}, which was submitted before and is {sent.state.name}: "
            f"{sent.state.reason} --again makes a new attempt{when}."
        )
    own = f"{job}{store_words(store, catalog.store.root)}"
    say(f"next: arclight logs {own} --follow · arclight wait {own} · arclight cancel {own}")
    answer({"job": job, "new": sent.is_new, "state": sent.state.name}, as_json=as_json)


def submit_spec(
    store: Store,
    loaded: LoadedSpec,
    profile: Profile,
    *,
    again: bool = False,
    options: Sequence[RunOption] = (),
    entrypoint: str = ENTRYPOINT,
) -> Sent:
    """Submit a spec once: the same spec, store, profile and options are the same job.

    A job whose submission was recorded but never reached the cluster, because a reply was lost or
    this process was killed in between, is sent again under its own id.

    Args:
        store: shared with the cluster.
        loaded: the spec.
        profile: names the job server and its token.
        again: make a new attempt, if the latest one is over.
        options: of the run.
        entrypoint: another constant, for tests.

    Raises:
        ConflictError: the short id belongs to another submission.
        SpecError: the job could not read its spec.
        EngineError: the cluster cannot be reached.
        RefusedError: it does not take the token.
    """
    server = job_server(profile)
    sent = find_latest(store, loaded.spec.name, key_of(loaded, profile, store, options))
    attempt = 1
    if sent is not None:
        state = look(store, sent, server)
        if state.name != "unsent":
            if not (again and state.is_over):
                return Sent(sent, state, is_new=False)
            attempt, sent = sent.attempt + 1, None
    server.refuse_down()  # before there is a record of what cannot be sent
    submission = sent or create_submission(
        store, loaded, profile, attempt=attempt, options=options
    )
    is_new = server.submit(
        submission.id,
        entrypoint=entrypoint,
        variables={JOB: submission.id, STORE: str(store.root), **key_variables()},
    )
    return Sent(submission, look(store, submission, server), is_new=is_new)


def look(store: Store, submission: Submission, server: JobServer | None) -> JobState:
    """Return where a job stands, by its own record first; None asks no cluster.

    Raises:
        EngineError: the cluster cannot be reached, and the job has left no record.
    """
    ended = read_exit(store, submission.id)
    hint = None if ended is not None or server is None else server.hint(submission.id)
    if hint is not None and hint not in ("PENDING", "RUNNING"):
        ended = read_exit(store, submission.id)  # it may have been written while we asked
    log = store.path(SHELF, submission.id) / LOG
    is_here = is_held(log)
    if hint == "GONE" and not is_here:
        ended = read_exit(store, submission.id)  # written before the log was let go of
    return decide_state(
        ended,
        cancelled=is_cancelled(store, submission.id),
        hint=hint,
        seen_log=log.exists(),
        is_here=is_here,
    )


def server_of(store: Store, submission: Submission) -> JobServer:
    """Return the job server a submission was sent to."""
    path = store.path(SHELF, submission.id, PROFILE)
    try:
        return job_server(Profile.model_validate_json(path.read_bytes()))
    except (ValidationError, OSError) as error:
        raise IntegrityError(
            f"'{path}' must be the profile that job '{submission.id}' was sent with, but cannot "
            "be read; restore it from a backup."
        ) from error
