"""Arrow IPC streams from and to a client; nothing is used before it is proven whole."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pyarrow as pa

from arclight.errors import printable
from ray_apps.serving.problem import Problem
from ray_apps.serving.protocol import MAX_ERRORS, Hints, check_row_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray_apps.serving.protocol import Outcome

ARROW_STREAM = b"application/vnd.apache.arrow.stream"
MAX_BATCHES = 10_000
_ENDS = (b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\0")
"""Markers of a stream's end; the shorter one is of releases before Arrow 0.15."""
# places of fields in the tables of Arrow's Message.fbs
_MESSAGE_HEADER = 2
_BATCH_COMPRESSION = 3
_BATCH_OF_DICTIONARY = 1


def decode_stream(body: bytes, schema: pa.Schema, *, max_rows: int) -> pa.RecordBatch:
    """Return the rows of a stream whose columns are the schema's, in any order.

    Raises:
        Problem: `not-arrow`, damaged; `fields`, other columns; `too-large`.
    """
    try:
        _prove_whole(body)
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            _hold_schema(reader.schema, schema)
            table = pa.Table.from_batches(_whole_batches(reader, max_rows), reader.schema)
    except (pa.ArrowException, OSError, ValueError, struct.error, IndexError) as error:
        raise Problem(
            "not-arrow", f"The body must be an Arrow stream, but: {printable(error)}."
        ) from error
    check_row_count(table.num_rows, max_rows)
    batches = table.select(schema.names).replace_schema_metadata(None).combine_chunks()
    batch: pa.RecordBatch = batches.to_batches()[0]
    return batch


def encode_stream(found: Outcome, about: Mapping[str, str]) -> bytes:
    """Return predictions as a stream; `about` (model, version, request) is its metadata."""
    arrays = [pa.array(column) for column in found.columns]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(found.names), metadata=dict(about))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _whole_batches(reader: pa.RecordBatchReader, max_rows: int) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        # a plain validate() misses damage that crashes the process later
        batch.validate(full=True)
        rows += batch.num_rows
        batches.append(batch)
        if len(batches) > MAX_BATCHES:
            raise Problem("too-large", f"A stream must hold at most {MAX_BATCHES:,} batches.")
        check_row_count(max(rows, 1), max_rows)
    return batches


def _hold_schema(found: pa.Schema, wanted: pa.Schema) -> None:
    errors = []
    names, hints = list(found.names), Hints(wanted.names)
    for field in wanted:
        if names.count(field.name) != 1:
            text = "is missing." if field.name not in names else "stands twice."
            errors.append({"row": None, "field": field.name, "detail": text})
            continue
        given = found.field(field.name)
        extended = any(key.startswith(b"ARROW:extension") for key in given.metadata or {})
        if given.type != field.type or extended:
            got = "an extension type" if extended else printable(given.type)
            text = f"must be {field.type}, got {got}."
            errors.append({"row": None, "field": field.name, "detail": text})
    for name in names:
        if len(errors) >= MAX_ERRORS:
            break
        if name not in wanted.names:
            text = f"is not a column of this model.{hints(name)}"
            errors.append({"row": None, "field": printable(name), "detail": text})
    if errors:
        raise Problem(
            "fields",
            "The stream's columns must be the model's, of the types that GET /v1/models/NAME "
            "gives; cast the others.",
            errors=tuple(errors[:MAX_ERRORS]),
        )


def _prove_whole(body: bytes) -> None:
    """Refuse all but one stream with its end, and compressed buffers in it.

    To pyarrow a stream that is cut between two batches is whole, and what follows its end is not
    there. A few compressed buffers can hold more than this machine's memory; pyarrow shows no
    message's compression, so its two tables are read as FlatBuffers here.
    """
    source = pa.BufferReader(body)
    reader = pa.ipc.MessageReader.open_stream(source)
    for _ in range(2 * MAX_BATCHES):
        at = source.tell()
        try:
            message = reader.read_next_message()
        except StopIteration:
            if body[at:] not in _ENDS:
                raise Problem(
                    "not-arrow",
                    "The body must be one Arrow stream that ends with its end marker, with "
                    "nothing behind; close the writer before you send what it wrote.",
                ) from None
            return
        table = message.metadata.to_pybytes()
        header = _child(table, _follow(table, 0), _MESSAGE_HEADER)
        if header is None or message.type not in ("record batch", "dictionary"):
            continue
        batch: int | None = header
        if message.type == "dictionary":
            batch = _child(table, header, _BATCH_OF_DICTIONARY)
        if batch is not None and _child(table, batch, _BATCH_COMPRESSION) is not None:
            raise Problem("fields", "An Arrow stream must come without buffer compression.")
    raise Problem("too-large", f"A stream must hold at most {MAX_BATCHES:,} batches.")


def _follow(data: bytes, at: int) -> int:
    return at + int(struct.unpack_from("<I", data, at)[0])


def _child(data: bytes, table: int, place: int) -> int | None:
    """Return where the table in a field of a FlatBuffers table starts, None if it is not set."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise ValueError("a message's table lies outside of it")
    entry = 4 + 2 * place
    if entry >= struct.unpack_from("<H", data, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", data, vtable + entry)[0]
    return _follow(data, table + offset) if offset else None
