"""The last step of a run: the gate decides whether the champion alias moves to the model."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from arclight.decision import Decision, decide_gate
from arclight.errors import MissingError, nearest, printable
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
    """
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
        rival, holder = _rival(context, bundle, evaluation)
        doubts = dict.fromkeys(e.doubt for e in (rival, evaluation) if e is not None and e.doubt)
        decision = decide_gate(
            spec.gate,
            evaluation.report,
            rival.report if rival is not None else None,
            holder,
            tuple(doubts),
        )
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


def _rival(
    context: Context, bundle: ModelBundle, evaluation: Evaluation
) -> tuple[Evaluation | None, str | None]:
    """Return the evidence about the model the gate compares with, and its NAME@V; None for none.

    On the test rows of the new model where they have its features, else on those it had. The
    model may hold that alias itself, when a run is repeated.
    """
    catalog, spec = context.run.catalog, context.loaded.spec
    alias = spec.gate.not_worse_than
    held = None if alias is None else catalog.alias(spec.name, alias)
    if held is None:
        return None, None
    if held.version_number == bundle.number:
        return evaluation, bundle.ref
    rival = catalog.model(f"{spec.name}@{held.version_number}")
    mine, theirs = bundle.plan, rival.plan
    if (mine.layout, mine.classes) == (theirs.layout, theirs.classes):
        return evaluate_rival(context, rival, bundle.dataset), rival.ref
    return catalog.own_evaluation(rival), rival.ref
