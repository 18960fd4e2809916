"""`arclight evaluate`, and the third step of a run, which types that command for itself."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from arclight.bundle import Evaluation
from arclight.child import module_command, own_variables
from arclight.dataset_spec import check_built_from
from arclight.errors import ArclightError, EngineError, RefusedError, printable
from arclight.spec import Spec
from arclight.spec_file import LoadedSpec, load_spec
from jobs.figures import say_figures
from jobs.guard import INTERRUPTED
from jobs.runs import SPEC, Context, known_store
from jobs.say import answer, progress, say
from ray_apps.evaluate import evaluate_model, evaluation_key
from ray_apps.train import find_origin, model_key

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import ModelBundle
    from arclight.catalog import Catalog

CHILD_EXIT_S = 20


def evaluate_command(
    spec_file: Path,
    *,
    store: str | None,
    model: str | None,
    dataset: str | None,
    run_id: str,
    as_json: bool,
) -> None:
    """Evaluate a model on the test split of its dataset or another; the opening is recorded.

    For a run the file is the one that holds the spec as it was when the run began.
    """
    if run_id:
        spec = Spec.from_json(spec_file.read_bytes(), source=str(spec_file))
        loaded = LoadedSpec(spec=spec, file=spec_file, sql="")
    else:
        loaded = load_spec(spec_file)
    spec = loaded.spec
    catalog = known_store(store, spec_file.resolve().parent)
    bundle = catalog.model(model) if model else _model_of(loaded, catalog)
    manifest = catalog.dataset(dataset or bundle.dataset)
    with progress("evaluate") as tick:
        evaluation = evaluate_model(
            catalog,
            bundle,
            manifest,
            segments=spec.evaluate.segments,
            run=run_id or "by hand",
            tick=tick,
        )
    say_figures(bundle, evaluation)
    body = {
        "kind": evaluation.kind,
        "version": evaluation.version,
        **evaluation.model_dump(mode="json"),
    }
    answer({"model": bundle.ref, "evaluation": body}, as_json=as_json)


def _model_of(loaded: LoadedSpec, catalog: Catalog) -> ModelBundle:
    """Return the model that a spec's train section made, or the newest one.

    With a tune section it may be the newest of a search, whose parameters are not the spec's.

    Raises:
        MissingError: there is no model.
        RefusedError: the newest one is another trainer's; each look at the test split counts.
    """
    spec = loaded.spec
    newest, own = catalog.model(spec.name), _own_model(loaded, catalog)
    searched = None
    if spec.tune is not None:
        searched = next((b for b in catalog.models(spec.name) if b.search is not None), None)
    found = max((b for b in (own, searched) if b), key=lambda b: b.number, default=None)
    if found is None and spec.tune is None and newest.search is None:
        _check_trainer(newest, spec)
    bundle = found or newest
    say(f"evaluate: {bundle.ref}{'' if found else ', the newest one'}.")
    return bundle


def _own_model(loaded: LoadedSpec, catalog: Catalog) -> ModelBundle | None:
    """Return the model of the train section on the newest of the spec's datasets that has one."""
    spec = loaded.spec
    for manifest in catalog.datasets(spec.name):
        with suppress(ArclightError):  # whatever a training would say of its beginning
            check_built_from(manifest, loaded)
            key = model_key(manifest, spec, find_origin(catalog, manifest, spec))
            if found := catalog.find_model(spec.name, key):
                return found
    return None


def _check_trainer(newest: ModelBundle, spec: Spec) -> None:
    if newest.trainer != spec.train.trainer:
        raise RefusedError(
            f"the newest model, {newest.ref}, is of trainer {newest.trainer}, but the spec "
            f"asks for {spec.train.trainer}, and no model is as the spec and "
            "this code make it; name the model with --model, or train it first."
        )


def evaluate_step(context: Context, bundle: ModelBundle) -> Evaluation:
    """Return the evaluation of a model, published before or made now from the stored bundle.

    It is made by a process of its own. The key holds the model, the data, the segments and the
    code; what is published under it needs no second opening of the test split.

    Raises:
        EngineError: the process runs other code than this one.
        ArclightError: the evaluation failed.
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
        if evaluation.key != key:
            raise EngineError(
                f"evaluate: the evaluation must be of key {key[:12]}, but is of "
                f"{evaluation.key[:12]}: Arclight's code was changed while the run was at work; "
                "run the same command again."
            )
        note.result = _opened(evaluation)
    return evaluation


def evaluate_rival(context: Context, rival: ModelBundle, dataset: str) -> Evaluation | None:
    """Return the evidence about a model on the test rows of a dataset; None where it failed.

    Args:
        context: of the run.
        rival: takes the dataset's features.
        dataset: NAME@N.
    """
    run = context.run
    manifest = run.catalog.dataset(dataset)
    on_same = (
        e
        for e in run.catalog.evaluations(rival.name, rival.number)
        if manifest.has_content(e.dataset_digest)
        and e.model_digest == rival.model_digest
        and e.report.redrawn is not None
    )
    known = next(on_same, None)
    if known is not None:
        return known
    say(f"register: evaluating {rival.ref} on the test rows of {dataset}, to compare with it.")
    try:
        return _evaluate_apart(context, rival, dataset)
    except _EvaluationFailed as error:
        say(f"register: {error.message}")
        return None


def _opened(evaluation: Evaluation) -> str:
    return f"{evaluation.model} on opening {evaluation.opening}"


def _evaluate_apart(context: Context, bundle: ModelBundle, dataset: str = "") -> Evaluation:
    """Run `arclight evaluate` on the bundle and read back what it published."""
    run = context.run
    command = module_command(
        "jobs.cli", "evaluate", str(run.folder / SPEC),
        "--store", str(run.catalog.store.root), "--model", bundle.ref, "--run", run.id, "--json",
        *(("--dataset", dataset) if dataset else ()),
    )  # fmt: skip
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
            command, stdout=subprocess.PIPE, stderr=errors, env=own_variables()
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
