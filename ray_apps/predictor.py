"""Bundle -> predictions, for batches of raw rows or of stored features; the one way to score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from arclight.errors import DataError, IntegrityError
from arclight.features import FeatureBuilder
from arclight.plan import Encoder
from arclight.store import check_file
from ray_apps.first_load import load_in_child
from ray_apps.rows import from_json_rows
from ray_apps.trainers import load_trainer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa

    from arclight.bundle import ModelBundle
    from arclight.catalog import Catalog
    from arclight.features import Mask
    from arclight.plan import Matrix
    from ray_apps.trainers import Model

TOLERANCE = 1e-6
# A network's sums are of single precision, in an order that depends on the rows beside.
TOLERANCES = {"torch": 1e-5}
# Extension -> where its first bytes stand, and which they are, of the files a bundle may hold and
# this program may open.
FORMATS: dict[str, tuple[int, tuple[bytes, ...]]] = {
    ".ubj": (0, (b"{L", b"{l", b"{i", b"{I")),
    ".txt": (0, (b"tree\n",)),
    ".safetensors": (8, (b'{"',)),  # after the length of its header
    ".json": (0, (b"{", b"[")),
    ".html": (0, (b"<",)),
    ".md": (0, (b"",)),
}
MODEL_SUFFIXES = {"xgboost": ".ubj", "lightgbm": ".txt", "torch": ".safetensors"}

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Scores of a batch of raw rows.

    Attributes:
        scores: [rows], or [rows, classes] for a multiclass task; NaN for a rejected row.
        rejected: reason -> rows that cannot be scored, such as `derive:speedy`.
        matrix: the encoded features the scores were made from.
    """

    scores: Scores
    rejected: Mapping[str, Mask]
    matrix: Matrix

    @property
    def is_rejected(self) -> Mask:
        """Rows with any reason."""
        found = np.zeros(len(self.scores), dtype=np.bool_)
        for mask in self.rejected.values():
            found |= mask
        return found


class Predictor:
    """Scores rows with one loaded model; safe to call from several threads."""

    def __init__(self, bundle: ModelBundle, model: Model) -> None:
        self.bundle = bundle
        self.input_schema = bundle.plan.layout.input_schema
        self._model = model
        self._builder = FeatureBuilder(bundle.plan.layout)
        self._encoder = Encoder(bundle.plan)

    def predict(self, raw: pa.RecordBatch) -> Predictions:
        """Score raw rows.

        Args:
            raw: has the columns of `input_schema` with its types, in any order.

        Raises:
            DataError: the model gives no finite number for a row that has its features.
        """
        built = self._builder.build(raw)
        matrix = self._encoder.matrix(built.columns)
        scores = self._scores(matrix)
        found = Predictions(scores=scores, rejected=built.rejected, matrix=matrix)
        bad = found.is_rejected
        scores[bad] = np.nan
        _prove_finite(scores, ~bad, self.bundle)
        return found

    def predict_features(self, columns: Mapping[str, pa.Array]) -> Scores:
        """Score stored features, by their names.

        Raises:
            DataError: the model gives no finite number for a row.
        """
        scores = self._scores(self._encoder.matrix(columns))
        _prove_finite(scores, np.ones(len(scores), dtype=np.bool_), self.bundle)
        return scores

    def _scores(self, matrix: Matrix) -> Scores:
        if len(matrix):
            return self._model.predict(matrix)
        classes = len(self.bundle.plan.classes)
        return np.empty((0, classes) if self.bundle.task == "multiclass" else 0)


_LOADED_ONCE: set[tuple[str, str]] = set()
"""(trainer, SHA-256) of the files whose first load a child of this process has survived."""


def load_predictor(catalog: Catalog, bundle: ModelBundle, *, threads: int) -> Predictor:
    """Load a published model.

    If the catalog trusts certain keys, one of them must have signed the record. Every file is
    checked by name, size, hash and first bytes before anything parses it; the first load happens
    in a process of its own; the golden rows must come out as at training.

    Args:
        catalog: where the bundle is.
        bundle: the model's record.
        threads: of every prediction.

    Raises:
        RefusedError: no trusted key signed this record.
        IntegrityError: a check says that this is not the model that was published.
    """
    if catalog.trust is not None:
        catalog.trust.check(bundle, catalog.signatures(bundle))
    folder = catalog.folder(bundle)
    check_bundle_files(folder, bundle)
    path = folder / bundle.model_file
    golden = _golden_matrix(bundle)
    bytes_of = {file.path: file.sha256 for file in bundle.files}  # checked just now
    known = (bundle.trainer, bytes_of[bundle.model_file])
    if known not in _LOADED_ONCE:
        seen = load_in_child(bundle.trainer, path, golden)
        _prove_shape(bundle, features=seen.features, rounds=seen.rounds)
        _prove_golden(bundle, seen.scores)
        _LOADED_ONCE.add(known)
    model = load_trainer(bundle.trainer).load(path, threads=threads)
    _prove_shape(bundle, features=model.features, rounds=model.rounds)
    _prove_golden(bundle, model.predict(golden) if len(golden) else np.empty(0))
    return Predictor(bundle, model)


def tolerance_of(bundle: ModelBundle, scores: Scores) -> float:
    """Return how far two ways to the same scores may be apart.

    Never more than 1e-6 for trees; of a regression in a small unit, no more than that part of the
    largest scores. A network's error is a part of those, whichever row it shows in.
    """
    most = float(np.abs(scores).max(initial=0.0)) if bundle.task == "regression" else 1.0
    if bundle.trainer in TOLERANCES:
        return TOLERANCES[bundle.trainer] * most
    return TOLERANCE * min(1.0, most)


def check_bundle_files(folder: Path, bundle: ModelBundle) -> None:
    """Check a bundle's files before any of them is parsed.

    Raises:
        IntegrityError: a format is not one of ours, a file lies elsewhere, or bytes differ.
    """
    if bundle.model_file not in [file.path for file in bundle.files]:
        raise IntegrityError(
            f"model '{bundle.ref}' must list its model file '{bundle.model_file}' among its "
            "files; publish a new version."
        )
    wanted = MODEL_SUFFIXES.get(bundle.trainer)
    if PurePosixPath(bundle.model_file).suffix != wanted:
        raise IntegrityError(
            f"the model file of '{bundle.ref}' must end in {wanted} for {bundle.trainer}, got "
            f"'{bundle.model_file}'; publish a new version."
        )
    for file in bundle.files:
        path = folder / file.path
        if not path.resolve().is_relative_to(folder.resolve()):
            raise IntegrityError(
                f"'{path}' must lie in its model's folder, but is a link that leads out of it; it "
                "is not opened: publish a new version."
            )
        check_file(path, size_bytes=file.size_bytes, sha256=file.sha256)
        _check_format(path)


def _check_format(path: Path) -> None:
    """Refuse anything that is not one of our formats by its name and by its first bytes."""
    known = FORMATS.get(path.suffix)
    if known is None:
        raise IntegrityError(
            f"'{path}' must be one of {', '.join(FORMATS)}; pickle, joblib, torch's own and other "
            "formats that can run code are not opened."
        )
    with path.open("rb") as stream:
        head = stream.read(16)
    at, starts = known
    if not head[at:].startswith(starts):
        raise IntegrityError(
            f"'{path}' must begin like a {path.suffix} file, but it begins with {head[:8]!r}; it "
            "is not opened: publish a new version."
        )


def _golden_matrix(bundle: ModelBundle) -> Matrix:
    if not bundle.golden.rows:
        return np.empty((0, len(bundle.plan.features)), dtype=np.float32)
    raw = from_json_rows(bundle.golden.rows, bundle.plan.layout.inputs)
    built = FeatureBuilder(bundle.plan.layout).build(raw)
    return Encoder(bundle.plan).matrix(built.columns)


def _prove_shape(bundle: ModelBundle, *, features: int, rounds: int) -> None:
    wanted = (len(bundle.plan.features), bundle.rounds)
    if (features, rounds) != wanted:
        raise IntegrityError(
            f"the model file of '{bundle.ref}' must have {wanted[0]} features and {wanted[1]} "
            f"rounds as recorded, got {features} and {rounds}; train again."
        )


def _prove_golden(bundle: ModelBundle, scores: Scores) -> None:
    if not bundle.golden.rows:
        return
    wanted = np.asarray(bundle.golden.scores, dtype=np.float64)
    near = tolerance_of(bundle, wanted)
    found = scores.reshape(len(scores), -1)
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=TOLERANCE, atol=near):
        gap = float(np.max(np.abs(found - wanted))) if found.shape == wanted.shape else None
        raise IntegrityError(
            f"model '{bundle.ref}' must repeat the scores of its golden rows within {near:.3g}, "
            f"but differs by {gap}; the library or the code changed: train again."
        )


def _prove_finite(scores: Scores, wanted: Mask, bundle: ModelBundle) -> None:
    numbers = scores if scores.ndim == 1 else scores.sum(axis=1)
    finite = np.isfinite(numbers)
    bad = int(np.count_nonzero(wanted & ~finite))
    if bad:
        raise DataError(
            f"model '{bundle.ref}' must give a finite number for every row, but {bad:,} of "
            f"{len(scores):,} are not; the model diverged: train again."
        )
