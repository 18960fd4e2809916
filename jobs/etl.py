"""`arclight etl`, and the first step of a run: raw tables to a dataset, or the one that stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.ledger import name_reasons
from arclight.pages.findings import find_warnings
from arclight.spec_file import load_spec
from arclight.store import check_size, make_folder
from cluster.profiles import load_profile
from cluster.spark_session import spark_session
from jobs.check import check_without_running
from jobs.figures import row_account
from jobs.reports import write_dataset_page
from jobs.runs import Context, open_run, or_another, store_for
from jobs.say import answer, progress, say
from spark.etl import build_dataset
from spark.etl_plan import plan_etl

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.manifest import DatasetManifest

SAID_FINDINGS = 5


def etl_command(
    spec_file: Path, *, store: str | None, profile: str, accept_schema: bool, as_json: bool
) -> None:
    """Build a dataset from raw tables."""
    loaded = load_spec(spec_file)
    check_without_running(loaded)
    place = load_profile(profile)
    with open_run(store_for(store, loaded.folder), loaded) as run:
        context = Context(run=run, loaded=loaded, profile=place)
        manifest = etl_step(context, accept_schema=accept_schema)
        page = write_dataset_page(run, manifest)
    say(f"profile: {page}")
    body = {
        "dataset": manifest.ref,
        "digest": manifest.content_digest,
        "rows": manifest.rows,
        "profile": str(page),
        "warnings": list(manifest.warnings),
    }
    answer(body, as_json=as_json)


def etl_step(context: Context, *, accept_schema: bool) -> DatasetManifest:
    """Return the dataset of the spec and its inputs, built now or published before."""
    run, spec = context.run, context.loaded.spec
    plan = plan_etl(context.loaded)
    if plan.key is not None:
        known = run.catalog.find_dataset(spec.name, plan.key)
        if known is not None:
            # whoever reads them checks their bytes as well
            with or_another("After `touch` on a file of a source it is built again"):
                for file in known.files:
                    check_size(run.catalog.folder(known) / file.path, size_bytes=file.size_bytes)
            run.skip("etl", key=plan.key, result=known.ref)
            say(f"etl: inputs, spec and code are unchanged: dataset {known.ref} stands, skipped.")
            return known
    with run.step("etl", key=plan.key or "") as note, progress("etl") as tick:
        scratch = run.folder / "spark"
        make_folder(scratch)
        with spark_session(context.profile, log_folder=run.logs, local_folder=scratch) as session:
            manifest = build_dataset(
                session, plan, run.catalog, accept_schema=accept_schema, tick=tick
            )
        note.result = manifest.ref
    _say_dataset(manifest)
    return manifest


def _say_dataset(manifest: DatasetManifest) -> None:
    account, reasons = row_account(manifest), manifest.ledger.reasons
    why = {"quarantine": f" ({name_reasons(reasons)})"} if reasons else {}
    rows = ", ".join(f"{part} {count:,}{why.get(part, '')}" for part, count in account.items())
    say(f"etl: dataset {manifest.ref}: {sum(account.values()):,} rows: {rows}.")
    for warning in manifest.warnings:
        say(f"etl: {warning}.", style="yellow")
    heavy = [f for f in find_warnings(manifest) if f.weight == "high" and not f.is_built]
    for finding in heavy[:SAID_FINDINGS]:
        say(f"etl: {finding.sentence}", style="yellow")
    if len(heavy) > SAID_FINDINGS:
        say(f"etl: the profile has {len(heavy) - SAID_FINDINGS:,} more of these.", style="yellow")
