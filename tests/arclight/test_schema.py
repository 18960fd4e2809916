from __future__ import annotations

import pyarrow as pa
import pytest

from arclight.errors import SchemaError
from arclight.schema import (
    ARROW_TYPES,
    NAMES,
    TIMESTAMP,
    Column,
    SourceContract,
    compare,
    hold,
    raw_type,
)


def contract(source: str = "t", **columns: str) -> SourceContract:
    return SourceContract(
        source=source, columns=tuple(Column(name=n, type=t) for n, t in columns.items())
    )


KNOWN = contract(a="bigint", b="string", c="double")

DIFFERENCES = {
    "the same": (contract(a="bigint", b="string", c="double"), ()),
    "another order": (contract(c="double", b="string", a="bigint"), ()),
    "missing": (contract(a="bigint", c="double"), ("column 'b' (string) is missing",)),
    "new": (
        contract(a="bigint", b="string", c="double", d="int"),
        ("column 'd' (int) is new",),
    ),
    "retyped": (contract(a="int", b="string", c="double"), ("column 'a' was bigint, is int",)),
    "renamed": (
        contract(a="bigint", B="string", c="double"),
        ("column 'b' (string) is missing", "column 'B' (string) is new"),
    ),
    "nothing": (
        contract(),
        tuple(f"column '{c.name}' ({c.type}) is missing" for c in KNOWN.columns),
    ),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_every_difference_is_a_part_of_the_sentence(case: str):
    found, parts = DIFFERENCES[case]
    assert compare(KNOWN, found) == parts


def test_e2_all_differences_of_all_sources_stand_in_one_message():
    other = contract("u", x="int")
    with pytest.raises(SchemaError) as caught:
        hold((KNOWN, other), (contract(a="int", c="double"), contract("u", y="int")))
    assert caught.value.exit_status == 3
    assert caught.value.message == (
        "source 't': column 'b' (string) is missing, column 'a' was bigint, is int; source 'u': "
        "column 'x' (int) is missing, column 'y' (int) is new; a source must keep the columns of "
        "the first version: mend the source, or run again with --accept-schema to make the new "
        "columns the contract."
    )


def test_what_keeps_its_contract_passes():
    hold((KNOWN,), (KNOWN, contract("a new source", x="int")))
    hold((), (KNOWN,))


RAW = {
    **{arrow: arrow for arrow in ARROW_TYPES.values()},
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.float64(),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.date64(): pa.date32(),
    pa.null(): pa.string(),
    pa.decimal128(38, 2): pa.float64(),
    pa.timestamp("ns"): TIMESTAMP,
    pa.timestamp("s", tz="Asia/Tokyo"): TIMESTAMP,
    pa.dictionary(pa.int8(), pa.string()): pa.string(),
    pa.dictionary(pa.int32(), pa.large_string()): pa.string(),
    pa.dictionary(pa.int32(), pa.int64()): pa.int64(),
}


@pytest.mark.parametrize("arrow", RAW, ids=str)
def test_an_engine_s_type_has_one_raw_type(arrow: pa.DataType):
    assert raw_type("c", arrow) == RAW[arrow]
    assert raw_type("c", RAW[arrow]) == RAW[arrow]


@pytest.mark.parametrize(
    "arrow",
    [
        pa.list_(pa.int64()),
        pa.struct([("a", pa.int64())]),
        pa.map_(pa.string(), pa.int64()),
        pa.time32("s"),
        pa.duration("us"),
        pa.binary(8),
        pa.dictionary(pa.int8(), pa.list_(pa.int64())),
        pa.fixed_shape_tensor(pa.float32(), [2, 2]),
    ],
    ids=str,
)
def test_e21_other_types_are_refused_by_name(arrow: pa.DataType):
    with pytest.raises(SchemaError, match=r"column 'c d' must be a number, .* etl\.drop"):
        raw_type("c d", arrow)


def test_every_raw_type_has_one_name():
    assert {name: ARROW_TYPES[NAMES[arrow]] for name, arrow in ARROW_TYPES.items()} == ARROW_TYPES
