"""The last step of a run: the gate decides whether the champion alias moves to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.decision import Decision, decide_gate
from jobs.say import say

if TYPE_CHECKING:
    from arclight.bundle import Evaluation, ModelBundle
    from jobs.runs import Context

CHAMPION = "champion"


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
