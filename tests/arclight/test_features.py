from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arclight.features import (
    FLOAT32_MAX,
    Derived,
    FeatureBuilder,
    FeatureColumn,
    FeatureLayout,
    from_stored,
    level_names,
)
from arclight.schema import ARROW_TYPES, Column

INF, NAN = float("inf"), float("nan")


def layout(
    *features: tuple[str, str], derive: dict[str, str] | None = None, **inputs: str
) -> FeatureLayout:
    return FeatureLayout(
        inputs=tuple(Column(name=n, type=t) for n, t in inputs.items()),
        derive=tuple(Derived(name=n, expression=e) for n, e in (derive or {}).items()),
        features=tuple(FeatureColumn.model_validate({"name": n, "type": t}) for n, t in features),
    )


def build(plan: FeatureLayout, **columns: list[object]):
    raw = pa.record_batch(
        [pa.array(columns[c.name], ARROW_TYPES[c.type]) for c in plan.inputs],
        names=[c.name for c in plan.inputs],
    )
    return FeatureBuilder(plan).build(raw)


def number(values: list[object], kind: str):
    built = build(layout(("x", "number"), x=kind), x=values)
    return built.columns["x"], built


NUMBERS = {
    "whole": ("int64", [1, None, -5], [1.0, None, -5.0]),
    "bytes": ("int8", [1, None, -128], [1.0, None, -128.0]),
    "booleans": ("bool", [True, None, False], [1.0, None, 0.0]),
    "past 2**53": ("int64", [2**53 + 1, -(2**63), 2**63 - 1], [2.0**53, -(2.0**63), 2.0**63]),
    "NaN": ("float64", [NAN, None, 1.5], [None, None, 1.5]),
    "NaN in float32": ("float32", [NAN, None, 1.5], [None, None, 1.5]),
    "past float32": ("float64", [1e39, -1e39, 1e308], [FLOAT32_MAX, -FLOAT32_MAX, FLOAT32_MAX]),
    "float32's end": ("float64", [FLOAT32_MAX, FLOAT32_MAX * (1 + 1e-9)], [FLOAT32_MAX] * 2),
    "below float32": ("float64", [1e-300, -0.0], [0.0, -0.0]),
    "rounded": ("float64", [0.1], [float(np.float32(0.1))]),
    "nothing": ("float64", [], []),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_a_number_is_float32_with_null_for_unknown(case: str):
    kind, values, expected = NUMBERS[case]
    column, built = number(values, kind)
    assert column.type == pa.float32()
    assert column.to_pylist() == expected
    assert not built.rejected


def test_nan_is_null_and_counted_apart():
    _, built = number([NAN, None, 1.0, NAN], "float64")
    assert built.nans["x"].tolist() == [True, False, False, True]
    _, built = number([None, 1.0], "float64")
    assert built.nans == {}


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_infinite_is_rejected_with_its_reason(kind: str):
    _, built = number([INF, 1.0, -INF, None, NAN], kind)
    assert {k: v.tolist() for k, v in built.rejected.items()} == {
        "infinite:x": [True, False, True, False, False]
    }


@settings(max_examples=100)
@given(st.lists(st.one_of(st.none(), st.floats())))
def test_no_number_ever_becomes_nan_or_infinite(values: list[float | None]):
    column, built = number(values, "float64")
    stored = column.drop_null().to_numpy()
    assert np.isfinite(stored).all()
    unknown = [v is None or np.isnan(v) for v in values]
    assert column.is_null().to_pylist() == unknown
    infinite = built.rejected.get("infinite:x", np.zeros(len(values), bool))
    assert infinite.tolist() == [v is not None and bool(np.isinf(v)) for v in values]


CATEGORIES = {
    "string": (["a", None, "", "🚀", "é"], ["a", None, "", "🚀", "é"]),
    "int64": ([7, None, -1, 2**63 - 1], ["7", None, "-1", str(2**63 - 1)]),
    "int8": ([7, None], ["7", None]),
    "bool": ([True, None, False], ["true", None, "false"]),
}


@pytest.mark.parametrize("kind", CATEGORIES)
def test_a_category_is_text(kind: str):
    values, levels = CATEGORIES[kind]
    built = build(layout(("c", "category"), c=kind), c=values)
    assert built.columns["c"].type == pa.string()
    assert built.columns["c"].to_pylist() == levels
    assert not built.rejected


def test_one_whole_number_is_one_level_whatever_its_width():
    widths = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint64()]
    assert {level_names(pa.array([7], w)).to_pylist()[0] for w in widths} == {"7"}


def test_e10_a_string_of_a_megabyte_and_odd_names():
    plan = FeatureLayout(
        inputs=(Column(name="2B", type="string"), Column(name="a b", type="int64")),
        derive=(Derived(name="🚀", expression="`a b` + 1"),),
        features=(
            FeatureColumn(name="2B", type="category"),
            FeatureColumn(name="a b", type="number"),
            FeatureColumn(name="🚀", type="number"),
        ),
    )
    long = "ä\0\n" * 350_000
    built = build(plan, **{"2B": [long, "x"], "a b": [1, 2]})
    assert built.columns["2B"].to_pylist() == [long, "x"]
    assert built.columns["🚀"].to_pylist() == [2.0, 3.0]


def test_text_that_is_not_utf8_is_rejected_row_by_row():
    raw = pa.array([b"a", b"\xff", None, b"\xc3", b"\xc3\xa9"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 5, raw.buffers())
    built = FeatureBuilder(layout(("c", "category"), c="string")).build(
        pa.record_batch([broken], names=["c"])
    )
    assert built.columns["c"].to_pylist() == ["a", None, None, None, "é"]
    assert {k: v.tolist() for k, v in built.rejected.items()} == {
        "not_utf8:c": [False, True, False, True, False]
    }


def test_a_derived_feature_takes_the_place_of_a_column_and_tells_bad_rows():
    plan = layout(("x", "number"), ("big", "category"), x="int64", y="int64",
                  derive={"x": "x / y", "big": "x > 5"})  # fmt: skip
    built = build(plan, x=[8, 9, None, 1], y=[2, 0, 1, 4])
    assert built.columns["x"].to_pylist() == [4.0, None, None, 0.25]
    assert built.columns["big"].to_pylist() == ["true", "true", None, "false"]
    assert {k: v.tolist() for k, v in built.rejected.items()} == {
        "derive:x": [False, True, False, False]
    }


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("IF(x > 100, 1, 0)", [0, 0, 1]),
        ("coalesce(x, -1)", [-1, -1, 200]),
        ("nanvl(x, -1)", [None, None, 200]),
        ("IF(isnan(x), 1, 0)", [0, 0, 0]),
        ("ln(x - 300)", [None, None, None]),
    ],
)
def test_nan_is_null_to_expressions_as_a_request_can_only_say_null(expression: str, expected):
    plan = layout(("d", "number"), ("x", "number"), derive={"d": expression}, x="float64")
    built = build(plan, x=[NAN, None, 200.0])
    assert built.columns["d"].to_pylist() == expected
    assert built.nans["x"].tolist() == [True, False, False]


def test_text_that_is_not_utf8_fails_its_rows_where_an_expression_reads_it():
    raw = pa.array([b"a", b"\xff", None, b"\xc3\xa4"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 4, raw.buffers(), raw.null_count)
    plan = layout(("d", "category"), derive={"d": "upper(x)"}, x="string")
    built = FeatureBuilder(plan).build(pa.record_batch([text], names=["x"]))
    assert built.columns["d"].to_pylist() == ["A", None, None, "Ä"]
    assert built.rejected["derive:d"].tolist() == [False, True, False, False]


def test_other_columns_and_their_order_do_not_matter():
    plan = layout(("x", "number"), ("c", "category"), x="int64", c="string")
    raw = pa.record_batch({"z": [1, 2], "c": ["a", "b"], "x": [3, 4]})
    built = FeatureBuilder(plan).build(raw)
    assert list(built.columns) == ["x", "c"]
    assert built.columns["x"].to_pylist() == [3.0, 4.0]
    sliced = FeatureBuilder(plan).build(raw.slice(1))
    assert sliced.columns["x"].to_pylist() == [4.0]
    assert sliced.columns["c"].to_pylist() == ["b"]


def test_a_layout_keeps_its_form():
    plan = layout(("x", "number"), x="int64", derive={"d": "x + 1"})
    assert FeatureLayout.from_json(plan.to_json()) == plan
    assert plan.input_schema == pa.schema([("x", pa.int64())])


STORED = {
    "number": ("number", pa.array([1.5, None], pa.float32()), [1.5, None]),
    "carried whole number": ("number", pa.array([3, None], pa.int64()), [3.0, None]),
    "carried whole number past 2**53": ("number", pa.array([2**53 + 1]), [2.0**53]),
    "carried boolean as a number": ("number", pa.array([True, None]), [1.0, None]),
    "carried float64": ("number", pa.array([1e39, None]), [FLOAT32_MAX, None]),
    "level": ("category", pa.array(["a", None]), ["a", None]),
    "coded level": ("category", pa.array(["a", None]).dictionary_encode(), ["a", None]),
    "carried key": ("category", pa.array([7, None]), ["7", None]),
    "coded carried key": ("category", pa.array([7, None]).dictionary_encode(), ["7", None]),
    "carried boolean": ("category", pa.array([True, None]), ["true", None]),
}


@pytest.mark.parametrize("case", STORED)
def test_what_is_stored_gives_the_feature_back(case: str):
    kind, column, expected = STORED[case]
    found = from_stored(kind, column)  # type: ignore[arg-type]
    assert found.to_pylist() == expected
    decoded = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
    assert decoded == (pa.float32() if kind == "number" else pa.string())


def test_a_row_beside_broken_text_is_judged_by_itself():
    def texts(*raw: bytes) -> pa.Array:
        values = pa.array(raw, pa.binary())
        return pa.Array.from_buffers(pa.string(), len(raw), values.buffers())

    plan = layout(
        ("d", "number"),
        derive={"d": "IF(upper(x) = 'A' OR z = 'q', 1, 0)"},
        x="string",
        z="string",
    )
    raw = pa.record_batch([texts(b"a", b"\xff", b"b"), texts(b"\xff", b"a", b"a")], ["x", "z"])
    whole = FeatureBuilder(plan).build(raw)
    assert whole.columns["d"].to_pylist() == [1, None, 0]
    assert whole.rejected["derive:d"].tolist() == [False, True, False]
    for place in range(3):
        one = FeatureBuilder(plan).build(raw.slice(place, 1))
        assert one.columns["d"].to_pylist() == whole.columns["d"].to_pylist()[place : place + 1]
