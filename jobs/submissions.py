"""Submissions as the store holds them: what was asked, and how it ended; Ray's word is a hint."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_serializer

from arclight.catalog import now
from arclight.contract import Contract, digest_of
from arclight.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    SpecError,
    nearest,
    printable,
)
from arclight.spec_file import load_spec
from arclight.store import discard, make_folder, replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic import SerializerFunctionWrapHandler

    from arclight.spec import Spec
    from arclight.spec_file import LoadedSpec
    from arclight.store import Store
    from cluster.profiles import Profile
    from cluster.submit_client import Hint

SHELF = "submissions"
SPEC, PROFILE, LOG = "spec.yaml", "profile.yaml", "job.log"
KEY_CHARS = 12
JOB_ID = re.compile(rf"^[a-z0-9][a-z0-9-]{{0,62}}-[0-9a-f]{{{KEY_CHARS}}}(-[1-9][0-9]{{0,5}})?$")
_CANCEL, _EXIT = "cancel", "exit"
ASKED_BY = "ARCLIGHT_ASKED_BY"
"""Variable with the id of a submission's first attempt, of which all are one."""
# Signs that JSON leaves as they are, and YAML refuses or takes for the end of a line.
_NOT_IN_YAML = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
RunOption = Literal["--accept-schema", "--new-study"]
"""What a run may be told beside its spec."""
StateName = Literal[
    "queued", "running", "done", "failed", "cancelled", "lost", "unsent", "unknown"
]


class Submission(Contract):
    """What was asked of a cluster; created once, before the cluster hears of it."""

    kind: ClassVar[str] = "submission"

    id: str
    name: str
    attempt: int
    key: str
    """Digest of spec, SQL, store and profile: the same again is the same job."""
    spec_digest: str
    profile: str
    jobs_url: str
    made_at: str
    options: tuple[RunOption, ...] = ()
    """Of the run."""

    @model_serializer(mode="wrap")
    def _as_older_releases_read_it(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        return body if self.options else {n: v for n, v in body.items() if n != "options"}


class CancelRequest(Contract):
    """Somebody wants a job to stop; a job that has not begun does not begin."""

    kind: ClassVar[str] = "cancel-request"

    job: str
    at: str


class ExitRecord(Contract):
    """How a job ended, written on the cluster by the process that watched it."""

    kind: ClassVar[str] = "job-exit"

    job: str
    status: int
    """The command's exit status; 128 + N when signal N ended it."""
    reason: str
    at: str


@dataclass(frozen=True)
class JobState:
    """Where a job stands, and why we say so."""

    name: StateName
    reason: str
    exit_status: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self.name in ("done", "failed", "cancelled", "lost", "unsent")


def decide_state(
    ended: ExitRecord | None,
    *,
    cancelled: bool,
    hint: Hint | None,
    seen_log: bool = False,
    is_here: bool = False,
) -> JobState:
    """Say where a job stands; pure.

    Args:
        ended: the job's own record: the truth, if there is one.
        cancelled: whether somebody asked for its end.
        hint: what the cluster thinks; None if it cannot be asked.
        seen_log: whether the job ever began, by its log.
        is_here: whether its process still is, as far as this machine sees.
    """
    if ended is not None:
        name: StateName = "cancelled" if cancelled else "failed"
        return JobState("done" if ended.status == 0 else name, ended.reason, ended.status)
    if hint is None:
        return JobState("unknown", "the cluster cannot be asked, and the job has left no record.")
    if hint in ("PENDING", "RUNNING") or (hint == "GONE" and is_here):
        gone = "its cluster ended, and it is being ended, too."
        reason = gone if hint == "GONE" else "the cluster says so."
        reason = "it is being stopped." if cancelled else reason
        return JobState("queued" if hint == "PENDING" else "running", reason)
    if cancelled:
        return JobState("cancelled", "it was cancelled before it could record its end.", 130)
    if hint == "ABSENT" and not seen_log:
        return JobState("unsent", "it never reached the cluster; submit it again.", 1)
    is_down = "its cluster is down, and it left no record of its end."
    reason = is_down if hint == "GONE" else f"it ended without a record; the cluster says {hint}."
    return JobState("lost", reason, 1)


def key_of(
    loaded: LoadedSpec, profile: Profile, store: Store, options: Sequence[RunOption] = ()
) -> str:
    """Return what makes two submissions the same one."""
    body: dict[str, Any] = {
        "spec": loaded.spec.digest,
        "sql": loaded.sql,
        "sources": {n: loaded.resolve(s.path or "") for n, s in loaded.spec.sources.items()},
        "profile": profile.digest,
        "store": str(store.root.resolve()),
    }
    # not named where there are none: older submissions knew of none
    return digest_of({**body, "options": sorted(options)} if options else body)


def job_id(name: str, key: str, attempt: int) -> str:
    """Return the id of an attempt; also what Ray calls the job."""
    tail = f"-{attempt}" if attempt > 1 else ""
    return f"{name}-{key[:KEY_CHARS]}{tail}"


def find_latest(store: Store, name: str, key: str) -> Submission | None:
    """Return the latest attempt of a submission.

    Raises:
        ConflictError: the short id belongs to another submission.
    """
    found = None
    attempt = 1
    while store.numbers(SHELF, job_id(name, key, attempt)):
        found = read_submission(store, job_id(name, key, attempt))
        if found.key != key:
            raise ConflictError(
                f"job '{found.id}' must be of the spec that was given, but it is of another one; "
                "rename the spec."
            )
        attempt += 1
    return found


def create_submission(
    store: Store,
    loaded: LoadedSpec,
    profile: Profile,
    *,
    attempt: int,
    options: Sequence[RunOption] = (),
) -> Submission:
    """Write what the job will read, then the record; somebody else's same record is as good.

    Raises:
        SpecError: the job could not read its spec.
    """
    key = key_of(loaded, profile, store, options)
    submission = Submission(
        id=job_id(loaded.spec.name, key, attempt),
        name=loaded.spec.name,
        attempt=attempt,
        key=key,
        spec_digest=loaded.spec.digest,
        profile=profile.name,
        jobs_url=str(profile.ray.jobs_url),
        made_at=now(),
        options=tuple(options),
    )
    folder = store.path(SHELF, submission.id)
    make_folder(folder)
    _write_spec(folder / SPEC, loaded)
    _write_once(folder / PROFILE, json.dumps(profile.model_dump(mode="json"), indent=1))
    store.publish(1, submission.to_json(), SHELF, submission.id)
    return read_submission(store, submission.id)


def _write_spec(path: Path, loaded: LoadedSpec) -> None:
    """Write what the job will read: a spec that means the same anywhere.

    Raises:
        SpecError: the job could not read it, or would read another one.
    """
    spec = _portable(loaded)
    # with nulls: of train.early_stopping null is a value, and left out it is another
    _write_once(path, as_yaml(spec.model_dump(mode="json")))
    try:
        is_same = load_spec(path).spec.digest == spec.digest
        problem = "" if is_same else "it reads as another one; write odd signs in it as escapes."
    except SpecError as error:
        problem = error.message
    if problem:
        discard(path.parent)
        raise SpecError(
            f"{loaded.file}: what the job reads, with absolute paths and the SQL inside, must be "
            f"a spec as this one, but {problem}"
        )


def as_yaml(body: dict[str, Any]) -> str:
    """Return JSON that means the same when it is read as YAML, which knows no pairs of escapes."""
    text = json.dumps(body, ensure_ascii=False, indent=1)
    return _NOT_IN_YAML.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text)


def _portable(loaded: LoadedSpec) -> Spec:
    """Return a spec with absolute paths and the SQL inside."""
    spec: Spec = loaded.spec
    sources = {
        name: source.model_copy(update={"path": loaded.resolve(source.path)})
        if source.path is not None
        else source
        for name, source in spec.sources.items()
    }
    etl = spec.etl.model_copy(update={"sql": loaded.sql, "sql_file": None})
    return spec.model_copy(update={"sources": sources, "etl": etl})


def _write_once(path: Path, text: str) -> None:
    """Write a file whole; one that is there says the same, unless its writer was killed."""
    replace_file(path, text.encode())


def read_submission(store: Store, job: str) -> Submission:
    """Return a submission by its id.

    Raises:
        SpecError: this cannot be an id.
        MissingError: there is no such job; the nearest id is named.
    """
    if not JOB_ID.match(job):
        hint = nearest(job, list_jobs(store))
        raise SpecError(
            f"'{printable(job)}' must be a job's id such as flight-delay-0123456789ab.{hint}"
        )
    try:
        record = store.record(1, SHELF, job)
    except MissingError as error:
        raise MissingError(
            f"job '{job}' does not exist in '{store.root}'.{nearest(job, list_jobs(store))} "
            "`arclight jobs` lists them."
        ) from error
    return Submission.from_json(record.text, source=record.path)


def list_jobs(store: Store) -> tuple[str, ...]:
    """Return the ids of all submissions, oldest first, and last those of damaged records."""
    folder = store.path(SHELF)
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    found = {name: "" for name in names if JOB_ID.match(name) and store.numbers(SHELF, name)}
    for name in found:
        with contextlib.suppress(IntegrityError, MissingError):
            record = store.record(1, SHELF, name)
            found[name] = Submission.from_json(record.text, source=record.path).made_at
    return tuple(sorted(found, key=lambda name: (not found[name], found[name], name)))


def record_cancel(store: Store, job: str) -> None:
    """Record that a job is to stop; again is the same."""
    store.publish(1, CancelRequest(job=job, at=now()).to_json(), SHELF, job, _CANCEL)


def is_cancelled(store: Store, job: str) -> bool:
    """Return whether somebody asked for a job's end."""
    return bool(store.numbers(SHELF, job, _CANCEL))


def record_exit(store: Store, job: str, *, status: int, reason: str) -> ExitRecord:
    """Record how a job ended; the first record holds."""
    ended = ExitRecord(job=job, status=status, reason=printable(reason, limit=2000), at=now())
    store.publish(1, ended.to_json(), SHELF, job, _EXIT)
    return read_exit(store, job) or ended


def read_exit(store: Store, job: str) -> ExitRecord | None:
    """Return how a job ended, None if it has not recorded it."""
    if not store.numbers(SHELF, job, _EXIT):
        return None
    record = store.record(1, SHELF, job, _EXIT)
    return ExitRecord.from_json(record.text, source=record.path)
