"""One served model: the bytes of a request in, the bytes of its answer out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from arclight.errors import DataError, RefusedError
from ray_apps.serving.arrow_stream import ARROW_STREAM, decode_stream, encode_stream
from ray_apps.serving.problem import Problem
from ray_apps.serving.protocol import Outcome, RowDecoder, outcome, predictions, refuse_rejected
from ray_apps.serving.tensors import decode_tensors, encode_tensors
from ray_apps.unusual import Unusual, Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from arclight.bundle import ModelBundle
    from arclight.plan import Matrix

JSON = b"application/json"


class Scores(Protocol):
    """What a predictor answers."""

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """One a row, or one a row and class."""

    @property
    def rejected(self) -> Mapping[str, npt.NDArray[np.bool_]]:
        """Reason -> rows that have no score."""

    @property
    def matrix(self) -> Matrix:
        """The encoded features, [rows, features]."""


class Scorer(Protocol):
    """What serving needs of a predictor."""

    @property
    def bundle(self) -> ModelBundle:
        """The model."""

    @property
    def input_schema(self) -> pa.Schema:
        """The raw columns."""

    def predict(self, raw: pa.RecordBatch) -> Scores:
        """Score raw rows; called from several threads at once.

        Raises:
            DataError: a row's score is not a finite number.
        """


@dataclass(frozen=True)
class Reply:
    """An answer's type and bytes."""

    content_type: bytes
    body: bytes


class Endpoint:
    """A loaded model behind the three forms of a request."""

    def __init__(self, scorer: Scorer, *, max_rows: int) -> None:
        self.bundle = scorer.bundle
        self._scorer = scorer
        self._max_rows = max_rows
        self._watch = Watch(self.bundle.plan)
        self._decoder = RowDecoder(self.bundle.signature.inputs, max_rows=max_rows)

    def answer_rows(self, body: bytes, request_id: str) -> Reply:
        """Answer `{"rows": [...]}`.

        Raises:
            Problem: the request or the model's score is refused.
        """
        found, unusual = self._score(self._decoder.decode(body))
        answer: dict[str, Any] = {
            "model": self.bundle.name,
            "version": self.bundle.number,
            "request_id": request_id,
            "predictions": predictions(self.bundle, found),
        }
        if unusual:
            answer["unusual"] = unusual
        return self._json(answer)

    def answer_stream(self, body: bytes, request_id: str) -> Reply:
        """Answer an Arrow stream with another.

        Raises:
            Problem: the request or the model's score is refused.
        """
        batch = decode_stream(body, self._scorer.input_schema, max_rows=self._max_rows)
        found, unusual = self._score(batch)
        about = {
            "model": self.bundle.name,
            "version": str(self.bundle.number),
            "request_id": request_id,
        }
        if unusual:
            about["unusual"] = orjson.dumps(unusual).decode()
        return Reply(ARROW_STREAM, encode_stream(found, about))

    def answer_tensors(self, body: bytes, request_id: str) -> Reply:
        """Answer an Open Inference request.

        Raises:
            Problem: the request or the model's score is refused.
        """
        batch, asked = decode_tensors(body, self.bundle.signature.inputs, self._decoder)
        found, unusual = self._score(batch)
        answer = encode_tensors(self.bundle, found, request_id=request_id, asked=asked)
        if unusual:
            # a parameter of this protocol is a plain value
            answer["parameters"] = {"unusual": orjson.dumps(unusual).decode()}
        return self._json(answer)

    def warm_up(self) -> None:
        """Answer the golden rows once through the whole path, so that no caller waits for it.

        Raises:
            RefusedError: the model does not answer its own golden rows.
        """
        rows = self.bundle.golden.rows[: self._max_rows]
        if not rows:
            return
        try:
            self.answer_rows(orjson.dumps({"rows": rows}), "warm-up")
        except Problem as problem:
            raise RefusedError(
                f"model '{self.bundle.ref}' must answer its golden rows, but: {problem.detail} "
                f"{problem.errors[:1]}; train it again."
            ) from problem

    def _score(self, batch: pa.RecordBatch) -> tuple[Outcome, Unusual]:
        text = (
            f"Model '{self.bundle.ref}' gave a score that is not a finite number; "
            "roll back to the version before."
        )
        try:
            found = self._scorer.predict(batch)
        except DataError as error:
            raise Problem("not-finite", text) from error
        refuse_rejected(found.rejected)
        if not np.isfinite(found.scores).all():
            raise Problem("not-finite", text)
        return outcome(self.bundle, found.scores), self._watch.count(found.matrix)

    @staticmethod
    def _json(document: dict[str, Any]) -> Reply:
        return Reply(JSON, orjson.dumps(document))
