"""The card of a model: what it is, how good it is and how sure that is, and what made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.bundle import measured_part
from arclight.leak import leak_told
from arclight.metrics import METRICS
from arclight.pages.column_charts import Bar, ranking_chart
from arclight.pages.frame import render
from arclight.pages.model_charts import (
    MAX_CLASSES,
    Span,
    actual_chart,
    confusion_chart,
    interval_chart,
    precision_chart,
    reliability_chart,
    roc_chart,
)
from arclight.pages.words import UNKNOWN, count, fixed, moment, number, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from arclight.bundle import Evaluation, ModelBundle
    from arclight.decision import Decision
    from arclight.manifest import DatasetManifest
    from arclight.report import EvalReport, Figure, Segment

Facts = list[tuple[str, str]]

MOST_IMPORTANT = 20

# in the label's unit, so they share an axis; every other one of these stands in 0…1
_IN_UNITS = ("rmse", "mae", "median_absolute_error", "bias")
_UNBOUNDED = ("log_loss", "r2")
_BETTER = {"higher": "higher", "lower": "lower", "zero": "near 0"}
_TONES = {"promote": "good", "keep": "", "refuse": "bad"}


@dataclass(frozen=True)
class FigureLine:
    """A metric as text: its value, its interval, which way is better."""

    name: str
    value: str
    interval: str
    better: str
    is_main: bool


@dataclass(frozen=True)
class SegmentView:
    """The levels of one segment column: the main metric drawn, all metrics in a table."""

    column: str
    chart: Markup | None
    head: tuple[str, ...]
    lines: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class _Evidence:
    """What an evaluation adds to the page."""

    main: FigureLine
    figures: list[FigureLine]
    charts: list[tuple[str, Markup]]
    confusion: Markup | None
    matrix: list[tuple[str, list[str]]]
    classes: tuple[str, ...]
    reliability: Markup | None
    bins: list[tuple[str, list[str]]]
    curves: list[tuple[str, Markup, str]]
    segments: list[SegmentView]
    how: str


def model_page(
    bundle: ModelBundle,
    evaluation: Evaluation | None = None,
    manifest: DatasetManifest | None = None,
    decision: Decision | None = None,
) -> str:
    """Return the card of a model as one file of HTML; it opens no file.

    Args:
        bundle: the model.
        evaluation: evidence on a test split; without it the page says that there is none.
        manifest: the dataset it learned from, for what the data were.
        decision: what the gate said.
    """
    evidence = _evidence(evaluation.report) if evaluation else None
    return render(
        "model.html.j2",
        title=bundle.ref,
        sections=_sections(evidence),
        bundle=bundle,
        evaluation=evaluation,
        decision=decision,
        tone=_TONES[decision.kind] if decision else "",
        evidence=evidence,
        stopped=_stopped(bundle),
        card=_card(bundle, evaluation, manifest),
        training=_training(bundle, manifest),
        importance=_importance(bundle),
        leak=leak_told(bundle),
        most_important=MOST_IMPORTANT,
        origin=_origin(bundle),
    )


def _sections(evidence: _Evidence | None) -> list[tuple[str, str]]:
    shown = [("card", "Card"), ("figures", "Figures")]
    if evidence and (evidence.matrix or evidence.reliability or evidence.curves):
        shown.append(("errors", "Errors"))
    if evidence and evidence.segments:
        shown.append(("segments", "Segments"))
    return [*shown, ("training", "Training"), ("features", "Features"), ("origin", "Origin")]


def _evidence(report: EvalReport) -> _Evidence:
    lines = [_figure_line(figure, report.metric) for figure in report.figures]
    classes = report.classes or tuple(str(place) for place in range(len(report.confusion)))
    is_drawn = 0 < len(report.confusion) <= MAX_CLASSES
    return _Evidence(
        main=_figure_line(report.figure(report.metric), report.metric),
        figures=lines,
        charts=_figure_charts(report),
        confusion=confusion_chart(classes, report.confusion) if is_drawn else None,
        matrix=[
            (name, [count(n) for n in cells])
            for name, cells in zip(classes, report.confusion, strict=bool(report.confusion))
        ],
        classes=classes,
        reliability=reliability_chart(report.reliability) if report.reliability else None,
        bins=_bins(report),
        curves=_curves(report),
        segments=_segments(report),
        how=_how(report),
    )


def _figure_line(figure: Figure, main: str) -> FigureLine:
    return FigureLine(
        name=figure.name,
        value=fixed(figure.value, 4),
        interval=_interval(figure),
        better=_BETTER[METRICS[figure.name].direction] if figure.name in METRICS else UNKNOWN,
        is_main=figure.name == main,
    )


def _interval(figure: Figure, decimals: int = 4) -> str:
    if figure.low is None or figure.high is None:
        return UNKNOWN
    return f"{fixed(figure.low, decimals)} to {fixed(figure.high, decimals)}"


def _figure_charts(report: EvalReport) -> list[tuple[str, Markup]]:
    """Return one chart for each scale; figures on a scale of their own are in the table alone."""
    known = [figure for figure in report.figures if figure.value is not None]
    units = [figure for figure in known if figure.name in _IN_UNITS]
    parts = [f for f in known if f.name not in _IN_UNITS and f.name not in _UNBOUNDED]
    charts = []
    if parts:
        chart = interval_chart("Figures from 0 to 1", _spans(parts), limits=(0.0, 1.0))
        charts.append(("Figures from 0 to 1", chart))
    if units:
        title = "Figures in the label's unit"
        charts.append((title, interval_chart(title, _spans(units))))
    return charts


def _spans(figures: Sequence[Figure]) -> list[Span]:
    return [Span(f.name, f.value, f.low, f.high) for f in figures if f.value is not None]


def _bins(report: EvalReport) -> list[tuple[str, list[str]]]:
    return [
        (
            f"{found.start:.1f} to {found.end:.1f}",
            [count(found.rows), fixed(found.mean_score), fixed(found.observed)],
        )
        for found in report.reliability
    ]


def _curves(report: EvalReport) -> list[tuple[str, Markup, str]]:
    """Return name, chart and caption of each curve that the report has points of."""
    curves = []
    if report.curve:
        (tn, fp), (fn, tp) = report.confusion
        recall, false, base = tp / (fn + tp), fp / (tn + fp), (fn + tp) / report.rows
        held = (recall, tp / (tp + fp)) if tp + fp else None
        dot = "the dot is the model's threshold."
        text = f"Recall against the false positive rate; the dashes are chance, {dot}"
        curves.append(("ROC curve", roc_chart(report.curve, (false, recall)), text))
        text = f"Precision against recall; the dashes are the share of positive rows, {dot}"
        chart = precision_chart(report.curve, held, base)
        curves.append(("Precision and recall", chart, text))
    if report.actual:
        text = (
            "The label's median by prediction, and where 80 % of the labels lie; on the diagonal "
            "a prediction means what it says."
        )
        curves.append(("Predicted and actual", actual_chart(report.actual), text))
    return curves


def _segments(report: EvalReport) -> list[SegmentView]:
    columns: dict[str, list[Segment]] = {}
    for segment in report.segments:
        columns.setdefault(segment.column, []).append(segment)
    return [_segment_view(name, found, report) for name, found in columns.items()]


def _segment_view(name: str, segments: list[Segment], report: EvalReport) -> SegmentView:
    main, others = report.metric, [f.name for f in report.figures if f.name != report.metric]
    spans, lines = [], []
    for segment in segments:
        figures = {figure.name: figure for figure in segment.figures}
        judged = figures[main]
        if judged.value is not None:
            spans.append(Span(segment.level, judged.value, judged.low, judged.high))
        cells = [count(segment.rows)]
        if report.positives is not None:
            cells.append(share(segment.positives, segment.rows))
        cells += [fixed(judged.value), _interval(judged, 3)]
        cells += [fixed(figures[other].value) if other in figures else UNKNOWN for other in others]
        lines.append((segment.level, cells))
    positive = ("positive",) if report.positives is not None else ()
    overall = report.figure(main).value
    return SegmentView(
        column=name,
        chart=interval_chart(f"{main} by {name}", spans, overall=overall) if spans else None,
        head=("rows", *positive, main, "interval", *others),
        lines=lines,
    )


def _how(report: EvalReport) -> str:
    return " ".join(filter(None, (_intervals(report), _constant(report))))


def _constant(report: EvalReport) -> str:
    if report.constant is None:
        return ""
    no_better = " This model is no better." if report.is_no_better_than_constant else ""
    return (
        f"One prediction for every row has {report.metric} {fixed(report.constant, 4)}.{no_better}"
    )


def _intervals(report: EvalReport) -> str:
    if not report.resamples:
        return "Intervals were not computed."
    stood = f", which {count(report.condensed_to)} cells stood for" if report.condensed_to else ""
    return (
        f"95 % intervals by bootstrap: {count(report.resamples)} resamples of "
        f"{count(report.rows)} rows{stood}, seed {report.seed}."
    )


def _card(
    bundle: ModelBundle, evaluation: Evaluation | None, manifest: DatasetManifest | None
) -> Facts:
    """Return the facts of a model card, each known and none guessed."""
    facts = [("What it gives", _outputs(bundle))]
    if bundle.threshold is not None:
        text = f"class 1 from a score of {number(bundle.threshold, 6)}, chosen on the valid split"
        facts.append(("Threshold", text))
    rounds = (f"{count(bundle.rounds)} rounds", _stopped(bundle))
    facts.append(("Model", ", ".join(filter(None, (bundle.trainer, *rounds)))))
    facts.append(("Learned from", _data(bundle, manifest)))
    if manifest is not None:
        facts.append(("Label", manifest.label))
        if period := manifest.proof.bounds.get("train"):
            facts.append(("Period", f"{moment(period[0])} to {moment(period[1])}"))
        left_out = f"{count(manifest.ledger.quarantined)} rows in quarantine were not learned from"
        facts.append(("Left out", left_out))
    if evaluation is not None:
        facts.append(("Judged on", _judged(evaluation)))
    facts.append(("Made", moment(bundle.lineage.made_at)))
    return facts


def _outputs(bundle: ModelBundle) -> str:
    if bundle.task == "regression":
        return "a number"
    is_binary = bundle.task == "binary"
    each = f"for each of {count(len(bundle.plan.classes))} classes"
    if bundle.weighting is not None:
        return (
            f"a score from 0 to 1 {'for class 1' if is_binary else each}; it orders rows, but is "
            f"no probability of the data as it is: training weighted the classes "
            f"({bundle.weighting})"
        )
    return "the probability of class 1" if is_binary else f"a probability {each}"


def _data(bundle: ModelBundle, manifest: DatasetManifest | None) -> str:
    found = bundle.dataset
    if manifest is not None:
        found += f": {count(manifest.rows.get('train'))} rows of the train split"
    if bundle.transfer is not None:
        found += f"; it started from {bundle.transfer.model}, and what that had learned"
    return found


def _judged(evaluation: Evaluation) -> str:
    report = evaluation.report
    return (
        f"{evaluation.dataset}: {count(report.rows)} rows of the {report.split} split, "
        f"opening {count(evaluation.opening)}"
    )


def _training(bundle: ModelBundle, manifest: DatasetManifest | None) -> Facts:
    rows = manifest.rows if manifest is not None else {}
    metrics = [
        (f"{bundle.metric}, {split}", fixed(v, 4) + measured_part(split, rows))
        for split, v in bundle.train_metrics.items()
    ]
    if bundle.cross_validation is not None:
        metrics.append((f"{bundle.metric}, cross-validation", str(bundle.cross_validation)))
    if bundle.transfer is not None:
        metrics.append((f"{bundle.metric}, what the start was worth", str(bundle.transfer)))
        start = bundle.transfer
        metrics.append((f"rows shown to be new to {start.model}", start.shown_new))
    if bundle.search is not None:
        metrics.append(("parameters from", str(bundle.search)))
    asked = {}
    if bundle.settings is not None:
        asked = bundle.settings.model_dump(exclude={"init", "params_after"})
        asked |= bundle.settings.changes
    init = bundle.settings.init if bundle.settings else None
    asked |= {f"init.{name}": value for name, value in (init.model_dump() if init else {}).items()}
    settings = [
        (f"train.{name}", "none" if value is None else str(value)) for name, value in asked.items()
    ]
    return [*metrics, *settings, *((name, str(value)) for name, value in bundle.params.items())]


def _stopped(bundle: ModelBundle) -> str:
    """Say how many rounds there could have been, where early stopping chose how many to keep."""
    if bundle.settings is None or bundle.settings.early_stopping is None:
        return ""
    asked = bundle.settings.rounds + (bundle.transfer.rounds if bundle.transfer else 0)
    if bundle.rounds >= asked:
        return "all that were asked for"
    return f"of at most {count(asked)} with early stopping"


def _importance(bundle: ModelBundle) -> Markup | None:
    """Return the chart of the features that are used most; None when there is none."""
    names = [feature.name for feature in bundle.plan.features]
    ranked = sorted(zip(bundle.importance, names, strict=False), key=lambda item: -item[0])
    bars = [Bar(name, {"train": part}) for part, name in ranked[:MOST_IMPORTANT] if part > 0]
    return ranking_chart("What it uses", bars, as_share=True) if bars else None


def _origin(bundle: ModelBundle) -> Facts:
    lineage = bundle.lineage
    return [
        ("key", bundle.key),
        ("model", bundle.model_digest),
        ("plan", bundle.plan.digest),
        ("dataset", bundle.dataset_digest),
        ("spec", lineage.spec_digest),
        ("code", lineage.code_digest),
        *((f"input {name}", digest) for name, digest in lineage.inputs.items()),
        *((f"file {file.path}", file.sha256) for file in bundle.files),
        ("python", lineage.python),
        *lineage.libraries.items(),
    ]
