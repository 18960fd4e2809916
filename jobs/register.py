"""The last step of a run: the gate decides whether the champion alias moves to the model."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from arclight.decision import Decision, decide_gate
from arclight.errors import MissingError, nearest, printable
from arclight.finetune import label_of
from jobs.evaluate import evaluate_rival
from jobs.say import say

if TYPE_CHECKING:
    from arclight.bundle import Evaluation, ModelBundle
    from arclight.catalog import Catalog
    from arclight.spec import Spec
    from jobs.runs import Context

CHAMPION = "champion"


def check_rival(catalog: Catalog, spec: Spec) -> None:
    """Refuse a gate that compares with an alias nobody set; `champion` may have no holder yet.

    Raises:
        MissingError: no version of the model holds the alias.
        IntegrityError: it is not known where the alias stands, or `champion`, which the run may
            move.
    """
    catalog.alias(spec.name, CHAMPION)
    alias = spec.gate.not_worse_than
    if alias is None or alias == CHAMPION or catalog.alias(spec.name, alias) is not None:
        return
    known = [CHAMPION, *catalog.aliases(spec.name)]
    raise MissingError(
        f"gate.not_worse_than: no version of model '{spec.name}' holds the alias "
        f"'{printable(alias)}'.{nearest(alias, known)} Correct it, or give a version that alias: "
        f"arclight promote {spec.name}@N {printable(alias)}"
    )


def register_step(context: Context, bundle: ModelBundle, evaluation: Evaluation) -> Decision:
    """Let the gate decide whether the champion alias moves to the model, and move it."""
    run, spec = context.run, context.loaded.spec
    with run.step("register", key=bundle.model_digest) as note:
        held = run.catalog.alias(spec.name, CHAMPION)
        decision = _decide(context, bundle, evaluation)
        stands = held is not None and held.version_number == bundle.number
        if decision.kind == "promote" and not stands:
            run.catalog.move_alias(bundle, CHAMPION, reason=decision.reason, seen=held)
        note.result = decision.kind
    say(f"register: {bundle.ref}: {decision.kind}: {decision.reason}")
    if decision.kind == "promote" and held is not None and held.version_number > bundle.number:
        store = shlex.quote(str(run.catalog.store.root))
        say(
            f"register: '{CHAMPION}' moved back from the newer {spec.name}@{held.version_number}; "
            f"to return to it: arclight rollback {spec.name} --store {store}",
            style="yellow",
        )
    return decision


def _decide(context: Context, bundle: ModelBundle, evaluation: Evaluation) -> Decision:
    """Return what the gate says of a model."""
    gate = context.loaded.spec.gate
    holder = _holder(context)
    apart = "" if holder is None else _apart(context, bundle, holder)
    rival = None if holder is None or apart else _rival(context, bundle, evaluation, holder)
    doubts = dict.fromkeys(e.doubt for e in (rival, evaluation) if e is not None and e.doubt)
    decision = decide_gate(
        gate,
        evaluation.report,
        rival.report if rival is not None else None,
        holder.ref if holder is not None else None,
        tuple(doubts),
    )
    return Decision(kind="keep", reason=apart) if apart and decision.kind == "keep" else decision


def _holder(context: Context) -> ModelBundle | None:
    """Return the model that the gate compares with; None for none."""
    catalog, spec = context.run.catalog, context.loaded.spec
    alias = spec.gate.not_worse_than
    held = None if alias is None else catalog.alias(spec.name, alias)
    return None if held is None else catalog.model(f"{spec.name}@{held.version_number}")


def _apart(context: Context, bundle: ModelBundle, holder: ModelBundle) -> str:
    """Say why figures of the two say nothing of each other; empty where they may."""
    catalog, spec = context.run.catalog, context.loaded.spec
    (mine, theirs) = (
        None if (label := label_of(catalog, model)) is None else f"'{label}' ({model.task})"
        for model in (bundle, holder)
    )
    if mine is None or theirs is None or mine == theirs:
        return ""
    return (
        f"{holder.ref} holds '{spec.gate.not_worse_than}' and predicts {printable(theirs)}, not "
        f"{printable(mine)}, and figures of the two cannot be compared; give the spec a name of "
        "its own"
    )


def _rival(
    context: Context, bundle: ModelBundle, evaluation: Evaluation, holder: ModelBundle
) -> Evaluation | None:
    """Return the evidence about the model the gate compares with; None for none.

    On the test rows of the new model where they have its features, else on those it had. The
    model may hold that alias itself, when a run is repeated.
    """
    if holder.number == bundle.number:
        return evaluation
    mine, theirs = bundle.plan, holder.plan
    if (mine.layout, mine.classes) == (theirs.layout, theirs.classes):
        return evaluate_rival(context, holder, bundle.dataset)
    return context.run.catalog.own_evaluation(holder)
