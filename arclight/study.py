"""A study: a search over a space of parameters, and the trials it has made.

The file of trials is the truth. A line is on disk when a trial begins and when it ends, so that
a search that was killed goes on with what is there: ended trials are never run again, those that
had begun are run again with the parameters they had.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from arclight.contract import Contract, digest_of
from arclight.errors import ArclightError, ConflictError, IntegrityError, RefusedError
from arclight.metrics import METRICS
from arclight.spec import Train, Tune
from arclight.store import flush_folder, held, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from arclight.manifest import DatasetManifest
    from arclight.spec import Spec
    from arclight.store import Store

Param = str | int | float | bool
STUDIES, TRIALS = "studies", "trials.jsonl"
BUDGET = {"trials", "time_limit_s", "trial_limit_s", "target", "at_once"}
"""What of a search may change while it goes on."""


class Study(Contract):
    """A search, as it was asked for."""

    kind: ClassVar[str] = "study"

    name: str
    number: int
    key: str
    """Digest of the dataset, the train section, the space and how it is searched."""
    dataset: str
    dataset_digest: str
    task: Literal["binary", "multiclass", "regression"]
    metric: str
    train: Train
    """What every trial has beside its own parameters."""
    tune: Tune

    @property
    def ref(self) -> str:
        """NAME@N."""
        return f"{self.name}@{self.number}"


class Trial(Contract):
    """A trial that ended."""

    number: int
    params: dict[str, Param]
    state: Literal["complete", "stopped", "failed"]
    """`stopped`: by the scheduler or a limit, before its training was over."""
    value: float | None = None
    """The best figure on valid; None of one that failed."""
    rounds: int = 0
    best_round: int = 0
    reason: str = ""
    """Why it was stopped or failed."""
    points: tuple[tuple[int, float], ...] = ()
    """(round, best figure so far) where the scheduler looked, and at the end."""
    queue_s: float = 0.0
    """Seconds from when it was asked for to its start."""
    bin_s: float = 0.0
    train_s: float = 0.0


@dataclass
class Trials:
    """The trials of a study: what its file says, and the file."""

    path: Path
    ended: dict[int, Trial] = field(default_factory=dict)
    begun: dict[int, dict[str, Param]] = field(default_factory=dict)
    """Number -> parameters, of those that did not end."""
    attempts: dict[int, int] = field(default_factory=dict)
    """Number -> how often it began and its process was gone before it ended."""
    over: dict[str, Any] | None = None
    """The budget that the search was over for; None while it is not."""

    @classmethod
    def read(cls, path: Path) -> Trials:
        """Read a study's trials; a last line that was cut off is none.

        Raises:
            IntegrityError: another line cannot be read.
        """
        found = cls(path)
        text = path.read_bytes() if path.is_file() else b""
        for number, line in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), 1):
            try:
                found._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise IntegrityError(
                    f"line {number} of '{path}' must be a trial as it was written, but cannot be "
                    "read; restore the file from a backup or begin anew with --new-study."
                ) from error
        return found

    @property
    def next_number(self) -> int:
        """The number of the next new trial, from 0."""
        return max((*self.ended, *self.begun), default=-1) + 1

    def begin(self, number: int, params: dict[str, Param]) -> None:
        """Note that a trial begins."""
        self._write({"begun": number, "params": params})

    def leave(self, number: int) -> None:
        """Note that a trial was interrupted, which is no fault of its own."""
        self._write({"left": number})

    def end(self, trial: Trial) -> None:
        """Note how a trial ended."""
        self._write({"ended": trial.model_dump(mode="json")})

    def close(self, tune: Tune) -> None:
        """Note that the search is over for what it was given."""
        if not self.is_over_for(tune):
            self._write({"over": _budget(tune)})

    def is_over_for(self, tune: Tune) -> bool:
        """Say whether a search was over when it had been given as much as this."""
        return self.over is not None and self.over == _budget(tune)

    def ranked(self, metric: str) -> list[Trial]:
        """Return the trials that have a figure, the best first, of equal ones the older."""
        sign = -1 if METRICS[metric].higher_is_better else 1
        known = [trial for trial in self.ended.values() if trial.value is not None]
        return sorted(known, key=lambda t: (sign * (t.value or 0.0), t.number))

    def best(self, metric: str) -> Trial | None:
        """Return the trial with the best figure; None without one."""
        return next(iter(self.ranked(metric)), None)

    def _write(self, body: dict[str, Any]) -> None:
        """Append one line, on the disk before this returns.

        Raises:
            ArclightError: it cannot be written.
        """
        try:
            make_folder(self.path.parent)
            is_new = not self.path.exists()
            stream = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size = os.fstat(stream).st_size
                if size and os.pread(stream, 1, size - 1) != b"\n":  # the rest of a cut line
                    whole = os.pread(stream, size, 0)
                    os.ftruncate(stream, whole.rfind(b"\n") + 1)
                rest = memoryview(json.dumps(body, allow_nan=False).encode() + b"\n")
                while rest:
                    rest = rest[os.write(stream, rest) :]
                os.fsync(stream)
            finally:
                os.close(stream)
            if is_new:
                flush_folder(self.path.parent)
        except OSError as error:
            raise ArclightError(
                f"'{self.path}' must be written, but {error.strerror}; free space in the store or "
                "mend its rights; the same command goes on."
            ) from error
        self._take(body)

    def _take(self, body: dict[str, Any]) -> None:
        if "begun" in body:
            number = int(body["begun"])
            self.begun[number] = dict(body["params"])
            self.attempts[number] = self.attempts.get(number, 0) + 1
            self.over = None
        elif "left" in body:
            self.attempts[int(body["left"])] = 0
        elif "ended" in body:
            trial = Trial.model_validate_json(json.dumps(body["ended"]))
            self.begun.pop(trial.number, None)
            self.ended[trial.number] = trial
        else:
            self.over = dict(body["over"])


def open_study(
    store: Store, manifest: DatasetManifest, spec: Spec, *, new: bool = False
) -> tuple[Study, Trials]:
    """Return the study that a spec goes on with, or a new one.

    The newest study of the spec's name is gone on with when data, train section, space and sampler
    are the same; how many trials and how long may change.

    Args:
        store: where it lies, under `studies/NAME`.
        manifest: the dataset.
        spec: has a tune section.
        new: begin a new one, whatever there is.

    Raises:
        RefusedError: the newest study is not over, and is another; what differs is named.
    """
    assert spec.tune is not None
    asked = _study(manifest, spec)
    newest = newest_study(store, spec.name)
    if newest is not None and not new:
        trials = Trials.read(trials_path(store, newest))
        if newest.key == asked.key:
            return newest.model_copy(update={"tune": spec.tune}), trials
        if trials.over is None:
            raise RefusedError(
                f"tune: study {newest.ref} is not over ({len(trials.ended):,} trials ended) and "
                f"has another {_difference(newest, asked)}; take that back to go on with it, or "
                "begin another with --new-study."
            )
    record = store.append(
        lambda number: asked.model_copy(update={"number": number}).to_json(),
        lambda r: new is False and Study.from_json(r.text, source=r.path).key == asked.key,
        STUDIES, spec.name, "versions",
    )  # fmt: skip
    study = Study.from_json(record.text, source=record.path)
    study = study.model_copy(update={"tune": spec.tune})  # its budget may be another by now
    return study, Trials.read(trials_path(store, study))


def newest_study(store: Store, name: str) -> Study | None:
    """Return the newest study of a name, if there is one."""
    parts = (STUDIES, name, "versions")
    numbers = store.numbers(*parts)
    if not numbers:
        return None
    record = store.record(numbers[-1], *parts)
    return Study.from_json(record.text, source=record.path)


def trials_path(store: Store, study: Study) -> Path:
    """Return the file of a study's trials."""
    return store.path(STUDIES, study.name, "trials", str(study.number), TRIALS)


@contextlib.contextmanager
def alone(path: Path, study: Study) -> Iterator[None]:
    """Be the only one who makes a study's trials, for the length of a block.

    Raises:
        ConflictError: another command makes some now.
    """
    make_folder(path.parent)
    with held(path.parent, alone=True) as is_mine:
        if not is_mine:
            raise ConflictError(
                f"tune: study {study.ref} is being searched by another command; wait for it, stop "
                "it, or begin another with --new-study."
            )
        yield


def with_params(train: Train, params: dict[str, Param]) -> Train:
    """Return a train section with a trial's parameters over its own."""
    return train.model_copy(update={"params": {**train.params, **params}})


def _budget(tune: Tune) -> dict[str, Any]:
    return tune.model_dump(mode="json", include=BUDGET - {"at_once"})


def _study(manifest: DatasetManifest, spec: Spec) -> Study:
    assert spec.tune is not None
    train = spec.train.model_copy(update={"folds": None})
    kept = {"checkpoint_every", "workers"}
    key = digest_of(
        {
            "dataset": manifest.content_digest,
            "task": manifest.task,
            "metric": spec.metric,
            "train": train.model_dump(mode="json", exclude=kept),
            "tune": spec.tune.model_dump(mode="json", exclude=BUDGET),
        }
    )
    return Study(
        name=spec.name,
        number=0,
        key=key,
        dataset=manifest.ref,
        dataset_digest=manifest.content_digest,
        task=manifest.task,
        metric=spec.metric,
        train=train,
        tune=spec.tune,
    )


def _difference(one: Study, other: Study) -> str:
    """Name the first part in which two studies differ."""
    if one.dataset_digest != other.dataset_digest:
        return f"dataset ({one.dataset}, now {other.dataset})"
    for name in ("task", "metric"):
        if getattr(one, name) != getattr(other, name):
            return f"{name} ({getattr(one, name)}, now {getattr(other, name)})"
    for section, left_out in (("tune", BUDGET), ("train", {"checkpoint_every", "workers"})):
        old, new = (getattr(s, section).model_dump(exclude=left_out) for s in (one, other))
        found = next((n for n in old if old[n] != new[n]), None)
        if found == "space":
            return f"space ({_space(old[found], new[found])})"
        if found:
            return f"{section}.{found} ({old[found]}, now {new[found]})"
    return "meaning"


def _space(old: dict[str, Any], new: dict[str, Any]) -> str:
    names: Sequence[str] = list(dict.fromkeys((*old, *new)))
    name = next(n for n in names if old.get(n) != new.get(n))
    was, now = (_range(one[name]) if name in one else "not there" for one in (old, new))
    return f"{name}: {was}, now {now}"


def _range(one: dict[str, Any]) -> str:
    values = next(found for kind, found in one.items() if kind != "log")
    return f"[{', '.join(map(str, values))}]{', log' if one.get('log') else ''}"
