"""A study: a search over a space of parameters, and what goes on with it.

The file of its trials is the truth (`arclight.trials`).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from arclight.contract import Contract, digest_of
from arclight.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    RefusedError,
    printable,
)
from arclight.folds import fold_rule
from arclight.population import leg_of
from arclight.store import held, make_folder
from arclight.train_section import ELSEWHERE, Train
from arclight.trials import BUDGET, Trial, Trials
from arclight.tune_section import TRAINER, Candidate, Tune

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from arclight.manifest import DatasetManifest
    from arclight.population import Leg
    from arclight.search_space import Param
    from arclight.spec import Spec
    from arclight.store import Store

STUDIES, TRIALS = "studies", "trials.jsonl"


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

    def ranked(self, trials: Trials) -> list[Trial]:
        """Return the trials that have a figure, the best first.

        Without early stopping a model is trained to its last round, whatever it was worth on the
        way: so those that had all of them come first, and of a population those of the newest
        generation that is whole.
        """
        found = trials.ranked(self.metric)
        if self.train.early_stopping is not None:
            return found
        if (count := self.tune.population) is None:
            return sorted(found, key=lambda trial: trial.state != "complete")
        made = Counter(number // count for number in trials.ended)
        return sorted(found, key=lambda t: (made[t.number // count] < count, -(t.number // count)))

    def why_ranked(self, trials: Trials) -> str:
        """Return a sentence where trials do not stand in the order of their figures alone."""
        if self.ranked(trials) == trials.ranked(self.metric):
            return ""
        whose = "a generation that is whole" if self.tune.population else "all their rounds"
        return f"Without early stopping those that had {whose} come first."

    def is_on_the_way(self, trial: Trial) -> bool:
        """Say whether a model by a trial is trained beyond what the trial's figure is of."""
        return self.train.early_stopping is None and trial.state == "stopped"

    def best(self, trials: Trials) -> Trial | None:
        """Return the trial that a model is trained by; None without a figure."""
        return next(iter(self.ranked(trials)), None)

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
    store: Store, manifest: DatasetManifest, spec: Spec, *, new: bool = False
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
        for number in reversed(studies_of(store, spec.name)):
            older = None
            with contextlib.suppress(IntegrityError):  # a damaged one is none to go on with
                older = find_study(store, f"{spec.name}@{number}")
            if older is not None and older.key == asked.key:
                known = older.model_copy(update={"tune": spec.tune.written_out()})
                return known, Trials.read(trials_path(store, older))
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
    for name in ("trainers", "fidelity", "folds", "also", "population"):
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
