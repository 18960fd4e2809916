"""Batch scoring: raw Parquet in, a Parquet folder out, all of it or nothing.

Three bounded stages work at once, each in C with Python's lock released: a thread reads, this one
predicts, a thread writes.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from arclight.catalog import now
from arclight.contract import Contract
from arclight.disk import making
from arclight.errors import (
    IntegrityError,
    MissingError,
    RefusedError,
    SpecError,
    printable,
)
from arclight.failpoint import reach
from arclight.output import made_beside, take_name
from arclight.store import open_private
from ray_apps.pipeline import WriteBehind, read_ahead
from ray_apps.predictor import load_predictor
from ray_apps.rows import conform
from ray_apps.score_input import open_raw_rows
from ray_apps.score_output import REJECTED, PartWriter, ScoreColumns, ScoredFile, reasons_of
from ray_apps.unusual import Unusual, Watch, add_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.bundle import ModelBundle
    from arclight.catalog import Catalog
    from arclight.progress import Tick
    from ray_apps.predictor import Predictor
    from ray_apps.score_input import RawRows

# readers of Parquet folders pass over names that begin with `_`
MANIFEST = "_manifest.json"


class ScoreResult(Contract):
    """What a scoring did; stored as `_manifest.json` beside the scores."""

    kind: ClassVar[str] = "score-manifest"

    model: str
    model_digest: str
    source: str
    rows_in: int
    rows_scored: int
    rows_rejected: int
    reasons: dict[str, int]
    """Reason -> rows it holds for; a row may have several."""
    unusual: Unusual = {}
    """Feature -> `missing`, `unseen` in training or `far` from it -> rows scored all the same."""
    files: tuple[ScoredFile, ...]
    rejected: tuple[ScoredFile, ...]
    made_at: str


def score_folder(  # noqa: PLR0913 -- model, input, output, and how, by keyword
    catalog: Catalog,
    bundle: ModelBundle,
    source: Path,
    output: Path,
    *,
    threads: int,
    tick: Tick,
    keep: Sequence[str] | None = None,
) -> ScoreResult:
    """Score a Parquet file or folder of raw rows into a new folder.

    The folder appears once, whole: scores under `part-*.parquet`, rows that cannot be scored with
    their reasons under `_rejected/`, and `_manifest.json`. Every row is in one of the two.

    Args:
        catalog: where the model is.
        bundle: the model; one version throughout, stamped on every row.
        source: a file or folder; columns the model does not take are ignored.
        output: the folder to make; may exist if it is empty.
        threads: of every prediction.
        tick: told about the rows done.
        keep: columns to keep beside the scores; None keeps the dataset's key columns.

    Raises:
        RefusedError: the output is there already.
        SpecError: it cannot be made where it shall be.
        MissingError: `keep` is None, and the model's dataset is not in the store.
        SchemaError: the input lacks columns or has other types, all named, before any is read;
            or it lacks a key column and `keep` is None.
        DataError: a file cannot be read, or the model gives no number.
        ConflictError: somebody else made the output meanwhile.
    """
    with making(output):
        _refuse_output(output, source)
        if output.is_symlink():  # a folder cannot take the place of a link
            output = Path(os.path.realpath(output))
    keys = _keys(catalog, bundle) if keep is None else ()
    raw = open_raw_rows(source, bundle.plan.layout.input_schema, keep=keep, keys=keys)
    columns = ScoreColumns(bundle, raw.kept)
    predictor = load_predictor(catalog, bundle, threads=threads)
    pa.set_cpu_count(max(1, threads))
    with made_beside(output) as work:
        with _Run(predictor, raw, columns, work) as run:
            run.score(tick)
            result = run.result(source)
        with open_private(work / MANIFEST) as stream:
            stream.write(result.to_json().encode())
        reach("scores.before-rename")
        take_name(work, output)
    return result


class _Run:
    """One scoring into a private folder."""

    def __init__(
        self, predictor: Predictor, raw: RawRows, columns: ScoreColumns, work: Path
    ) -> None:
        self._predictor, self._raw, self._columns = predictor, raw, columns
        self._scored = PartWriter(work, columns.schema)
        self._rejected = PartWriter(work, columns.rejected_schema, REJECTED)
        self._reasons: Counter[str] = Counter()
        self._watch = Watch(predictor.bundle.plan)
        self._unusual: Unusual = {}
        self._rows = 0

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._scored.close()
        self._rejected.close()

    def score(self, tick: Tick) -> None:
        """Read, predict and write every row."""
        with (
            contextlib.closing(read_ahead(self._raw.batches())) as batches,
            WriteBehind(self._scored.write) as out,
        ):
            for file, first, batch in batches:
                kept = batch.select(self._raw.kept.names)
                row = conform(batch, self._raw.inputs, where=f"'{printable(file)}'")
                found = self._predictor.predict(row)
                bad = found.is_rejected
                scores, matrix = found.scores, found.matrix
                if bad.any():
                    places = np.flatnonzero(bad)
                    self._reasons.update(
                        {name: int(mask.sum()) for name, mask in found.rejected.items()}
                    )
                    side = kept.take(pa.array(places))
                    why = reasons_of(found, places)
                    self._rejected.write(self._columns.rejected(side, (file, places + first), why))
                    kept, scores = kept.filter(pa.array(~bad)), scores[~bad]
                    matrix = matrix[~bad]
                add_up(self._unusual, self._watch.count(matrix))
                out.put(self._columns.scored(kept, scores))
                self._rows += batch.num_rows
                tick(self._rows, self._raw.rows, "rows")

    def result(self, source: Path) -> ScoreResult:
        """Close the files and account for every row.

        Raises:
            IntegrityError: rows are missing or came from nowhere.
        """
        bundle = self._predictor.bundle
        scored = self._scored.finish(is_needed=True)
        rejected = self._rejected.finish(is_needed=False)
        rows_scored = sum(file.rows for file in scored)
        rows_rejected = sum(file.rows for file in rejected)
        if not self._raw.rows == self._rows == rows_scored + rows_rejected:
            raise IntegrityError(
                f"every row of '{printable(source)}' must be scored or rejected, but of "
                f"{self._raw.rows:,} rows {self._rows:,} were read, {rows_scored:,} scored and "
                f"{rows_rejected:,} rejected; nothing was written: run again."
            )
        return ScoreResult(
            model=bundle.ref,
            model_digest=bundle.model_digest,
            source=str(source),
            rows_in=self._rows,
            rows_scored=rows_scored,
            rows_rejected=rows_rejected,
            reasons={name: n for name, n in sorted(self._reasons.items()) if n},
            unusual=self._unusual,
            files=scored,
            rejected=rejected,
            made_at=now(),
        )


def _keys(catalog: Catalog, bundle: ModelBundle) -> tuple[str, ...]:
    """Return the key columns of the model's dataset.

    Raises:
        MissingError: it is gone.
    """
    try:
        return catalog.dataset(bundle.dataset).key_columns
    except MissingError as error:
        raise MissingError(
            f"dataset '{bundle.dataset}' of model '{bundle.ref}' must be in the store, since it "
            "says which key columns stand beside each score, but is not; name the columns with "
            "--keep, or restore its record."
        ) from error


def _refuse_output(output: Path, source: Path) -> None:
    inside, folder = Path(os.path.realpath(output)), Path(os.path.realpath(source))
    if (
        source.is_dir()
        and inside.is_relative_to(folder)
        and not any(part.startswith((".", "_")) for part in inside.relative_to(folder).parts)
    ):
        raise SpecError(
            f"output '{printable(output)}' must not lie in the input '{printable(source)}', whose "
            "rows it would be the next time; give a folder outside it, or one whose name begins "
            "with '_'."
        )
    if inside.is_mount() or inside == Path.cwd():
        raise SpecError(
            f"output '{printable(output)}' must take its name when it is whole, which "
            "neither a mounted disk can nor the folder that you are in; give a folder inside it."
        )
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise RefusedError(
            f"output '{printable(output)}' must be a new or empty folder; nothing is overwritten: "
            "give another, or remove it."
        )
