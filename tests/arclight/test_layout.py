from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from arclight.errors import SpecError
from arclight.features import FeatureBuilder
from arclight.layout import TableLayout, lay_out, segments_to_carry
from arclight.schema import TIMESTAMP
from arclight.spec import Spec

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("at", TIMESTAMP),
        ("carrier", pa.string()),
        ("distance", pa.float64()),
        ("2B", pa.bool_()),
        ("a b", pa.int32()),
        ("leak", pa.float64()),
        ("late", pa.bool_()),
    ]
)


def lay(
    schema: pa.Schema = SCHEMA,
    *,
    features: dict[str, Any] | None = None,
    segments: tuple[str, ...] = (),
    **etl: Any,
) -> TableLayout:
    return lay_out(schema, spec_of(segments, features=features, **etl))


def spec_of(
    segments: tuple[str, ...] = (), *, features: dict[str, Any] | None = None, **etl: Any
) -> Spec:
    return Spec.model_validate(
        {
            "name": "flights",
            "task": "binary",
            "sources": {"t": {"path": "t"}},
            "etl": {"label": "late", "key": ("id",), "time": "at", "drop": ("leak",)} | etl,
            "features": features or {},
            "evaluate": {"segments": segments},
        }
    )


def kinds(layout: TableLayout) -> dict[str, str]:
    return {f.name: f.type for f in layout.features.features}


def test_what_has_no_other_part_is_a_feature():
    found = lay()
    assert kinds(found) == {
        "carrier": "category",
        "distance": "number",
        "2B": "category",
        "a b": "number",
    }
    assert found.key == ("id",)
    assert found.carried == ("id", "at")
    assert found.features.input_schema == pa.schema(
        [SCHEMA.field(n) for n in ("carrier", "distance", "2B", "a b")]
    )


def test_without_a_key_rows_get_one():
    found = lay(key=())
    assert found.key == ("row_key",)
    assert found.carried == ("row_key", "at")
    assert "id" in kinds(found)


def test_groups_are_carried_and_stay_features():
    found = lay(split={"by": "hash", "group": ("a b",)})
    assert found.carried == ("id", "at", "a b")
    assert "a b" in kinds(found)


def test_segments_are_carried_where_they_are_no_features():
    """Of the others a dataset has the same files, whatever the report is broken down by."""
    assert lay(segments=("carrier", "at", "2B")) == lay()
    assert lay(segments=("leak", "carrier")).carried == ("id", "at", "leak")


@pytest.mark.parametrize(
    ("segments", "carried"),
    [
        (("leak",), ("leak",)),
        (("id", "at", "b", "2B", "up"), ("b",)),
        (("carrier",), ("carrier",)),
    ],
)
def test_segments_that_a_spec_may_have_to_carry(segments, carried):
    """Without the columns nobody knows whether text that is named nowhere else is a feature."""
    derive = {"up": "upper(carrier)"}
    spec = spec_of(segments, key=("id",), features={"categorical": ("2B", "up"), "derive": derive})
    assert segments_to_carry(spec) == carried


def test_a_key_is_a_feature_only_when_it_is_named_as_a_category():
    found = lay(key=("carrier", "id"), features={"categorical": ("carrier", "2B")})
    assert kinds(found) == {
        "carrier": "category",
        "distance": "number",
        "2B": "category",
        "a b": "number",
    }


def test_a_whole_number_may_be_a_category_and_a_boolean_a_number():
    found = lay(features={"categorical": ("carrier", "a b")})
    assert kinds(found)["a b"] == "category"
    assert kinds(found)["2B"] == "number"


def test_derived_features_come_last_and_their_inputs_are_asked_for():
    derive = {"hour": "hour(at)", "distance": "distance / 2", "far": "distance > 100"}
    found = lay(features={"derive": derive})
    assert list(kinds(found)) == ["carrier", "2B", "a b", "hour", "distance", "far"]
    assert kinds(found)["far"] == "category"
    assert found.features.input_schema.names == ["at", "carrier", "distance", "2B", "a b"]
    FeatureBuilder(found.features)


def test_a_column_only_expressions_can_read_is_no_feature():
    schema = SCHEMA.append(pa.field("made", pa.date32()))
    found = lay(schema, features={"derive": {"year": "year(made)"}})
    assert "made" not in kinds(found)
    assert "made" in found.features.input_schema.names


def test_text_that_derived_features_read_need_be_no_category():
    """A title, of which one word matters, has as many levels as rows."""
    derive = {"is_united": "carrier LIKE 'U%'"}
    found = lay(features={"derive": derive, "categorical": ("is_united",)})
    assert "carrier" not in kinds(found)
    assert kinds(found)["is_united"] == "category"
    assert "carrier" in found.features.input_schema.names
    assert kinds(lay(features={"derive": derive}))["carrier"] == "category"


TWICE = pa.schema([*SCHEMA, ("carrier", pa.string())])

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "label": (
        {"label": "lat"},
        r"etl\.label: the joined table has no column 'lat'\. Did you mean 'late'",
    ),
    "key": ({"key": ("idd",)}, r"etl\.key: .* 'idd'\. Did you mean 'id'"),
    "time": ({"time": "att"}, r"etl\.time: .*'att'"),
    "group": ({"split": {"by": "hash", "group": ("g",)}}, r"etl\.split\.group: .*'g'"),
    "segment": ({"segments": ("zz",)}, r"evaluate\.segments: .*'zz'\. It has: id, at,"),
    "category": (
        {"features": {"categorical": ("carier",)}},
        r"no column 'carier'\. Did you mean 'carrier'",
    ),
    "float key": ({"key": ("distance",)}, "a key must compare exactly"),
    "time that is none": ({"time": "distance"}, "must be a date or timestamp, got double"),
    "float category": (
        {"features": {"categorical": ("carrier", "distance")}},
        "a category must be text",
    ),
    "time as category": ({"features": {"categorical": ("carrier", "at")}}, "no feature by itself"),
    "text left out": (
        {"features": {"categorical": ("2B",)}},
        "is text but not in features.categorical",
    ),
    "a date": (
        {"schema": SCHEMA.append(pa.field("made", pa.date32()))},
        "'made' is date32.* no feature",
    ),
    "row_key": (
        {"schema": SCHEMA.append(pa.field("row_key", pa.int64())), "key": ()},
        "'row_key' is the key",
    ),
    "derived row_key": (
        {"key": (), "features": {"derive": {"row_key": "1 + 1"}}},
        "'row_key' is the key",
    ),
    "two of one name": ({"schema": TWICE}, "two columns 'carrier'"),
    "nothing left": (
        {"drop": ("carrier", "distance", "2B", "a b", "leak")},
        "no column is left as a feature",
    ),
    "bad expression": (
        {"features": {"derive": {"d": "distanc + 1"}}},
        r"features\.derive\.d: .*distance",
    ),
    "derive reads the label": (
        {"features": {"derive": {"d": "late"}}},
        r"features\.derive\.d: .*\('late' is the label or is dropped",
    ),
    "derive reads a dropped column": (
        {"features": {"derive": {"d": "leak + 1"}}},
        r"\('leak' is the label or is dropped",
    ),
    "derived date": (
        {"features": {"derive": {"d": "to_date(at)"}}},
        "column 'd' is date32.*no feature",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_a_way_out(case: str):
    changes, message = REFUSED[case]
    with pytest.raises(SpecError, match=message):
        lay(**changes)


def test_a_hint_is_given_only_for_a_column_that_is_named():
    with pytest.raises(SpecError) as caught:
        lay(features={"derive": {"d": "translated + 1"}})
    assert "is the label" not in caught.value.message


def test_a_column_with_a_blank_is_quoted_in_the_way_out():
    with pytest.raises(SpecError, match=r"such as hour\(`placed at`\)\), or name it"):
        lay(SCHEMA.append(pa.field("placed at", TIMESTAMP)))
    with pytest.raises(SpecError, match=r"such as hour\(seen\)\), or name it"):
        lay(SCHEMA.append(pa.field("seen", TIMESTAMP)))
