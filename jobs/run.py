"""`arclight run`: etl, train, evaluate, register; what is done is skipped."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arclight.errors import RefusedError
from arclight.spec_file import load_spec
from cluster.profiles import load_profile
from jobs.check import check_without_running
from jobs.etl import etl_step
from jobs.evaluate import evaluate_step
from jobs.figures import say_figures
from jobs.register import CHAMPION, check_rival, register_step
from jobs.reports import write_dataset_page, write_model_page
from jobs.runs import Context, open_run, store_for
from jobs.say import answer, say
from jobs.train import train_step
from jobs.tune import check_storage, tune_step
from ray_apps.finetune import find_init

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import Evaluation, ModelBundle
    from arclight.decision import Decision
    from arclight.manifest import DatasetManifest
    from jobs.runs import Run


@dataclass(frozen=True)
class RunResult:
    """What a run gave."""

    run: Run
    manifest: DatasetManifest
    bundle: ModelBundle
    evaluation: Evaluation
    decision: Decision
    reports: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the run as `--json` prints it."""
        return {
            "run": self.run.id,
            "dataset": self.manifest.ref,
            "model": self.bundle.ref,
            "model_digest": self.bundle.model_digest,
            "dataset_digest": self.manifest.content_digest,
            "rows": self.manifest.rows,
            "seconds": self.run.seconds,
            "figures": {f.name: [f.value, f.low, f.high] for f in self.evaluation.report.figures},
            "decision": self.decision.kind,
            "reason": self.decision.reason,
            "reports": [str(path) for path in self.reports],
        }


def run_spec(
    spec_file: Path,
    *,
    store: str | None,
    profile: str,
    accept_schema: bool = False,
    new_study: bool = False,
) -> RunResult:
    """Take a spec from its raw tables to a registered model."""
    loaded = load_spec(spec_file)
    place = load_profile(profile)
    check_without_running(loaded, place)
    check_storage(loaded.spec)
    with open_run(store_for(store, loaded.folder, signs=True), loaded) as run:
        if run.resumed:
            say(f"run: going on with {run.id}, which did not end.")
        check_rival(run.catalog, loaded.spec)
        find_init(run.catalog, loaded.spec)  # known to be there before anything is built
        context = Context(run=run, loaded=loaded, profile=place)
        manifest = etl_step(context, accept_schema=accept_schema)
        reports = [write_dataset_page(run, manifest)]
        if loaded.spec.tune is None:
            bundle = train_step(context, manifest)
        else:
            bundle, _ = tune_step(context, manifest, new_study=new_study)
        evaluation = evaluate_step(context, bundle)
        decision = register_step(context, bundle, evaluation)
        reports.append(write_model_page(run, bundle, evaluation, manifest, decision))
        return RunResult(run, manifest, bundle, evaluation, decision, tuple(reports))


def run_command(
    spec_file: Path,
    *,
    store: str | None,
    profile: str,
    accept_schema: bool,
    new_study: bool,
    as_json: bool,
) -> None:
    """Run a spec and say what came of it.

    Raises:
        RefusedError: the gate did not let the model through; all else is done and said.
    """
    result = run_spec(
        spec_file,
        store=store,
        profile=profile,
        accept_schema=accept_schema,
        new_study=new_study,
    )
    say_figures(result.bundle, result.evaluation)
    for path in result.reports:
        say(f"report: {path}")
    answer(result.to_dict(), as_json=as_json)
    if result.decision.kind != "promote":
        raise gate_refusal(result)


def gate_refusal(result: RunResult) -> RefusedError:
    """Return what a run ends with whose model the gate did not let through."""
    model, catalog = result.bundle, result.run.catalog
    held = catalog.alias(model.name, CHAMPION)
    way, stands = f"promote {model.ref} {CHAMPION}", f"no model holds '{CHAMPION}'"
    if held is not None:
        stands = f"'{CHAMPION}' stays on {model.name}@{held.version_number}"
    state = f"{model.ref} is stored, not promoted, and {stands}"
    if held is not None and held.version_number == model.number:
        way = f"rollback {model.name}"
        state = f"{model.ref} is the {CHAMPION} by an earlier move ({held.reason.rstrip('.')})"
    return RefusedError(
        f"gate: {result.decision.reason.rstrip('.')}; {state}; change the spec, or decide by "
        f"hand: arclight {way} --store {shlex.quote(str(catalog.store.root))}"
    )
