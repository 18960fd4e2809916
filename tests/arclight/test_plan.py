from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arclight.features import FeatureColumn, FeatureLayout
from arclight.plan import Encoder, Feature, FeaturePlan, class_codes, fit_plan
from arclight.schema import Column
from arclight.summary import CategoryBuilder, NumberBuilder

LAYOUT = FeatureLayout(
    inputs=(Column(name="2B", type="string"), Column(name="a b", type="float64")),
    features=(FeatureColumn(name="2B", type="category"), FeatureColumn(name="a b", type="number")),
)


def plan_of(levels: dict[str, int], **limits: int) -> FeaturePlan:
    category, number = CategoryBuilder("2B"), NumberBuilder("a b")
    values = [level for level, count in levels.items() for _ in range(count)]
    category.add(pa.array(values, pa.string()), np.zeros(len(values)))
    number.add(pa.array([1.0, 2.0, 6.0, None], pa.float32()), np.zeros(4))
    train = {"2B": category.freeze(), "a b": number.freeze()}
    return fit_plan(LAYOUT, train, **{"max_levels": 10, "min_count": 3} | limits)


def codes(plan: FeaturePlan, values: pa.Array) -> list[int | None]:
    return Encoder(plan).codes(plan.features[0], values).to_pylist()  # type: ignore[no-any-return]


def test_a_plan_is_fitted_on_what_train_held():
    plan = plan_of({"b": 5, "a": 3, "rare": 2})
    assert plan.features[0].levels == ("a", "b")
    number = plan.features[1]
    assert (number.mean, number.std, number.median) == (3.0, pytest.approx(np.std([1, 2, 6])), 2.0)
    assert plan.names == ("2B", "a b")
    assert plan.categorical == (0,)
    assert FeaturePlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"min_count": 1}, ("a", "b", "c", "d")),
        ({"min_count": 3}, ("a", "b", "c")),
        ({"min_count": 4}, ("a", "b")),
        ({"min_count": 99}, ()),
        ({"min_count": 1, "max_levels": 2}, ("a", "b")),
        ({"min_count": 1, "max_levels": 3}, ("a", "b", "c")),
    ],
)
def test_levels_are_kept_by_count_and_number(limits: dict[str, int], kept: tuple[str, ...]):
    assert plan_of({"d": 2, "c": 3, "b": 4, "a": 5}, **limits).features[0].levels == kept


def test_a_plan_does_not_depend_on_the_order_of_rows():
    assert plan_of({"b": 3, "a": 3, "c": 5}) == plan_of({"c": 5, "a": 3, "b": 3})


def test_e13_a_level_not_seen_has_the_code_of_a_rare_one_and_null_stays_missing():
    plan = plan_of({"b": 5, "a": 3, "rare": 2})
    values = pa.array(["a", "b", "rare", "never seen", "", None, "A", "a ", "🚀"])
    assert codes(plan, values) == [0, 1, 2, 2, 2, None, 2, 2, 2]
    assert plan.features[0].unknown_code == 2


def test_a_feature_without_levels_has_one_code():
    plan = plan_of({"a": 1})
    assert codes(plan, pa.array(["a", "x", None])) == [0, 0, None]
    assert codes(plan_of({}), pa.array([None, "x"])) == [None, 0]


def test_levels_past_256_bytes_are_unknown():
    fits, long = "é" * 128, "é" * 128 + "x"
    plan = plan_of({fits: 5, long: 9, "a": 3})
    assert plan.features[0].levels == ("a", fits)
    assert codes(plan, pa.array([fits, long, "x" * 1_000_000])) == [1, 2, 2]


FORMS = {
    "plain": lambda a: a,
    "dictionary": lambda a: a.dictionary_encode(),
    "sliced": lambda a: pa.concat_arrays([pa.array(["q"]), a, pa.array(["q"])]).slice(1, len(a)),
    "sliced dictionary": lambda a: (
        pa.concat_arrays([pa.array(["q"]), a]).dictionary_encode().slice(1)
    ),
    "int8 codes": lambda a: a.dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
    "null as a level": lambda a: pa.DictionaryArray.from_arrays(pa.array(np.arange(len(a))), a),
}


@pytest.mark.parametrize("form", FORMS)
def test_dictionary_and_plain_give_the_same_codes(form: str):
    values = pa.array(["b", None, "rare", "new", "a", "b", None])
    plan = plan_of({"b": 5, "a": 3, "rare": 2})
    assert codes(plan, FORMS[form](values)) == [1, None, 2, 2, 0, 1, None]
    assert codes(plan, FORMS[form](values)[:0]) == []


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.sampled_from(["a", "b", "rare", "🚀", ""])),
            st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
        )
    )
)
def test_table_and_matrix_agree(rows: list[tuple[str | None, float | None]]):
    columns = {
        "other": pa.array(range(len(rows))),
        "a b": pa.array([x for _, x in rows], pa.float32()),
        "2B": pa.array([c for c, _ in rows], pa.string()),
    }
    encoder = Encoder(plan_of({"b": 5, "a": 3, "rare": 2}))
    table, matrix = encoder.table(columns), encoder.matrix(columns)
    assert table.schema == pa.schema([("f0", pa.int32()), ("f1", pa.float32())])
    assert matrix.shape == (len(rows), 2)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    for place in range(2):
        listed = [np.nan if v is None else v for v in table.column(place).to_pylist()]
        assert np.array_equal(matrix[:, place], np.array(listed, np.float32), equal_nan=True)
    room = np.full((len(rows) + 3, 2), 9, np.float32)
    filled = encoder.matrix(columns, out=room)
    assert np.array_equal(filled, matrix, equal_nan=True)
    assert (room[len(rows) :] == 9).all()
    assert np.shares_memory(filled, room) or not rows


def test_many_levels_stay_exact_in_float32():
    levels = tuple(f"{i:07}" for i in range(300_000))
    feature = Feature(name="2B", type="category", levels=levels)
    plan = FeaturePlan(layout=LAYOUT, features=(feature,))
    matrix = Encoder(plan).matrix({"2B": pa.array([*levels, "new"])})
    assert np.array_equal(matrix[:, 0], np.arange(300_001))


@pytest.mark.parametrize(
    "values",
    [pa.array(["b", "a", "z", None]), pa.array(["b", "a", "z", None]).dictionary_encode()],
)
def test_class_codes(values: pa.Array):
    found = class_codes(values, ("a", "b"))
    assert found.dtype == np.float64
    assert np.array_equal(found, [1.0, 0.0, np.nan, np.nan], equal_nan=True)
