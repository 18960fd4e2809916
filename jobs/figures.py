"""Figures and row counts as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.report import figure_rows
from jobs.say import say, say_table

if TYPE_CHECKING:
    from arclight.bundle import Evaluation, ModelBundle
    from arclight.manifest import DatasetManifest
    from arclight.report import EvalReport


def say_figures(bundle: ModelBundle, evaluation: Evaluation) -> None:
    """Print an evaluation's figures with their intervals."""
    say_table(
        f"{bundle.ref} on the test split of {evaluation.dataset}",
        ("metric", "value", "95% interval"),
        [
            (name, rounded(value), f"{rounded(low)} … {rounded(high)}" if low is not None else "")
            for name, value, low, high in figure_rows(evaluation.report)
        ],
    )
    if evaluation.doubt:
        say(
            f"evaluate: {evaluation.doubt}; figures of rows that it, or one it came from, learned "
            "from are too good.",
            style="yellow",
        )
    _say_if_nothing_was_learnt(evaluation.report)


def _say_if_nothing_was_learnt(report: EvalReport) -> None:
    """Warn when a model is no better than a prediction that is the same for every row."""
    if report.is_no_better_than_constant:
        ours = rounded(report.figure(report.metric).value)
        say(
            f"evaluate: {report.metric} {ours} is no better than the {rounded(report.constant)} "
            "of one prediction for every row; look at the features, the label and the split.",
            style="yellow",
        )


def row_account(manifest: DatasetManifest) -> dict[str, int]:
    """Return where the rows went that the spec's SQL gave: splits, quarantine, what was dropped.

    The counts add up to those rows. The sample is no part of it: it repeats rows of the splits.
    """
    account = {part: rows for part, rows in manifest.rows.items() if part != "sample"}
    for stage in manifest.ledger.stages:
        for reason, rows in stage.dropped.items():
            name = f"dropped ({reason})"
            account[name] = account.get(name, 0) + rows
    return account


def rounded(value: float | None) -> str:
    """Return a figure with four significant decimals, '-' when it is undefined."""
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"
