"""ModelBundle: a model as it is stored, and everything needed to trust and use it."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from arclight.contract import Contract, InnerPath, digest_of
from arclight.folds import FoldRule
from arclight.lineage import Lineage
from arclight.metrics import METRICS
from arclight.plan import FeaturePlan
from arclight.report import EvalReport
from arclight.schema import Column
from arclight.spec_field import Params
from arclight.train_section import Init

if TYPE_CHECKING:
    from collections.abc import Mapping

WEIGHING: dict[str, float | bool] = {
    "scale_pos_weight": 1,
    "is_unbalance": False,
    "pos_bagging_fraction": 1,
    "neg_bagging_fraction": 1,
}
"""Parameters of the libraries that make classes weigh otherwise, and their values that do not."""

MEASURED_TRAIN_ROWS = 100_000
"""Rows of train that a model is measured on at most, drawn by chance."""


def measured_part(split: str, rows: Mapping[str, int]) -> str:
    """Say how many rows a figure of `train_metrics` is of; nothing where it is of the whole split.

    Args:
        split: `train` or `valid`.
        rows: split -> how many it has, of the dataset that the model learned from.
    """
    is_part = split == "train" and rows.get(split, 0) > MEASURED_TRAIN_ROWS
    return f" (of {MEASURED_TRAIN_ROWS:,} rows)" if is_part else ""


class BundleFile(Contract):
    """One file of a bundle."""

    path: InnerPath
    """Relative to the bundle's folder."""
    size_bytes: int
    sha256: str


class Signature(Contract):
    """What a model takes and gives."""

    inputs: tuple[Column, ...]
    outputs: tuple[Column, ...]


class GoldenRows(Contract):
    """Raw rows and the scores the new model gave them; a loaded model must repeat them."""

    rows: tuple[dict[str, str | int | float | bool | None], ...]
    scores: tuple[tuple[float, ...], ...]


class TrainSettings(Contract):
    """What a spec asked of a training, beside the library's own parameters."""

    rounds: int
    """At most; the bundle has those that were kept."""
    early_stopping: int | None
    imbalance: Literal["none", "weight", "downsample", "upsample"]
    seed: int
    params: Params | None = None
    """As the spec has them; None, as the next five, in a record of an older release."""
    init: Init | None = None
    """What it started from, by its number; None: from scratch."""
    costs: dict[str, float] | None = None
    """Of a false positive and a false negative, if the threshold was chosen by them."""
    workers: int | None = None
    threads: int | None = None
    """Of each worker."""
    device: Literal["cuda"] | None = None
    """None: cores."""
    bins: Literal["disk"] | None = None
    """None: in memory."""
    params_after: dict[int, Params] | None = None
    """Rounds -> parameters that were others once these were done; None: they never changed."""
    processor: str | None = None
    """Whose kernels a library may have chosen: other ones may round in another way."""

    @property
    def changes(self) -> dict[str, str]:
        """What changed on the way, for people: `params_after.ROUNDS` -> names and values."""
        return {
            f"params_after.{after}": ", ".join(f"{name} {value}" for name, value in own.items())
            for after, own in (self.params_after or {}).items()
        }

    @model_serializer(mode="wrap")
    def _as_it_was_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the record has not, so that the signature of an old one holds."""
        body: dict[str, Any] = handler(self)
        return {name: v for name, v in body.items() if v is not None or name == "early_stopping"}


class Resumed(Contract):
    """A point where a training went on after its processes were gone."""

    rounds: int
    """That were there then, in a checkpoint."""
    workers: int
    """That went on."""
    exact: bool
    """Whether the model has the bytes that it would have without the loss."""


class FoldFigure(Contract):
    """One fold of a cross-validation."""

    learned: int
    """Rows it was trained on."""
    judged: int
    """Rows it had not seen."""
    value: float | None
    """The metric on those; None where it is undefined or the training diverged."""
    reason: str = ""
    """Why there is none."""


class CrossValidation(Contract):
    """The same training on parts of train, judged on rows of train that were kept back."""

    rule: FoldRule
    folds: tuple[FoldFigure, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The figures of the folds that have one."""
        return tuple(fold.value for fold in self.folds if fold.value is not None)

    def __str__(self) -> str:
        """Say it in a few words: mean, standard deviation of a sample, and range."""
        values, count = self.values, len(self.folds)
        of = f"{count} folds" if len(values) == count else f"{len(values)} of {count} folds"
        if len(values) < 2:
            return f"a figure of {of} by {self.rule.by}"
        return (
            f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f} over {of} by "
            f"{self.rule.by} ({min(values):.4f} to {max(values):.4f})"
        )


class Transfer(Contract):
    """What it was worth to start from a registered model, by the metric on valid."""

    metric: str
    model: str
    """NAME@N of the model it started from."""
    model_digest: str
    rounds: int
    """Of that model; they are the first ones of this model."""
    is_valid_new: bool
    """Whether the splits show that no row of valid was used for that model or one before it."""
    is_test_new: bool
    """The same of test."""
    weighting: str | None = None
    """The setting whose weights of classes that model's scores have."""
    before: float | None
    """The figure of that model as it was; None when its last layer was not kept."""
    tuned: float | None
    """The figure of this model."""
    scratch: float | None = None
    """The figure of the same training from scratch; None when it was not asked for, or failed."""
    scratch_rounds: int | None = None
    """That it kept."""
    scratch_reason: str = ""
    """Why it has no figure though it was asked for."""
    gain: tuple[float, float] | None = None
    """95% interval of this model's figure less that of the one from scratch."""

    @property
    def shown_new(self) -> str:
        """Which rows are shown to be new to that model."""
        shown = {"valid": self.is_valid_new, "test": self.is_test_new}
        return " and ".join(name for name, is_new in shown.items() if is_new) or "none"

    @property
    def is_negative(self) -> bool:
        """Whether training from scratch is better, beyond chance."""
        if self.gain is None:
            return False
        low, high = self.gain
        return high < 0 if METRICS[self.metric].higher_is_better else low > 0

    def __str__(self) -> str:
        """Say it in a sentence without its end."""
        said = f"{_figure(self.tuned)} after starting from {self.model}"
        if self.before is not None:
            said += f" ({_figure(self.before)} as it was)"
        if self.scratch_reason:
            return f"{said}; from scratch there is no figure: {self.scratch_reason}"
        if self.scratch is None:
            return said
        kept = "" if self.scratch_rounds is None else f" ({self.scratch_rounds:,} rounds)"
        said += f", {_figure(self.scratch)} from scratch{kept}"
        if self.gain is None:
            return said
        low, high = self.gain
        verdict = "negative transfer: " if self.is_negative else ""
        return f"{said}; {verdict}difference {low:+.4f} to {high:+.4f} (95%)"


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


class SearchResult(Contract):
    """The best trial of a search, whose parameters a model was trained with."""

    study: str
    """NAME@N."""
    trial: int
    value: float
    """Of the metric on valid, or the mean of it over folds of train."""
    params: Params
    params_after: dict[int, Params] | None = None
    """Rounds -> what it took over then, and what changed of it; None: they never changed."""
    trials: int
    """That ended."""
    stopped: int
    failed: int
    folds: int | None = None
    """Of train, that trials were judged on; None: on valid."""

    def __str__(self) -> str:
        """Say it in a few words."""
        where = f"the mean of {self.folds} folds" if self.folds else "on valid"
        return (
            f"trial {self.trial} of {self.trials:,} in study {self.study} ({self.stopped:,} "
            f"stopped early, {self.failed:,} failed), {self.value:.4f} {where}"
        )

    @model_serializer(mode="wrap")
    def _as_it_was_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the record has not, so that the signature of an old one holds."""
        body: dict[str, Any] = handler(self)
        return {name: v for name, v in body.items() if v is not None}


class ModelBundle(Contract):
    """One version of a model."""

    kind: ClassVar[str] = "model-bundle"

    name: str
    number: int
    key: str
    """Digest of the dataset, the train section and the code: the same key, the same model."""
    folder: InnerPath
    """The files' folder, relative to the store."""
    task: Literal["binary", "multiclass", "regression"]
    trainer: Literal["xgboost", "lightgbm", "torch"]
    model_file: InnerPath
    files: tuple[BundleFile, ...]
    plan: FeaturePlan
    signature: Signature
    threshold: float | None
    """Chosen on the valid split; a score at or above it means class 1."""
    rounds: int
    """Trees kept, after early stopping, those of the model it started from included."""
    metric: str
    train_metrics: dict[str, float]
    """`train` and `valid` value of `metric`, as the library gave them at the kept round."""
    importance: tuple[float, ...] = ()
    """Each feature's part of the loss that all splits took away on train, in the plan's order."""
    golden: GoldenRows
    params: Params
    settings: TrainSettings | None = None
    """None in a record of a release that did not keep them."""
    resumed: tuple[Resumed, ...] = ()
    diverged: int | None = None
    """The round after which the metric was no finite number: the training was over, and the model
    is that of the best round before. None: of none."""
    cross_validation: CrossValidation | None = None
    transfer: Transfer | None = None
    """What starting from another model was worth; None for one from scratch."""
    search: SearchResult | None = None
    """Where its parameters come from; None: from the spec."""
    dataset: str
    """NAME@N of the dataset."""
    dataset_digest: str
    lineage: Lineage

    @model_serializer(mode="wrap")
    def _as_it_was_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a field that the record has not, so that the signature of an old one holds."""
        body: dict[str, Any] = handler(self)
        if self.settings is None:
            del body["settings"]
        if not self.resumed:
            del body["resumed"]
        if self.diverged is None:
            del body["diverged"]
        if self.cross_validation is None:
            del body["cross_validation"]
        if self.transfer is None:
            del body["transfer"]
        if self.search is None:
            del body["search"]
        return body

    @property
    def ref(self) -> str:
        """NAME@N."""
        return f"{self.name}@{self.number}"

    @property
    def weighting(self) -> str | None:
        """The setting whose weights of classes the scores still have; None if there is none.

        With one, scores still order rows, but are no probabilities of the data as it is. After
        down- and upsampling they have been put right.
        """
        if self.settings is not None and self.settings.imbalance == "weight":
            return "imbalance: weight"
        set_so = ((name, self.params.get(name, plain), plain) for name, plain in WEIGHING.items())
        own = next((f"{name}: {value}" for name, value, plain in set_so if value != plain), None)
        if own is not None or self.transfer is None or self.transfer.weighting is None:
            return own
        return f"{self.transfer.weighting} of {self.transfer.model}, which it started from"

    @property
    def model_digest(self) -> str:
        """Digest of what the model computes: its file, its plan, its threshold."""
        return digest_of(
            {
                "model": [f.sha256 for f in self.files if f.path == self.model_file],
                "plan": self.plan.digest,
                "threshold": self.threshold,
            }
        )


class ModelSignature(Contract):
    """One key's signature of a version's record; published before the record itself."""

    kind: ClassVar[str] = "model-signature"

    model: str
    """NAME@N."""
    record_sha256: str
    """Of the bytes that were signed; for people, the signature is what counts."""
    key_id: str
    signature: str
    """64 bytes in hexadecimal."""


class Evaluation(Contract):
    """An evaluation of one model on one opening of a test split; published beside the model."""

    kind: ClassVar[str] = "evaluation"

    model: str
    model_digest: str
    dataset: str
    dataset_digest: str
    opening: int
    """Number of the opening of the test split that this evaluation was recorded under."""
    report: EvalReport
    key: str
    made_at: str
    is_test_new: bool | None = None
    """Whether splits or keys show that no row of it was used for the model or one that it came
    from; None in an older record."""
    test_rows_seen: int | None = None
    """Rows of it that were, by their keys; None where that cannot be counted."""

    @property
    def doubt(self) -> str:
        """What speaks against the figures; nothing where the rows are new, or nobody looked."""
        if self.is_test_new is not False:
            return ""
        if not self.test_rows_seen:
            return f"nothing shows that the test rows of {self.dataset} are new to {self.model}"
        return (
            f"{self.test_rows_seen:,} of the {self.report.rows:,} test rows of {self.dataset} are "
            f"among those that {self.model} learned from or was chosen by"
        )
