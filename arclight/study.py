"""A study: a search over a space of parameters, and the trials it has made.

The file of trials is the truth. A line is written when a trial begins and when it ends, so that
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
from arclight.errors import (
    ArclightError,
    ConflictError,
    IntegrityError,
    MissingError,
    RefusedError,
    printable,
)
from arclight.folds import fold_rule
from arclight.metrics import METRICS
from arclight.spec import ELSEWHERE, Train
from arclight.store import flush_folder, held, make_folder
from arclight.tune_section import TRAINER, Candidate, Tune

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from arclight.manifest import DatasetManifest
    from arclight.spec import Spec
    from arclight.store import Store

Param = str | int | float | bool
STUDIES, TRIALS = "studies", "trials.jsonl"
BUDGET = {"trials", "time_limit_s", "trial_limit_s", "target", "at_once", "nodes"}
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
    row_groups: int = 0
    """Of train."""

    def height(self, trainer: str) -> int:
        """Return how far a trial of a trainer goes that is never stopped, in `tune.unit`."""
        if self.tune.unit == "round":
            return self.candidates[trainer].rounds or self.train.rounds
        return self.tune.folds or self.row_groups

    @property
    def ref(self) -> str:
        """NAME@N."""
        return f"{self.name}@{self.number}"

    @property
    def candidates(self) -> dict[str, Candidate]:
        """Trainer -> what is tried with it."""
        return candidates_of(self.train, self.tune)

    def trials_by(self, trainer: str, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials of one trainer, in their order, with its own parameters alone."""
        apart = [(trained_by(self.train, self.tune, t.params), t) for t in trials]
        return [t.model_copy(update={"params": own}) for (who, own), t in apart if who == trainer]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that trials differ in, the trainer first where it is one of them."""
        found = [n for one in self.candidates.values() for n in one.space]
        return tuple(dict.fromkeys(([TRAINER] if self.tune.among else []) + found))


class Trial(Contract):
    """A trial that ended."""

    number: int
    params: dict[str, Param]
    state: Literal["complete", "stopped", "failed"]
    """`stopped`: by the scheduler or a limit, before its training was over."""
    value: float | None = None
    """The best figure on valid, or the mean of its folds; None of one that failed, or that was
    stopped before it had all folds, or all rows."""
    rounds: int = 0
    best_round: int = 0
    reason: str = ""
    """Why it was stopped or failed."""
    points: tuple[tuple[int, float], ...] = ()
    """(round, best figure so far) where the scheduler looked, and at the end; or (fold, mean so
    far), or (row groups, figure)."""
    others: dict[str, float] = {}
    """The figures of `tune.also` that could be measured."""
    host: int = 0
    """Which of the hosts trained it, where there were several."""
    queue_s: float = 0.0
    """Seconds in which it waited: for rows that were made ready for another, or for its turn."""
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
        """Note that a trial begins.

        Not forced to the disk: what a power cut takes of it is asked for again.
        """
        self._write({"begun": number, "params": params}, is_lasting=False)

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

    def _write(self, body: dict[str, Any], *, is_lasting: bool = True) -> None:
        """Append one line, on the disk before this returns if it is to last.

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
                if is_lasting:
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
            return newest.model_copy(update={"tune": spec.tune.written_out()}), trials
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
    study = study.model_copy(
        update={"tune": spec.tune.written_out()}
    )  # its budget may be another by now
    return study, Trials.read(trials_path(store, study))


def newest_study(store: Store, name: str) -> Study | None:
    """Return the newest study of a name, if there is one."""
    numbers = studies_of(store, name)
    return find_study(store, f"{name}@{numbers[-1]}") if numbers else None


def studies_of(store: Store, name: str) -> tuple[int, ...]:
    """Return the numbers of a name's studies, lowest first."""
    return store.numbers(STUDIES, name, "versions")


def find_study(store: Store, ref: str) -> Study:
    """Return a study by NAME@N.

    Raises:
        MissingError: there is no such study; those that are there are named.
    """
    name, _, number = ref.partition("@")
    known = studies_of(store, name) if name else ()
    if number not in map(str, known):
        there = ", ".join(f"{name}@{n}" for n in known[-5:]) or "none of this name"
        raise MissingError(f"there is no study '{printable(ref)}'; there is {there}.")
    record = store.record(int(number), STUDIES, name, "versions")
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


@dataclass(frozen=True)
class Seconds:
    """Where the time of a study's trials went.

    Attributes:
        queue: waiting, for rows that were being binned for others or for another network.
        binning: making rows ready for the library.
        training: rounds, the figures on valid among them.
        waste: the part of `training` that went into failed trials.
    """

    queue: float
    binning: float
    training: float
    waste: float

    @property
    def share(self) -> float | None:
        """The part of a trial's time that is training; None without any."""
        whole = self.queue + self.binning + self.training
        return self.training / whole if whole else None


def seconds_of(trials: Trials) -> Seconds:
    """Return where the time of a study's trials went."""
    ended = trials.ended.values()
    return Seconds(
        queue=sum(t.queue_s for t in ended),
        binning=sum(t.bin_s for t in ended),
        training=sum(t.train_s for t in ended),
        waste=sum(t.train_s for t in ended if t.state == "failed"),
    )


def candidates_of(train: Train, tune: Tune) -> dict[str, Candidate]:
    """Return trainer -> what a search tries with it, the train section's own filled in."""
    given = tune.among or {train.trainer: Candidate(space=tune.space)}
    found = {}
    for name, one in given.items():
        own = {**(train.params if name == train.trainer else {}), **one.params}
        fixed = {n: value for n, value in own.items() if n not in one.space}
        update = {"rounds": one.rounds or train.rounds, "params": fixed}
        found[str(name)] = one.model_copy(update=update)
    return found


def trained_by(train: Train, tune: Tune, params: dict[str, Param]) -> tuple[str, dict[str, Param]]:
    """Return a trial's trainer and its own parameters."""
    own = {name: value for name, value in params.items() if name != TRAINER or not tune.among}
    return str(params[TRAINER]) if tune.among else train.trainer, own


def with_params(train: Train, tune: Tune, params: dict[str, Param]) -> Train:
    """Return the train section of a trial: its trainer, rounds and parameters."""
    trainer, own = trained_by(train, tune, params)
    one = candidates_of(train, tune)[trainer]
    update = {"trainer": trainer, "rounds": one.rounds, "params": {**one.params, **own}}
    if trainer != train.trainer:  # which these were asked for
        update |= {"device": "auto", "bins": "auto"}
    return train.model_copy(update=update)


def _budget(tune: Tune) -> dict[str, Any]:
    return tune.model_dump(mode="json", include=BUDGET - {"at_once", "nodes"})


def _study(manifest: DatasetManifest, spec: Spec) -> Study:
    assert spec.tune is not None
    train = spec.train.model_copy(update={"folds": None})
    asked = spec.tune.written_out()
    tune = asked.model_dump(mode="json", exclude=BUDGET)
    for name in ("trainers", "fidelity", "folds", "also"):  # of which not every study has heard
        if getattr(asked, name) == Tune.model_fields[name].default:
            tune.pop(name)
    rule = fold_rule(spec, manifest, "tune")
    key = digest_of(
        {
            **({} if rule is None else {"folds": rule.model_dump(mode="json")}),
            "dataset": manifest.content_digest,
            "task": manifest.task,
            "metric": spec.metric,
            "train": train.model_dump(mode="json", exclude=set(ELSEWHERE)),
            "tune": tune,
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
        tune=asked,
        row_groups=sum(len(file.row_groups) for file in manifest.files_of("train")),
    )


def _difference(one: Study, other: Study) -> str:
    """Name the first part in which two studies differ."""
    if one.dataset_digest != other.dataset_digest:
        return f"dataset ({one.dataset}, now {other.dataset})"
    for name in ("task", "metric"):
        if getattr(one, name) != getattr(other, name):
            return f"{name} ({getattr(one, name)}, now {getattr(other, name)})"
    for section, left_out in (("tune", BUDGET), ("train", set(ELSEWHERE))):
        old, new = (getattr(s, section).model_dump(exclude=left_out) for s in (one, other))
        found = next((n for n in old if old[n] != new[n]), None)
        if found == "space" and old[found] and new[found]:
            return f"space ({_space(old[found], new[found])})"
        if found in ("space", "trainers"):
            return "space" if found == "space" else "choice of trainers"
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
