"""The Open Inference Protocol's JSON tensors: one input of shape [rows] for each column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arclight.errors import printable
from ray_apps.serving.problem import Problem
from ray_apps.serving.protocol import MAX_ERRORS, Hints
from ray_apps.serving.strict_json import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

    from arclight.bundle import ModelBundle
    from arclight.schema import Column
    from ray_apps.serving.protocol import Outcome, RowDecoder

DATATYPES: dict[str, str] = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
    "date": "BYTES",
    "timestamp": "BYTES",
}
_INTEGERS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
_FLOATS = frozenset({"FP32", "FP64"})
_INPUT_FIELDS = frozenset({"name", "shape", "datatype", "data", "parameters"})


def decode_tensors(
    body: bytes, columns: tuple[Column, ...], decoder: RowDecoder
) -> tuple[pa.RecordBatch, str | None]:
    """Return a request's rows and its own id.

    Values are held to the columns' types by the same rules as in rows; a datatype may be wider
    or narrower than the column's, as clients choose it by the data at hand.

    Raises:
        Problem: `not-json`, `fields` or `too-large`.
    """
    document = parse_json(body)
    if type(document) is not dict or type(document.get("inputs")) is not list:
        raise Problem("fields", 'The body must be an object with "inputs", an array.')
    asked = document.get("id")
    if asked is not None and type(asked) is not str:
        raise Problem("fields", '"id" must be a string.')
    by_name = {column.name: column for column in columns}
    hints = Hints(by_name)
    errors: list[dict[str, Any]] = []
    data: dict[str, list[Any]] = {}
    for tensor in document["inputs"]:
        if len(errors) == MAX_ERRORS:
            break
        name, complaint = _check(tensor, by_name, data, hints)
        if complaint is not None:
            errors.append({"row": None, "field": printable(name), "detail": complaint})
        else:
            data[name] = tensor["data"]
    errors.extend(
        {"row": None, "field": name, "detail": "is missing."}
        for name in by_name
        if name not in data and all(error["field"] != name for error in errors)
    )
    if len({len(values) for values in data.values()}) > 1:
        errors.append({"row": None, "field": None, "detail": "inputs must have equal shapes."})
    if errors:
        raise Problem("fields", "Inputs are wrong.", errors=tuple(errors[:MAX_ERRORS]))
    decoder.check_count(max(map(len, data.values()), default=0))
    names = list(data)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*data.values(), strict=True)]
    return decoder.batch(rows), asked


def _check(
    tensor: Any, columns: dict[str, Column], seen: dict[str, list[Any]], hints: Hints
) -> tuple[str, str | None]:
    """Return a tensor's name and what is wrong with it."""
    if type(tensor) is not dict or type(tensor.get("name")) is not str:
        return "inputs", "each must be an object with a name."
    name: str = tensor["name"]
    column = columns.get(name)
    extra = sorted(set(tensor) - _INPUT_FIELDS)
    if column is None:
        return name, f"is not a column of this model.{hints(name)}"
    if name in seen:
        return name, "stands twice."
    if extra:
        return name, f"must not have '{printable(extra[0])}'."
    return name, _check_shape(tensor, DATATYPES[column.type])


def _check_shape(tensor: dict[str, Any], wanted: str) -> str | None:
    given, data, shape = tensor.get("datatype"), tensor.get("data"), tensor.get("shape")
    if type(given) is not str or not _fits(given, wanted):
        return f"must have the datatype {wanted}, got {printable(given, limit=20)}."
    if type(data) is not list:
        return "must have data, an array."
    if shape not in ([len(data)], [len(data), 1]):
        return f"must have the shape [{len(data)}] of its data."
    return None


def _fits(given: str, wanted: str) -> bool:
    if wanted in _INTEGERS:
        return given in _INTEGERS
    if wanted in _FLOATS:
        return given in _FLOATS or given in _INTEGERS
    return given == wanted


def encode_tensors(
    bundle: ModelBundle, found: Outcome, *, request_id: str, asked: str | None
) -> dict[str, Any]:
    """Return an answer: one output a score or label, the caller's id or ours."""
    return {
        "model_name": bundle.name,
        "model_version": str(bundle.number),
        "id": asked if asked is not None else request_id,
        "outputs": [
            {
                "name": name,
                "shape": [len(values)],
                "datatype": _datatype(values),
                "data": values,
            }
            for name, values in zip(found.names, found.columns, strict=True)
        ],
    }


def _datatype(values: list[Any]) -> str:
    if isinstance(values[0], bool):
        return "BOOL"
    return "FP64" if isinstance(values[0], float) else "BYTES"


def model_metadata(bundle: ModelBundle) -> dict[str, Any]:
    """Return what GET /v2/models/NAME answers."""
    outputs: list[tuple[str, str]] = [("score", "FP64")]
    if bundle.task == "multiclass":
        outputs = [("label", "BYTES"), *((f"score_{c}", "FP64") for c in bundle.plan.classes)]
    elif bundle.task == "binary" and bundle.threshold is not None:
        outputs.append(("label", "BOOL"))
    return {
        "name": bundle.name,
        "versions": [str(bundle.number)],
        "platform": f"arclight_{bundle.trainer}",
        "inputs": [
            {"name": column.name, "datatype": DATATYPES[column.type], "shape": [-1]}
            for column in bundle.signature.inputs
        ],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in outputs],
    }
