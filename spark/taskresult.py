"""What one task of the row pass found, and how the findings of all tasks add up."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from arclight.contract import Contract
from arclight.ledger import Stage, add_stages
from arclight.manifest import DataFile
from arclight.summary import ColumnSummary, merge_summaries

if TYPE_CHECKING:
    from collections.abc import Sequence

STAGES = ("key", "label", "checks", "derive", "split")


class TaskResult(Contract):
    """One task's files, account and summaries."""

    kind: ClassVar[str] = "etl-task"

    partition: int
    rows_in: int
    files: tuple[DataFile, ...] = ()
    stages: tuple[Stage, ...]
    broken: dict[str, int] = {}
    """Reason, or `check:NAME`, -> rows it holds for, whatever became of them."""
    summaries: dict[str, tuple[ColumnSummary, ...]] = {}
    """Split -> feature summaries in the layout's order, then the label's."""
    class_rows: dict[str, dict[str, int]] = {}
    groups: dict[str, str] = {}
    """Split -> base64 of the distinct 64-bit group hashes, for a split by group."""
    times: dict[str, tuple[int, int]] = {}
    """Split -> first and last time in microseconds."""


class Totals(Contract):
    """The sum of all tasks."""

    rows_in: int
    files: tuple[DataFile, ...]
    stages: tuple[Stage, ...]
    broken: dict[str, int]
    summaries: dict[str, tuple[ColumnSummary, ...]]
    class_rows: dict[str, dict[str, int]]
    groups: dict[str, int]
    group_overlap: int
    times: dict[str, tuple[int, int]]


def add_up(results: Sequence[TaskResult]) -> Totals:
    """Return the totals of tasks, which come in any order; at least one."""
    results = sorted(results, key=lambda r: r.partition)
    stages = results[0].stages
    for result in results[1:]:
        stages = add_stages(stages, result.stages)
    groups = {split: _distinct(results, split) for split in _names(results, "groups")}
    return Totals(
        rows_in=sum(r.rows_in for r in results),
        files=tuple(file for r in results for file in r.files),
        stages=stages,
        broken=_add([r.broken for r in results]),
        summaries={s: _merge(results, s) for s in _names(results, "summaries")},
        class_rows={
            s: _add([r.class_rows.get(s, {}) for r in results])
            for s in _names(results, "class_rows")
        },
        groups={split: len(found) for split, found in groups.items()},
        group_overlap=_overlap(list(groups.values())),
        times={s: _span(results, s) for s in _names(results, "times")},
    )


def pack_hashes(hashes: npt.NDArray[np.uint64]) -> str:
    """Return hashes as base64 text."""
    return base64.b64encode(hashes.astype("<u8").tobytes()).decode()


def _names(results: Sequence[TaskResult], field: str) -> list[str]:
    return sorted({name for r in results for name in getattr(r, field)})


def _add(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items()))


def _merge(results: Sequence[TaskResult], split: str) -> tuple[ColumnSummary, ...]:
    parts = [r.summaries[split] for r in results if split in r.summaries]
    return tuple(merge_summaries(columns) for columns in zip(*parts, strict=True))


def _distinct(results: Sequence[TaskResult], split: str) -> npt.NDArray[np.uint64]:
    packed = [base64.b64decode(r.groups[split]) for r in results if split in r.groups]
    return np.unique(np.concatenate([np.frombuffer(p, dtype="<u8") for p in packed]))


def _overlap(sets: list[npt.NDArray[np.uint64]]) -> int:
    """Return how many hashes stand in more than one of some sets of distinct hashes."""
    if not sets:
        return 0
    _, counts = np.unique(np.concatenate(sets), return_counts=True)
    return int(np.count_nonzero(counts > 1))


def _span(results: Sequence[TaskResult], split: str) -> tuple[int, int]:
    spans = [r.times[split] for r in results if split in r.times]
    return min(low for low, _ in spans), max(high for _, high in spans)
