"""JSON is refused where it is loose, also where orjson alone would let it pass."""

from __future__ import annotations

import json
import random
import time

import pytest

from ray_apps.serving.problem import Problem
from ray_apps.serving.strict_json import parse_json

GOOD = [
    b'{"a": 1, "b": {"a": 2}}',
    b'[{"a": 1}, {"a": 1}]',
    b'{"t": "2013-11-01T06:00:00Z", "u": ":::"}',
    b'{"a:b": ":", "a": "\\u003a"}',
    b'{"a": {"a": {"a": 1}}}',
    '{"é": "ü:"}'.encode(),
    b'{"a":' * 32 + b"1" + b"}" * 32,
    b"[]",
    b"3",
]
BAD = {
    "nothing": b"",
    "deep under a name that is repeated": b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b', "a": 1}',
    "cut": b'{"rows": [',
    "text": b"rows",
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "too large a number": b'{"a": 1e999}',
    "leading zero": b'{"a": 01}',
    "trailing comma": b'{"a": 1,}',
    "not utf-8": b'{"a": "\xff"}',
    "lone surrogate": b'{"a": "\\ud800"}',
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "deep": b"[" * 10_000 + b"]" * 10_000,
    "deeper than any request": b'{"a":' * 33 + b"1" + b"}" * 33,
    "two documents": b"{} {}",
    "twice": b'{"a": 1, "a": 1}',
    "twice, one escaped": b'{"a": 1, "\\u0061": 2}',
    "twice, hidden by a colon in a string": b'{"a": ":", "a": 1}',
    "twice, hidden by an escaped colon": b'{"a": 1, "a": "\\u003a"}',
    "twice, hidden by a colon in a name": b'{"a:": 1, "a:": 1}',
    "twice inside": b'{"rows": [{"x": {"a": 1, "a": 2}}]}',
    "twice, an object that is dropped": b'{"a": {"b": 1}, "a": "::"}',
}


@pytest.mark.parametrize("body", GOOD)
def test_good_documents_are_read_as_json_reads_them(body: bytes) -> None:
    assert parse_json(body) == json.loads(body)


@pytest.mark.parametrize("name", BAD)
def test_bad_documents_are_refused(name: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_json(BAD[name])
    assert caught.value.status == 400


def test_repeated_names_are_found_wherever_they_stand() -> None:
    dice = random.Random(7)
    names = ["a", "b", "a:b", ":"]

    def text(depth: int) -> tuple[str, bool]:
        """A random document and whether a name stands twice in it."""
        if depth == 0 or dice.random() < 0.3:
            return dice.choice(['"x:y"', "1", '"\\u003a"', '":"', "null"]), False
        pairs = [(dice.choice(names), *text(depth - 1)) for _ in range(dice.randint(1, 2))]
        keys = [key for key, _, _ in pairs]
        inside = any(twice for _, _, twice in pairs)
        body = ",".join(f'"{key}":{value}' for key, value, _ in pairs)
        return "{" + body + "}", inside or len(set(keys)) < len(keys)

    outcomes = set()
    for _ in range(3000):
        document, twice = text(4)
        try:
            parse_json(document.encode())
            refused = False
        except Problem:
            refused = True
        assert refused == twice, document
        outcomes.add(twice)
    assert outcomes == {True, False}


def test_rows_without_colons_in_strings_need_no_second_parser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json, "loads", lambda *_a, **_k: pytest.fail("parsed twice"))
    body = json.dumps({"rows": [{"t": "06:00:00", "x": 1.5, "s": "JFK"}] * 1000}).encode()
    began = time.process_time()
    parse_json(body)
    assert time.process_time() - began < 0.25
