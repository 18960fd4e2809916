from __future__ import annotations

import contextlib
import json
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from arclight.contract import NAME, Contract, InnerPath, canonical_json, digest_of
from arclight.errors import IntegrityError


class Part(Contract):
    value: float = 0.0
    other: str = Field(default="", alias="else")


class Thing(Contract):
    kind: ClassVar[str] = "thing"
    version: ClassVar[int] = 3

    name: str
    count: int = 0
    parts: tuple[Part, ...] = ()
    places: dict[str, str | int | float | bool | None] = {}


THING = Thing(
    name="ä🚀\n\u2028",
    count=2**70,
    parts=(Part(value=0.1), Part(value=5e-324, other="x")),
    places={"b": True, "i": 1, "f": 1.0, "s": "1", "n": None},
)


def test_json_gives_the_same_value_and_types():
    again = Thing.from_json(THING.to_json())
    assert again == THING
    assert {k: type(v) for k, v in again.places.items()} == {
        k: type(v) for k, v in THING.places.items()
    }
    assert Thing.from_json(THING.to_json().encode()) == THING


def test_the_stored_form_names_its_kind_and_version_first():
    assert list(json.loads(THING.to_json()))[:2] == ["kind", "version"]
    assert json.loads(THING.to_json())["parts"][1]["else"] == "x"


def test_the_digest_never_changes():
    # a release that changes one of these makes every key and every proof of before worthless
    assert digest_of({"b": 1, "a": [1.5, None, "ä"]}) == (
        "e60563896fc1b9fc29acee53c4daa89e9eb51ec7dd953f23ceec4834b63302d3"
    )
    assert THING.digest == "1908d45193f3b738749c8c41d21a166df13e508b2bc63e1a633a6b455bdff497"


def test_the_canonical_form():
    assert (
        canonical_json({"b": 1, "a": ["ä", 1.5, True, None]})
        == '{"a":["ä",1.5,true,null],"b":1}'.encode()
    )


def test_the_digest_ignores_order_and_sees_every_field():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert THING.model_copy(update={"count": 1}).digest != THING.digest
    assert Thing(name="a", places={"x": 1}).digest != Thing(name="a", places={"x": 1.0}).digest


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_is_refused_wherever_it_comes_in(value: float):
    with pytest.raises(ValidationError, match="finite"):
        Part(value=value)
    with pytest.raises(ValidationError, match="finite"):
        Thing(name="a", places={"x": value})
    with pytest.raises(ValueError, match="JSON compliant"):
        digest_of(value)
    text = THING.to_json().replace("5e-324", json.dumps(value))
    with pytest.raises(IntegrityError, match="JSON compliant"):
        Thing.from_json(text)
    body = json.loads(text)
    del body["own"]
    with pytest.raises(IntegrityError, match=r"parts\.1\.value"):
        Thing.from_json(json.dumps(body))


def test_any_value_that_was_changed_after_it_was_written_is_refused():
    text = THING.to_json()
    for at, sign in enumerate(text):
        other = text[:at] + chr(ord(sign) ^ 1) + text[at + 1 :]
        with contextlib.suppress(IntegrityError):
            assert Thing.from_json(other) == THING, other


def test_a_stored_form_of_an_older_release_holds_no_digest_of_itself():
    body = json.loads(THING.to_json())
    del body["own"]
    assert Thing.from_json(json.dumps(body)) == THING


def test_what_people_may_edit_holds_no_digest_of_itself():
    class Notes(Thing):
        is_sealed: ClassVar[bool] = False

    assert "own" not in json.loads(Notes(name="a").to_json())


def test_a_value_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        THING.name = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": 1},
        {"name": "a", "count": "1"},
        {"name": "a", "count": 1.0},
        {},
        {"name": "a", "more": 1},
    ],
)
def test_other_shapes_are_refused(fields: dict[str, object]):
    with pytest.raises(ValidationError):
        Thing.model_validate(fields)
    with pytest.raises(IntegrityError, match=r"'a\.json' is not a valid thing: "):
        Thing.from_json(json.dumps({"kind": "thing", "version": 3, **fields}), source="a.json")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "cannot be parsed"),
        ("{", "cannot be parsed"),
        (b"\xff\xfe", "cannot be parsed"),
        (b"\x00\x00", "cannot be parsed"),
        ("[" * 100_000, "cannot be parsed"),
        ('{"kind": ' + "9" * 5000 + "}", "cannot be parsed"),
        ("[]", "got None of version None"),
        ("null", "got None of version None"),
        ('{"name": "a"}', "got None of version None"),
        ('{"kind": "other", "version": 3}', "must be a thing of version 3, got 'other'"),
        ('{"kind": "thing", "version": 4, "name": "a"}', "got 'thing' of version 4; read it with"),
        ('{"kind": "\\u001b[31m", "version": 3}', r"\x1b"),
    ],
)  # fmt: skip
def test_what_is_no_such_record_is_refused(text: str | bytes, part: str):
    with pytest.raises(IntegrityError, match=r"^'a\.json' ") as caught:
        Thing.from_json(text, source="a.json")
    assert part in caught.value.message
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("name", ["a", "a-b", "0", "9-", "a" * 63])
def test_names(name: str):
    assert NAME.match(name)


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "a_b", "a b", "a\n", "ä", "a" * 64, "..", "a/b", "a\0"]
)
def test_no_names(name: str):
    assert not NAME.match(name)


class Placed(Contract):
    path: InnerPath


@pytest.mark.parametrize("path", ["a", "a/b.parquet", "a b/ä", "...", "a..b"])
def test_paths_inside(path: str):
    assert Placed(path=path).path == path


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a/.", "a\0b"])
def test_paths_that_lead_out_are_refused(path: str):
    with pytest.raises(ValidationError, match="must be a plain path below its folder"):
        Placed(path=path)
