"""A study: a search over a space of parameters, and what goes on with it.

The lines of its trials are the truth (`arclight.trials`).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from arclight.beside import highest_in
from arclight.contract import Contract, digest_of
from arclight.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    RefusedError,
    printable,
)
from arclight.folds import fold_rule
from arclight.metrics import METRICS
from arclight.population import leg_of
from arclight.train_section import ELSEWHERE, Train
from arclight.trial_file import TrialFile
from arclight.trial_table import TrialTable
from arclight.trials import BUDGET, Trial, Trials, order_of
from arclight.tune_section import TRAINER, Candidate, Tune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from arclight.manifest import DatasetManifest
    from arclight.population import Leg
    from arclight.search_space import Param
    from arclight.spec import Spec
    from arclight.store import Store
    from arclight.trials import TrialLines

STUDIES, TRIALS = "studies", "trials.jsonl"
ASKS_AGAIN_S = 0.5


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
    shuffles: bool = False
    """Whether a grid's points are tried in an order by chance; those of older studies are not."""
    asked_by: str = ""
    """The submission that began it by `--new-study`: its other attempts go on with it."""
    lines: str = ""
    """The id that its trials have in `tune.storage`; empty where they are in the store."""

    def height(self, trainer: str) -> int:
        """Return how far a trial of a trainer goes that is never stopped, in `tune.unit`."""
        if self.tune.unit == "round":
            return self.candidates[trainer].rounds or self.train.rounds
        return self.tune.folds or self.row_groups

    @property
    def ref(self) -> str:
        """NAME@N."""
        return f"{self.name}@{self.number}"

    def ranked(self, trials: Trials) -> list[Trial]:
        """Return the trials that have a figure, the best first.

        Without early stopping a model is trained to its last round, whatever it was worth on the
        way: so those that had all of them come first, and of a population those of the newest
        generation that is whole.
        """
        found = trials.ranked(self.metric)
        return sorted(found, key=self._precedence(trials))

    def _precedence(self, trials: Trials) -> Callable[[Trial], tuple[int, ...]]:
        """Return what trials stand in order of before their figures."""
        if self.train.early_stopping is not None:
            return lambda _: ()
        if (count := self.tune.population) is None:
            return lambda trial: (trial.state != "complete",)
        made = Counter(number // count for number in trials.ended)
        return lambda t: (made[t.number // count] < count, -(t.number // count))

    def why_ranked(self, trials: Trials) -> str:
        """Return a sentence where trials do not stand in the order of their figures alone."""
        if self.ranked(trials) == trials.ranked(self.metric):
            return ""
        whose = "a generation that is whole" if self.tune.population else "all their rounds"
        return f"Without early stopping those that had {whose} come first."

    def is_on_the_way(self, trial: Trial) -> bool:
        """Say whether a model by a trial is trained beyond what the trial's figure is of."""
        if self.train.early_stopping is not None:
            return False
        if (count := self.tune.population) is not None:
            return trial.number // count + 1 < self.tune.generations
        return trial.state == "stopped"

    def best(self, trials: Trials) -> Trial | None:
        """Return the trial that a model is trained by; None without a figure."""
        known, first = trials.with_figure, self._precedence(trials)
        order = order_of(self.metric)
        return min(known, key=lambda trial: (first(trial), order(trial)), default=None)

    def has_reached(self, trials: Trials) -> bool:
        """Say whether a trial is as good as `tune.target` asks, and its model would be."""
        best, target = self.best(trials), self.tune.target
        if target is None or best is None or best.value is None or self.is_on_the_way(best):
            return False
        is_higher = METRICS[self.metric].higher_is_better
        return best.value >= target if is_higher else best.value <= target

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


def open_study(
    store: Store, manifest: DatasetManifest, spec: Spec, *, new: bool = False, asked_by: str = ""
) -> tuple[Study, Trials]:
    """Return the study that a spec goes on with, or a new one.

    The newest study of the spec's name is gone on with when data, train section, space and sampler
    are the same; how many trials and how long may change. Where it is another and over, the newest
    one of which they are the same.

    Args:
        store: where it lies, under `studies/NAME`.
        manifest: the dataset.
        spec: has a tune section.
        new: begin a new one, whatever there is.
        asked_by: the submission that asks, if one does: what an attempt of it began anew its
            later attempts go on with.

    Raises:
        RefusedError: the newest study has trials, is not over, and is another; what differs is
            named.
        IntegrityError: its record or its trials are damaged.
    """
    assert spec.tune is not None
    asked, known = _study(manifest, spec), None
    if spec.tune.storage is not None:
        asked = asked.model_copy(update={"lines": uuid.uuid4().hex})
    if not new:
        _check_newest(store, asked)
        known = _newest_like(store, asked)
    elif asked_by:
        asked = asked.model_copy(update={"asked_by": asked_by})
        known = _newest_like(store, asked)
    if known is not None:
        return _with_trials(store, known, spec.tune)
    record = store.append(
        lambda number: asked.model_copy(update={"number": number}).to_json(),
        lambda r: new is False and Study.from_json(r.text, source=r.path).key == asked.key,
        STUDIES, spec.name, "versions",
        # whose trials another study with its number would take for its own
        above=highest_in(store, STUDIES, spec.name, "trials"),
    )  # fmt: skip
    return _with_trials(store, Study.from_json(record.text, source=record.path), spec.tune)


def studies_of(store: Store, name: str) -> tuple[int, ...]:
    """Return the numbers of a name's studies, lowest first."""
    return store.numbers(STUDIES, name, "versions")


def find_study(store: Store, ref: str) -> Study:
    """Return a study by NAME@N.

    Raises:
        MissingError: there is no such study; those that are there are named.
        IntegrityError: its record is damaged, or another study's.
    """
    name, _, number = ref.partition("@")
    known = studies_of(store, name) if name else ()
    if number not in map(str, known):
        there = ", ".join(f"{name}@{n}" for n in known[-5:]) or "none of this name"
        raise MissingError(f"there is no study '{printable(ref)}'; there is {there}.")
    record = store.record(int(number), STUDIES, name, "versions")
    study = Study.from_json(record.text, source=record.path)
    if study.ref != f"{name}@{number}":
        raise IntegrityError(
            f"'{record.path}' must hold study {name}@{number}, but holds {study.ref}; it was "
            "copied by hand: restore it from a backup or begin another with --new-study."
        )
    return study


def study_folder(store: Store, study: Study) -> Path:
    """Return the folder of a study's page, and of its trials where they are in the store."""
    return store.path(STUDIES, study.name, "trials", str(study.number))


def trial_lines(store: Store, study: Study) -> TrialLines:
    """Return where a study's trials are."""
    if study.tune.storage is not None:
        return TrialTable(study.tune.storage, study.lines)
    return TrialFile(study_folder(store, study) / TRIALS)


@contextlib.contextmanager
def alone(lines: TrialLines, study: Study, patience_s: float = 0.0) -> Iterator[None]:
    """Be the only one who makes a study's trials, for the length of a block.

    Args:
        lines: where the trials are.
        study: which one it is.
        patience_s: how long is waited for another one to end.

    Raises:
        ConflictError: another command makes some now.
        RefusedError: the store's file system has no locks.
        ArclightError: the server that has them is not there, or refuses.
    """
    until = time.monotonic() + patience_s
    while True:
        with lines.held() as is_mine:
            if is_mine:
                yield
                return
        if time.monotonic() >= until:
            raise ConflictError(
                f"tune: study {study.ref} is being searched by another command; wait for it, stop "
                "it, or begin another with --new-study."
            )
        time.sleep(ASKS_AGAIN_S)


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


def with_params(
    train: Train,
    tune: Tune,
    params: dict[str, Param],
    params_after: dict[int, dict[str, Param]] | None = None,
) -> Train:
    """Return the train section of a trial: its trainer, rounds and parameters."""
    trainer, own = trained_by(train, tune, params)
    one = candidates_of(train, tune)[trainer]
    update: dict[str, Any] = {
        "trainer": trainer,
        "rounds": one.rounds,
        "params": {**one.params, **own},
        "params_after": params_after or {},
    }
    if trainer != train.trainer:  # which these were asked for
        update |= {"device": "auto", "bins": "auto"}
    return train.model_copy(update=update)


def leg_in(study: Study, trials: Trials, trial: Trial) -> Leg:
    """Return what a trial trained; of a population with all that its network had before."""
    rounds, ended = study.height(study.train.trainer), trials.ended
    return leg_of(study.tune, rounds, trial.number, trial.params, trial.parent, ended)


def newest_study(store: Store, name: str) -> Study | None:
    """Return the newest study of a name, if there is one."""
    numbers = studies_of(store, name)
    try:
        return find_study(store, f"{name}@{numbers[-1]}") if numbers else None
    except IntegrityError as error:
        raise IntegrityError(
            f"tune: the newest study, {name}@{numbers[-1]}, must have a record that can be "
            f"read, but that in '{store.path(STUDIES, name, 'versions')}' cannot; restore it, or "
            "begin another study with --new-study."
        ) from error


def _check_newest(store: Store, asked: Study) -> None:
    """Refuse to leave a study that has trials and is not over for another one.

    Raises:
        RefusedError: what differs is named.
        IntegrityError: the record or the trials of the newest study are damaged.
    """
    newest = newest_study(store, asked.name)
    if newest is None or newest.key == asked.key:
        return
    trials = Trials.read(trial_lines(store, newest))
    if trials.over is None and (trials.ended or trials.begun):
        raise RefusedError(
            f"tune: study {newest.ref} is not over ({len(trials.ended):,} trials ended) and "
            f"has another {_difference(newest, asked)}; take that back to go on with it, or "
            "begin another with --new-study."
        )


def _newest_like(store: Store, asked: Study) -> Study | None:
    """Return the newest study that is what is asked for, by the same submission if by one."""
    for number in reversed(studies_of(store, asked.name)):
        with contextlib.suppress(IntegrityError):  # a damaged one is none to go on with
            known = find_study(store, f"{asked.name}@{number}")
            if known.key == asked.key and asked.asked_by in ("", known.asked_by):
                return known
    return None


def _with_trials(store: Store, study: Study, tune: Tune) -> tuple[Study, Trials]:
    """Return a study with the budget that it has by now, and its trials."""
    now = study.model_copy(update={"tune": tune.written_out()})
    return now, Trials.read(trial_lines(store, now))


def _may_change(tune: Tune) -> set[str]:
    """Return what of a search may change while it goes on: of a population not its generations."""
    return BUDGET - {"trials"} if tune.population else BUDGET


def _study(manifest: DatasetManifest, spec: Spec) -> Study:
    assert spec.tune is not None
    train = spec.train.model_copy(update={"folds": None})
    asked = spec.tune.written_out()
    tune = asked.model_dump(mode="json", exclude=_may_change(asked))
    asked_of_all = train.model_dump(mode="json", exclude=set(ELSEWHERE))
    # of which not every study has heard
    for name in ("trainers", "fidelity", "folds", "also", "population", "storage"):
        if getattr(asked, name) == Tune.model_fields[name].default:
            tune.pop(name)
    del asked_of_all["params_after"]  # a search has none
    rule = fold_rule(spec, manifest, "tune")
    key = digest_of(
        {
            **({} if rule is None else {"folds": rule.model_dump(mode="json")}),
            "dataset": manifest.content_digest,
            "task": manifest.task,
            "metric": spec.metric,
            "train": asked_of_all,
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
        shuffles=True,
    )


def _difference(one: Study, other: Study) -> str:
    """Name the first part in which two studies differ."""
    if one.dataset_digest != other.dataset_digest:
        return f"dataset ({one.dataset}, now {other.dataset})"
    for name in ("task", "metric"):
        if getattr(one, name) != getattr(other, name):
            return f"{name} ({getattr(one, name)}, now {getattr(other, name)})"
    for section, left_out in (("tune", _may_change(one.tune)), ("train", set(ELSEWHERE))):
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
