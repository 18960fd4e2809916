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
    from collections.abc import Iterable, Sequence

Hashes = npt.NDArray[np.uint64]
STAGES = ("key", "label", "checks", "derive", "split")
FAN_IN = 16
"""Summaries that are made one."""


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


def add_up(results: Iterable[TaskResult]) -> Totals:
    """Return the totals of tasks, at least one, in the order of partitions.

    They are taken one at a time: a thousand tasks of a hundred columns would fill the memory.
    """
    stages: tuple[Stage, ...] | None = None
    rows_in = 0
    files: list[DataFile] = []
    broken: dict[str, int] = {}
    class_rows: dict[str, dict[str, int]] = {}
    summaries: dict[str, _Fold] = {}
    groups: dict[str, list[Hashes]] = {}
    times: dict[str, tuple[int, int]] = {}
    for one in results:
        rows_in += one.rows_in
        files += one.files
        stages = one.stages if stages is None else add_stages(stages, one.stages)
        broken = _sum(broken, one.broken)
        for split, counts in one.class_rows.items():
            class_rows[split] = _sum(class_rows.get(split, {}), counts)
        for split, columns in one.summaries.items():
            summaries.setdefault(split, _Fold()).add(columns)
        for split, packed in one.groups.items():
            groups.setdefault(split, []).append(
                np.frombuffer(base64.b64decode(packed), dtype="<u8")
            )
        for split, (low, high) in one.times.items():
            first, last = times.get(split, (low, high))
            times[split] = min(first, low), max(last, high)
    assert stages is not None
    distinct = {split: np.unique(np.concatenate(found)) for split, found in groups.items()}
    return Totals(
        rows_in=rows_in,
        files=tuple(files),
        stages=stages,
        broken=broken,
        summaries={split: summaries[split].whole() for split in sorted(summaries)},
        class_rows={split: class_rows[split] for split in sorted(class_rows)},
        groups={split: len(distinct[split]) for split in sorted(distinct)},
        group_overlap=_overlap(list(distinct.values())),
        times={split: times[split] for split in sorted(times)},
    )


class _Fold:
    """The summaries of a split, put together sixteen by sixteen, so that few are held."""

    def __init__(self) -> None:
        self._levels: list[list[tuple[ColumnSummary, ...]]] = [[]]

    def add(self, columns: tuple[ColumnSummary, ...]) -> None:
        level = 0
        while len(self._levels[level]) == FAN_IN:
            full, self._levels[level] = self._levels[level], [columns]
            columns, level = _merged(full), level + 1
            if level == len(self._levels):
                self._levels.append([])
        self._levels[level].append(columns)

    def whole(self) -> tuple[ColumnSummary, ...]:
        """Return the summaries of all, in the order in which they came."""
        return _merged([one for level in reversed(self._levels) for one in level])


def _merged(parts: Sequence[tuple[ColumnSummary, ...]]) -> tuple[ColumnSummary, ...]:
    return tuple(merge_summaries(columns) for columns in zip(*parts, strict=True))


def pack_hashes(hashes: npt.NDArray[np.uint64]) -> str:
    """Return hashes as base64 text."""
    return base64.b64encode(hashes.astype("<u8").tobytes()).decode()


def _sum(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in sorted({*left, *right})}


def _overlap(sets: list[npt.NDArray[np.uint64]]) -> int:
    """Return how many hashes stand in more than one of some sets of distinct hashes."""
    if not sets:
        return 0
    _, counts = np.unique(np.concatenate(sets), return_counts=True)
    return int(np.count_nonzero(counts > 1))
