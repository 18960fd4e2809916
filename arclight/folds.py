"""Cross-validation: which rows of train a fold learns from, and which it is judged on.

Folds keep what the split keeps: rows of one group stay together, and of a split by time every
fold learns from what came before the rows it is judged on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arclight.contract import Contract
from arclight.errors import SpecError
from arclight.schema import TIMESTAMP
from arclight.spec import TimeSplit
from arclight.spec_field import parse_duration_s
from arclight.split import hash_shares

if TYPE_CHECKING:
    from arclight.manifest import DatasetManifest
    from arclight.spec import Spec

Mask = npt.NDArray[np.bool_]
Micros = npt.NDArray[np.int64]
_FAR_FROM_SPLITS = 1 << 40
"""Added to a seed: folds must not follow the hash that chose the rows of train."""


class FoldRule(Contract):
    """How rows are dealt to folds."""

    kind: ClassVar[str] = "fold-rule"

    count: int
    by: Literal["time", "group", "key"]
    key: tuple[str, ...]
    group: tuple[str, ...] = ()
    time: str | None = None
    gap_s: float = 0.0
    """Of a split by time: what a fold learns ends so long before the rows it is judged on."""
    seed: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The carried columns that decide."""
        return (self.time,) if self.time else tuple(dict.fromkeys((*self.group, *self.key)))


@dataclass(frozen=True)
class Fold:
    """Rows of one fold, as masks over some rows of train; a row may be in neither."""

    learn: Mask
    judge: Mask


def fold_rule(
    spec: Spec, manifest: DatasetManifest, section: Literal["train", "tune"] = "train"
) -> FoldRule | None:
    """Return the rule of the folds of a spec's section; None when it asks for none.

    Raises:
        SpecError: the dataset was split otherwise than the spec says now.
    """
    split, seed = spec.etl.split, spec.train.seed
    asked_of = spec.train if section == "train" else spec.tune
    count = asked_of.folds if asked_of is not None else None
    if count is None:
        return None
    key = manifest.key_columns
    if isinstance(split, TimeSplit):
        gap = parse_duration_s(split.gap)
        rule = FoldRule(count=count, by="time", key=key, time=spec.etl.time, gap_s=gap, seed=seed)
    else:
        by: Literal["group", "key"] = "group" if split.group else "key"
        rule = FoldRule(count=count, by=by, key=key, group=split.group, seed=seed)
    proof = manifest.proof
    built = "time" if proof.bounds else "group" if proof.groups else "key"
    columns = {
        "time": (manifest.time_column,), "group": proof.group_columns, "key": manifest.key_columns
    }[built]  # fmt: skip
    asked = {"time": (rule.time,), "group": rule.group, "key": rule.key}[rule.by]
    if (rule.by, asked) != (built, columns):
        raise SpecError(
            f"{section}.folds: dataset '{manifest.ref}' was split by {built} "
            f"({', '.join(map(str, columns)) or 'not recorded'}), so that its folds must be, but "
            f"etl.split says by {rule.by} ({', '.join(map(str, asked))}); run `arclight etl` with "
            "this spec first."
        )
    return rule


def row_places(rule: FoldRule, rows: pa.RecordBatch) -> Micros:
    """Return what decides about each row: its time in microseconds, or its fold's number."""
    if rule.time is not None:
        times: Micros = rows.column(rule.time).cast(TIMESTAMP).view(pa.int64()).to_numpy()
        return times
    key, group = ([rows.column(n) for n in names] for names in (rule.key, rule.group))
    share = hash_shares(key, group, seed=2 * rule.seed + _FAR_FROM_SPLITS)
    return np.minimum((share * rule.count).astype(np.int64), rule.count - 1)


def fold_starts(rule: FoldRule, places: Micros) -> Micros:
    """Return where the judged rows of each fold begin: instants, or the folds' numbers.

    Of a split by time, train is cut into one block more than there are folds, of as many rows
    each; the first one is only learned from.

    Args:
        rule: how rows are dealt.
        places: of all rows of train (`row_places`); used for a split by time only.
    """
    if rule.time is None:
        return np.arange(rule.count)
    ends = len(places) * np.arange(1, rule.count + 1) // (rule.count + 1)
    return np.sort(places)[ends]


def fold_of(rule: FoldRule, places: Micros, starts: Micros, number: int) -> Fold:
    """Return the rows of one fold.

    Args:
        rule: how rows are dealt.
        places: of some rows (`row_places`).
        starts: of all folds (`fold_starts`).
        number: of the fold, from 0.
    """
    if rule.time is None:
        judge = places == number
        return Fold(learn=~judge, judge=judge)
    judge = places >= starts[number]
    if number + 1 < rule.count:
        judge &= places < starts[number + 1]
    return Fold(learn=places < starts[number] - int(rule.gap_s * 1_000_000), judge=judge)
