"""From a pass's totals to a manifest: rules, plan, proof; refused if anything does not add up."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING

import numpy as np

from arclight.catalog import now
from arclight.contract import digest_of
from arclight.dataset_spec import asked_of
from arclight.errors import IntegrityError, RefusedError
from arclight.ledger import RowLedger, Stage
from arclight.lineage import Lineage, code_digest, library_versions, python_version
from arclight.manifest import SPLITS, DatasetManifest, SplitProof
from arclight.plan import FeaturePlan, fit_plan
from arclight.schema import NAMES, Column
from arclight.spec import TimeSplit
from arclight.sql_guard import has_join
from spark.etl_plan import CODE
from spark.files import CODEC
from spark.labels import LABEL_REASONS
from spark.partfiles import stored_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.layout import TableLayout
    from arclight.spec import HashSplit, Spec
    from arclight.summary import ColumnSummary
    from spark.etl_plan import EtlPlan
    from spark.read import SourceTable
    from spark.taskresult import Totals

MAX_CLASSES = 1000
HIGH_CARDINALITY = 0.5


def make_manifest(
    plan: EtlPlan,
    layout: TableLayout,
    totals: Totals,
    tables: Sequence[SourceTable],
    joined_rows: int,
    folder: str,
) -> DatasetManifest:
    """Judge the totals, fit the plan on train, and return the manifest to publish.

    Raises:
        RefusedError: a rule with `fail` was broken, or a split cannot be used.
        IntegrityError: a row is unaccounted for, or a group stands in two splits.
    """
    spec = plan.loaded.spec
    refuse_broken_rules(spec, totals)
    ledger = _ledger(totals, tables, joined_rows)
    proof = _proof(spec, totals)
    rows = {part: sum(f.rows for f in totals.files if f.part == part) for part in _PARTS}
    refuse_unusable_splits(spec, rows, totals.class_rows, ledger)
    fitted = _fit(spec, layout, totals)
    columns = tuple(Column(name=f.name, type=NAMES[f.type]) for f in stored_schema(spec, layout))
    return DatasetManifest(
        name=spec.name,
        number=0,
        key=plan.key or digest_of([folder, "inputs unknown"]),
        folder=folder,
        task=spec.task,
        label=spec.etl.label,
        key_columns=layout.key,
        time_column=spec.etl.time,
        columns=columns,
        files=tuple(sorted(totals.files, key=lambda f: f.path)),
        rows=rows,
        codec=CODEC,
        plan=fitted,
        summaries={
            split: tuple(summary.trim() for summary in totals.summaries[split]) for split in SPLITS
        },
        class_rows=totals.class_rows,
        ledger=ledger,
        proof=proof,
        sources=tuple(table.contract for table in tables),
        lineage=_lineage(plan),
        warnings=(*_warn_copies(plan, ledger), *_warnings(spec, totals, fitted)),
        asked=asked_of(plan.loaded),
    )


_PARTS = (*SPLITS, "quarantine", "sample")


def refuse_broken_rules(spec: Spec, totals: Totals) -> None:
    """Refuse the data when a rule that says `fail` was broken, with every rule's count.

    Raises:
        RefusedError: at least one such rule was broken.
    """
    fatal = [f"check:{check.name}" for check in spec.etl.checks if check.otherwise == "fail"]
    if spec.etl.on_bad_key == "fail":
        fatal += ["key_null", "key_repeated"]
    if spec.etl.on_bad_label == "fail":
        fatal += LABEL_REASONS
    broken = [
        f"{name.removeprefix('check:')} by {totals.broken[name]:,}"
        for name in fatal
        if totals.broken.get(name)
    ]
    if broken:
        raise RefusedError(
            f"of {totals.rows_in:,} rows these rules, which say fail, were broken: "
            f"{', '.join(broken)} rows; mend the data, or let the rule say quarantine."
        )


def refuse_unusable_splits(
    spec: Spec, rows: dict[str, int], class_rows: dict[str, dict[str, int]], ledger: RowLedger
) -> None:
    """Refuse splits that nothing can be learnt or judged from.

    Raises:
        RefusedError: a split is empty, train has one class, or a class is missing from train.
    """
    counts = ", ".join(f"{split} {rows[split]:,}" for split in SPLITS)
    empty = [split for split in SPLITS if not rows[split]]
    reasons = [f"{name} {n:,}" for s in ledger.stages for name, n in s.quarantined.items()]
    why = f" for {', '.join(reasons)}" if reasons else ""
    if empty:
        way = "change what these say" if reasons and len(empty) == len(SPLITS) else ""
        raise RefusedError(
            f"every split must have rows, but {' and '.join(empty)} "
            f"{'has' if len(empty) == 1 else 'have'} none ({counts}; quarantine "
            f"{rows['quarantine']:,}{why}); {way or 'change etl.split, or what takes rows out'}."
        )
    if spec.task == "regression":
        return
    train = {label for label, count in class_rows["train"].items() if count}
    if len(train) < 2:
        raise RefusedError(
            f"the train split must have at least two classes of '{spec.etl.label}', got only "
            f"{', '.join(sorted(train))} in {rows['train']:,} rows (quarantine "
            f"{rows['quarantine']:,}{why}); change etl.label or etl.split, or what takes rows out."
        )
    if len(train) > MAX_CLASSES:
        raise RefusedError(
            f"'{spec.etl.label}' must have at most {MAX_CLASSES} classes, got {len(train):,}; "
            "is it a number? then the task is regression."
        )
    for split in ("valid", "test"):
        new = sorted({c for c, n in class_rows[split].items() if n} - train)
        if new and spec.task == "multiclass":
            raise RefusedError(
                f"class '{new[0]}' of '{spec.etl.label}' occurs in {split} but not in train; "
                "a model cannot learn it: drop its rows in etl.sql or change etl.split."
            )


def _ledger(totals: Totals, tables: Sequence[SourceTable], joined_rows: int) -> RowLedger:
    if joined_rows != totals.rows_in:
        raise IntegrityError(
            f"the row pass must see the {joined_rows:,} rows that etl.sql gave, but saw "
            f"{totals.rows_in:,}; nothing was published; run again and report it if it stays."
        )
    joined = Stage(name="join", rows_in=joined_rows, rows_out=totals.rows_in)
    ledger = RowLedger(
        sources={table.name: table.row_count() for table in tables},
        stages=(joined, *totals.stages),
    )
    ledger.prove()
    in_files = sum(f.rows for f in totals.files if f.part == "quarantine")
    if in_files != ledger.quarantined:
        raise IntegrityError(
            f"the quarantine must hold {ledger.quarantined:,} rows, but holds {in_files:,}; "
            "nothing was published; run again and report it if it stays."
        )
    return ledger


def _proof(spec: Spec, totals: Totals) -> SplitProof:
    if totals.group_overlap:
        raise IntegrityError(
            f"no group may stand in two splits, but {totals.group_overlap:,} do; nothing was "
            "published; report it."
        )
    keys = sum(f.rows for f in totals.files if f.part in SPLITS)
    repeated = totals.stages[0].quarantined.get("key_repeated", 0)
    split = spec.etl.split
    by_time = isinstance(split, TimeSplit)
    bounds = {}
    if by_time:
        bounds = {s: (_iso(low), _iso(high)) for s, (low, high) in totals.times.items()}
    if by_time and not _in_order(totals):
        raise IntegrityError(f"splits by time must not overlap, got {bounds}; report it.")
    return SplitProof(
        keys=keys,
        repeated_keys=repeated,
        groups=totals.groups,
        group_columns=spec.etl.group,
        hashed={} if isinstance(split, TimeSplit) else _hashed(split),
        bounds=bounds,
    )


def _hashed(split: HashSplit) -> dict[str, float]:
    return {"train": split.train, "valid": split.valid, "test": split.test, "seed": split.seed}


def _in_order(totals: Totals) -> bool:
    spans = [totals.times[split] for split in SPLITS if split in totals.times]
    return all(before[1] < after[0] for before, after in itertools.pairwise(spans))


def _iso(micros: int) -> str:
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    try:
        return (epoch + dt.timedelta(microseconds=micros)).isoformat()
    except OverflowError:  # a year that Python has not
        return f"{np.datetime64(micros, 'us')}+00:00"


def _fit(spec: Spec, layout: TableLayout, totals: Totals) -> FeaturePlan:
    *features, label = totals.summaries["train"]
    classes = tuple(sorted(level.value for level in label.levels))
    return fit_plan(
        layout.features,
        {summary.name: summary for summary in features},
        max_levels=spec.features.max_levels,
        min_count=spec.features.min_count,
        classes=classes if spec.task == "multiclass" else (),
    )


def _lineage(plan: EtlPlan) -> Lineage:
    return Lineage(
        made_at=now(),
        spec_digest=plan.loaded.spec.digest,
        code_digest=code_digest(CODE),
        inputs={name: found.digest or "unknown" for name, found in plan.files.items()},
        libraries=library_versions(),
        python=python_version(),
    )


def _warn_copies(plan: EtlPlan, ledger: RowLedger) -> tuple[str, ...]:
    """Tell of rows that a join took more than once, where no key or group is beside them."""
    etl, joined = plan.loaded.spec.etl, ledger.stages[0].rows_out
    rows, name = max((rows, name) for name, rows in ledger.sources.items())
    if etl.key or etl.group or joined <= rows or not has_join(plan.loaded.sql):
        return ()
    return (
        f"etl.sql gave {joined:,} rows, more than the largest source has ('{name}' {rows:,}): a "
        "join took rows more than once, and without etl.key or etl.split.group their copies "
        "may stand in train and in test",
    )


def _warnings(spec: Spec, totals: Totals, plan: FeaturePlan) -> tuple[str, ...]:
    features = totals.summaries["train"][:-1]
    found = [_warn_column(summary) for summary in features]
    unkept = {feature.name for feature in plan.features if feature.keeps_nothing}
    found += [
        f"feature '{summary.name}' keeps none of its {summary.distinct:,} levels, since each has "
        f"fewer than {spec.features.min_count:,} train rows, and says nothing but whether it is "
        "null; lower features.min_count or name it in etl.drop"
        for summary in features
        if summary.name in unkept and summary.nulls < summary.rows
    ]
    warned = [check.name for check in spec.etl.checks if check.otherwise == "warn"]
    found += [
        f"check '{name}' was broken by {totals.broken[f'check:{name}']:,} rows, which were kept"
        for name in warned
        if totals.broken.get(f"check:{name}")
    ]
    return tuple(text for text in found if text)


def _warn_column(summary: ColumnSummary) -> str:
    if summary.nulls == summary.rows:
        return f"feature '{summary.name}' is null in every train row"
    if summary.is_constant:
        return f"feature '{summary.name}' has one value in train"
    known = summary.rows - summary.nulls
    if summary.type == "category" and known > 1000 and summary.distinct > HIGH_CARDINALITY * known:
        return (
            f"feature '{summary.name}' has about {summary.distinct:,} levels in {known:,} rows; "
            "it is more an identifier than a category"
        )
    return ""
