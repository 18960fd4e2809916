"""The one pass over the joined rows: key, label, checks, derive, split, summaries, files.

It runs in Spark's Python workers on Arrow batches, one call a partition, and gives back one small
row; nothing of it needs a JVM, so its tests need none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arclight.expression import Expression, compile_expression
from arclight.features import FeatureBuilder
from arclight.keys import null_rows
from arclight.layout import ROW_KEY
from arclight.ledger import Stage
from arclight.split import GAP, UNKNOWN, split_by_hash, split_by_time
from spark.keycheck import with_neighbours, with_row_keys
from spark.labels import read_labels
from spark.partfiles import SPLIT_NAMES, PartFiles
from spark.taskresult import TaskResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from arclight.layout import TableLayout
    from arclight.spec import Spec

Mask = npt.NDArray[np.bool_]
Reasons = list[tuple[str, Mask]]


@dataclass(frozen=True)
class RowPass:
    """What a task needs: the spec, the layout and where to write."""

    spec: Spec
    layout: TableLayout
    folder: str

    def run(self, partition: int, batches: Iterable[pa.RecordBatch]) -> TaskResult:
        """Take one partition's sorted rows to files and a result."""
        pa.set_cpu_count(1)
        return _Task(self, partition).run(batches)


class _Task:
    """The state of one partition's pass."""

    def __init__(self, plan: RowPass, partition: int) -> None:
        self.spec, self.layout, self.partition = plan.spec, plan.layout, partition
        self.features = FeatureBuilder(plan.layout.features)
        self.checks: dict[str, Expression] = {
            check.name: compile_expression(check.expect, plan.layout.schema)
            for check in plan.spec.etl.checks
        }
        self.files = PartFiles(Path(plan.folder), plan.spec, plan.layout, partition)
        self.rows_in = 0
        self.quarantined: dict[str, dict[str, int]] = {}
        self.broken: dict[str, int] = {}
        self.dropped: dict[str, int] = {}

    def run(self, batches: Iterable[pa.RecordBatch]) -> TaskResult:
        for batch, repeats in self._keyed(batches):
            self._take(batch, repeats)
        found = self.files.close()
        return TaskResult(
            partition=self.partition,
            rows_in=self.rows_in,
            files=found.files,
            stages=self._stages(),
            broken=self.broken,
            summaries=found.summaries,
            class_rows=found.class_rows,
            groups=found.groups,
            times=found.times,
        )

    def _keyed(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, Mask]]:
        if self.spec.etl.key:
            return with_neighbours(batches, self.spec.etl.key)
        return with_row_keys(batches, ROW_KEY)

    def _take(self, batch: pa.RecordBatch, repeats: Mask) -> None:
        """Decide for each row: quarantine with its reasons, the gap, or a split."""
        self.rows_in += batch.num_rows
        built = self.features.build(batch)
        label, bad_label = read_labels(self.spec.task, batch.column(self.spec.etl.label))
        codes, keyless = self._split(batch), self._without_key(batch)
        stages: dict[str, Reasons] = {
            "key": [("key_null", keyless), ("key_repeated", repeats & ~keyless)],
            "label": list(bad_label.items()),
            "checks": self._broken_checks(batch),
            "derive": list(built.rejected.items()),
            "split": [("time_null", codes == UNKNOWN)],
        }
        bad = self._account(stages, batch.num_rows)
        self._drop("gap", int(np.count_nonzero((codes == GAP) & ~bad)))
        self.files.quarantine(batch, bad, [r for reasons in stages.values() for r in reasons])
        self.files.add(batch, built, label, np.where(bad, UNKNOWN, codes))

    def _split(self, batch: pa.RecordBatch) -> npt.NDArray[np.int8]:
        split = self.spec.etl.split
        if split.by == "time":
            return split_by_time(split, batch.column(str(self.spec.etl.time)))
        key = [batch.column(name) for name in self.layout.key]
        return split_by_hash(split, key, [batch.column(name) for name in split.group])

    def _without_key(self, batch: pa.RecordBatch) -> Mask:
        return null_rows([batch.column(n) for n in self.spec.etl.key], batch.num_rows)

    def _broken_checks(self, batch: pa.RecordBatch) -> Reasons:
        """Evaluate the checks; `warn` counts a row but never takes it out."""
        found: Reasons = []
        for check in self.spec.etl.checks:
            kept = self.checks[check.name].evaluate(batch).values
            broken = ~kept.fill_null(False).to_numpy(zero_copy_only=False)
            self._count_broken(f"check:{check.name}", broken)
            if check.otherwise != "warn":
                found.append((f"check:{check.name}", broken))
        return found

    def _count_broken(self, name: str, mask: Mask) -> None:
        count = int(np.count_nonzero(mask))
        if count:
            self.broken[name] = self.broken.get(name, 0) + count

    def _account(self, stages: Mapping[str, Reasons], rows: int) -> Mask:
        """Count each bad row once, at the first stage and reason that holds; return bad rows."""
        bad = np.zeros(rows, dtype=bool)
        for stage, reasons in stages.items():
            account = self.quarantined.setdefault(stage, {})
            for reason, mask in reasons:
                if not reason.startswith("check:"):
                    self._count_broken(reason, mask)
                count = int(np.count_nonzero(mask & ~bad))
                if count:
                    account[reason] = account.get(reason, 0) + count
                bad |= mask
        return bad

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _stages(self) -> tuple[Stage, ...]:
        """Return the account; rows out of the last stage are what the files really hold."""
        stages = []
        rows = self.rows_in
        names = ("key", "label", "checks", "derive", "split")
        for name in names:
            quarantined = self.quarantined.get(name, {})
            dropped = self.dropped if name == "split" else {}
            out = rows - sum(quarantined.values()) - sum(dropped.values())
            stages.append(
                Stage(
                    name=name, rows_in=rows, rows_out=out, quarantined=quarantined, dropped=dropped
                )
            )
            rows = out
        written = sum(self.files.rows[name] for name in SPLIT_NAMES)
        stages.append(Stage(name="write", rows_in=rows, rows_out=written))
        return tuple(stages)
