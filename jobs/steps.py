"""The steps of a run, each: its key, skip it if it is published, else do it and note it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.bundle import Evaluation
from arclight.decision import Decision, decide_gate
from arclight.errors import ArclightError, EngineError, printable
from arclight.store import make_folder
from cluster.ray_session import ray_session
from cluster.spark_session import spark_session
from jobs.reports import row_account
from jobs.say import progress, say
from ray_apps.evaluate import evaluation_key
from ray_apps.train import model_key, train_model
from spark.etl import build_dataset
from spark.etl_plan import plan_etl

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import ModelBundle
    from arclight.manifest import DatasetManifest
    from arclight.spec_file import LoadedSpec
    from cluster.profiles import Profile
    from jobs.runs import Run

CHAMPION = "champion"
INTERRUPTED = 130
CHILD_EXIT_S = 20


@dataclass(frozen=True)
class Context:
    """What every step needs."""

    run: Run
    loaded: LoadedSpec
    profile: Profile


def etl_step(context: Context, *, accept_schema: bool) -> DatasetManifest:
    """Return the dataset of the spec and its inputs, built now or published before."""
    run, spec = context.run, context.loaded.spec
    plan = plan_etl(context.loaded)
    if plan.key is not None:
        known = run.catalog.find_dataset(spec.name, plan.key)
        if known is not None:
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


def train_step(context: Context, manifest: DatasetManifest) -> ModelBundle:
    """Return the model of the dataset and the train section, trained now or published before."""
    run, spec = context.run, context.loaded.spec
    key = model_key(manifest, spec)
    known = run.catalog.find_model(spec.name, key)
    if known is not None:
        run.skip("train", key=key, result=known.ref)
        say(f"train: dataset, parameters and code are unchanged: model {known.ref} stands.")
        return known
    with run.step("train", key=key) as note, progress("train") as tick:
        with _workers(context):
            bundle = train_model(
                run.catalog,
                manifest,
                spec,
                profile=context.profile,
                run_folder=run.folder,
                tick=tick,
            )
        note.result = bundle.ref
    figures = ", ".join(f"{name} {value:.4f}" for name, value in bundle.train_metrics.items())
    say(f"train: model {bundle.ref}, {bundle.rounds} rounds, {bundle.metric}: {figures}.")
    return bundle


def _workers(context: Context) -> AbstractContextManager[object]:
    """Return Ray for the length of a training, or nothing when it runs in this process."""
    if context.loaded.spec.train.workers == 0:
        return nullcontext()
    return ray_session(context.profile, log_folder=context.run.logs)


def evaluate_step(context: Context, bundle: ModelBundle) -> Evaluation:
    """Return the evaluation of a model, published before or made now from the stored bundle.

    It is made by a process of its own. The key holds the model, the data, the segments and the
    code; what is published under it needs no second opening of the test split.
    """
    run = context.run
    manifest = run.catalog.dataset(bundle.dataset)
    key = evaluation_key(bundle, manifest, context.loaded.spec.evaluate.segments)
    known = run.catalog.find_evaluation(bundle, key)
    if known is not None:
        run.skip("evaluate", key=key, result=_opened(known))
        say(f"evaluate: model, data, segments and code are unchanged: {_opened(known)} stands.")
        return known
    with run.step("evaluate", key=key) as note, progress("evaluate"):
        evaluation = _evaluate_apart(context, bundle)
        note.result = _opened(evaluation)
    return evaluation


def _opened(evaluation: Evaluation) -> str:
    return f"{evaluation.model} on opening {evaluation.opening}"


def register_step(context: Context, bundle: ModelBundle, evaluation: Evaluation) -> Decision:
    """Let the gate decide whether the champion alias moves to the model, and move it."""
    run, spec = context.run, context.loaded.spec
    with run.step("register", key=bundle.model_digest) as note:
        held = run.catalog.alias(spec.name, CHAMPION)
        champion = None
        if held is not None and held.version_number != bundle.number:
            found = run.catalog.evaluations(spec.name, held.version_number)
            champion = next(iter(found), None)
        decision = decide_gate(
            spec.gate, evaluation.report, champion.report if champion is not None else None
        )
        stands = held is not None and held.version_number == bundle.number
        if decision.kind == "promote" and not stands:
            run.catalog.move_alias(bundle, CHAMPION, reason=decision.reason, seen=held)
        note.result = decision.kind
    say(f"register: {bundle.ref}: {decision.kind}: {decision.reason}")
    return decision


def _evaluate_apart(context: Context, bundle: ModelBundle) -> Evaluation:
    """Run `arclight evaluate` on the bundle and read back what it published."""
    run = context.run
    command = [
        sys.executable, "-m", "jobs.cli", "evaluate", str(context.loaded.file),
        "--store", str(run.catalog.store.root), "--model", bundle.ref, "--run", run.id, "--json",
    ]  # fmt: skip
    log = run.logs / "evaluate.log"
    status, text = _run_child(command, log)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status != 0:
        raise _EvaluationFailed.of(status, log)
    answer = json.loads(text)
    return Evaluation.from_json(json.dumps(answer["evaluation"]), source="the evaluation")


def _run_child(command: list[str], log: Path) -> tuple[int, bytes]:
    """Run a command of ours; when this process is interrupted, it is too, and puts things away."""
    with (
        log.open("ab") as errors,
        subprocess.Popen(  # noqa: S603 -- our own program, its arguments a list
            command, stdout=subprocess.PIPE, stderr=errors
        ) as child,
    ):
        try:
            text, _ = child.communicate()
        except BaseException:
            child.terminate()
            try:
                child.wait(CHILD_EXIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
            raise
        return child.returncode, text


class _EvaluationFailed(EngineError):
    """The evaluation's process failed; carries its exit status."""

    @classmethod
    def of(cls, status: int, log: Path) -> ArclightError:
        if status < 0:
            return cls(
                f"evaluate: its process was ended by {signal.Signals(-status).name}, by hand or "
                "for want of memory; run the same command again."
            )
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("arclight: ") if lines else f"it ended with status {status}"
        error = cls(f"evaluate: {printable(said, limit=600)}")
        error.exit_status = status if status in (1, 2, 3) else 1
        return error


def _say_dataset(manifest: DatasetManifest) -> None:
    account = row_account(manifest)
    rows = ", ".join(f"{part} {count:,}" for part, count in account.items())
    say(f"etl: dataset {manifest.ref}: {sum(account.values()):,} rows: {rows}.")
    for warning in manifest.warnings:
        say(f"etl: {warning}.", style="yellow")
