"""One version of a model or a dataset as a table for people; `--json` gives the whole record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.report import figure_rows
from arclight.signing import record_sha256
from jobs.figures import rounded, row_account
from jobs.say import say_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arclight.alias_moves import AliasRecord
    from arclight.bundle import ModelBundle, Resumed
    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest

Line = tuple[str, object]


def _folds(bundle: ModelBundle) -> list[Line]:
    found = bundle.cross_validation
    return [] if found is None else [(f"{bundle.metric} of cross-validation", str(found))]


def _start(bundle: ModelBundle) -> list[Line]:
    found = bundle.transfer
    if found is None:
        return []
    return [
        (f"{found.metric} on valid, what the start was worth", str(found)),
        (f"rows shown to be new to {found.model}", found.shown_new),
    ]


def say_model(catalog: Catalog, bundle: ModelBundle) -> None:
    """Print what a model is; its golden rows, which are raw data, are counted and not shown."""
    own = record_sha256(bundle)  # a training that was killed, or not the first, signed another one
    signed = ", ".join(s.key_id for s in catalog.signatures(bundle) if s.record_sha256 == own)
    lines: list[Line] = [
        ("aliases", ", ".join(aliases_on(bundle, catalog.aliases(bundle.name))) or "none"),
        ("task", bundle.task),
        ("trainer", f"{bundle.trainer}, {bundle.rounds:,} rounds"),
        *_settings(bundle),
        *(("went on after a loss", _again(one)) for one in bundle.resumed),
        *([("diverged", f"in round {bundle.diverged:,}")] if bundle.diverged else []),
        *((f"parameter {name}", value) for name, value in bundle.params.items()),
        *((f"{bundle.metric} on {s}", rounded(v)) for s, v in bundle.train_metrics.items()),
        *_folds(bundle),
        *_start(bundle),
        *([] if bundle.search is None else [("parameters from", str(bundle.search))]),
        *_test_figures(catalog, bundle),
        ("threshold", "none" if bundle.threshold is None else f"{bundle.threshold:.6g}"),
        ("dataset", bundle.dataset),
        ("made at", bundle.lineage.made_at),
        ("signed by", signed or "nobody"),
        *((f"input {c.name}", c.type) for c in bundle.signature.inputs),
        *((f"output {c.name}", c.type) for c in bundle.signature.outputs),
        ("folder", catalog.folder(bundle)),
        *((f"file {f.path}", f"{f.size_bytes:,} bytes") for f in bundle.files),
        ("golden rows", f"{len(bundle.golden.rows)}, raw rows of the data; see --json"),
        ("digest", bundle.model_digest),
    ]
    say_table(f"model {bundle.ref}", ("what", "value"), lines)


def _settings(bundle: ModelBundle) -> list[Line]:
    if bundle.settings is None:
        return [("settings", "not recorded: an older release made it")]
    found = bundle.settings.model_dump(exclude={"params", "init", "params_after"})
    found |= bundle.settings.changes
    init = {} if bundle.settings.init is None else bundle.settings.init.model_dump()
    found |= {f"init.{name}": value for name, value in init.items()}
    return [(f"setting {name}", "none" if v is None else v) for name, v in found.items()]


def _again(one: Resumed) -> str:
    same = (
        "same bytes as undisturbed" if one.exact else "bytes may differ from an undisturbed one's"
    )
    return f"from round {one.rounds:,} with {one.workers:,} workers, {same}"


def aliases_on(bundle: ModelBundle, aliases: Mapping[str, AliasRecord]) -> list[str]:
    """Return those of a model's aliases that stand on this version."""
    return [a for a, record in aliases.items() if record.version_number == bundle.number]


def _test_figures(catalog: Catalog, bundle: ModelBundle) -> list[Line]:
    found = catalog.own_evaluation(bundle)
    if found is None:
        return [("evaluated", "not yet")]
    where = "test" if found.dataset == bundle.dataset else f"test of {found.dataset}"
    return [
        (
            f"{name} on {where}",
            rounded(value) + (f" [{rounded(low)} … {rounded(high)}]" if low is not None else ""),
        )
        for name, value, low, high in figure_rows(found.report)
    ]


def say_dataset(catalog: Catalog, manifest: DatasetManifest) -> None:
    """Print what a dataset is and where its rows went."""
    size = sum(file.size_bytes for file in manifest.files)
    account = row_account(manifest)
    lines: list[Line] = [
        ("task", manifest.task),
        ("label", manifest.label),
        ("key", ", ".join(manifest.key_columns)),
        ("time", manifest.time_column or "none"),
        ("made at", manifest.lineage.made_at),
        *((f"rows of source {name}", f"{n:,}") for name, n in manifest.ledger.sources.items()),
        ("rows joined", f"{sum(account.values()):,}"),
        *((f"rows {part}", f"{count:,}") for part, count in account.items()),
        *_taken_out(manifest),
        ("test openings", f"{sum(1 for _ in catalog.openings(manifest)):,}"),
        *((f"feature {f.name}", f.type) for f in manifest.plan.features),
        ("folder", catalog.folder(manifest)),
        ("files", f"{len(manifest.files):,}, {size:,} bytes"),
        *(("warning", text) for text in manifest.warnings),
        ("digest", manifest.content_digest),
    ]
    say_table(f"dataset {manifest.ref}", ("what", "value"), lines)


def _taken_out(manifest: DatasetManifest) -> list[Line]:
    return [
        (f"ledger {stage.name}: {reason}", f"{rows:,} to quarantine")
        for stage in manifest.ledger.stages
        for reason, rows in stage.quarantined.items()
    ]
