from __future__ import annotations

import pickle

import pytest

from arclight import errors

STATUS = {
    "ArclightError": 1,
    "SpecError": 2,
    "MissingError": 2,
    "DataError": 1,
    "RefusedError": 3,
    "SchemaError": 3,
    "LockedError": 3,
    "ConflictError": 3,
    "IntegrityError": 1,
    "EngineError": 1,
    "LostWorkerError": 1,
    "NoMemoryError": 1,
    "DivergedError": 1,
}


def test_every_error_is_in_the_table():
    classes = {
        n
        for n, c in vars(errors).items()
        if isinstance(c, type) and c.__module__ == errors.__name__
    }
    assert classes == set(STATUS)


@pytest.mark.parametrize("name", STATUS)
def test_an_error_survives_pickling_with_its_status(name: str):
    error = getattr(errors, name)("'x' must be y, got z.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.message, str(again), again.exit_status) == (
        error.message,
        error.message,
        STATUS[name],
    )


@pytest.mark.parametrize(
    ("name", "known", "suffix"),
    [
        ("min_cuont", ["min_count", "max_levels"], " Did you mean 'min_count'?"),
        ("zzz", ["min_count"], ""),
        ("age", ["id", "AGE"], " Did you mean 'AGE'?"),
        ("", ["a"], ""),
        ("a", [], ""),
        ("x" * 1_000_000, ["min_count"], ""),
    ],
)
def test_the_nearest_name_is_offered(name: str, known: list[str], suffix: str):
    assert errors.nearest(name, known) == suffix


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ümläut 🚀", "plain ümläut 🚀"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("left\u202eright", r"left\u202eright"),
        ("half\ud800", r"half\ud800"),
        (7, "7"),
        ("", ""),
    ],
)
def test_x16_what_a_terminal_would_obey_is_escaped(text: object, shown: str):
    assert errors.printable(text) == shown


@pytest.mark.parametrize(("length", "shown"), [(200, "x" * 200), (201, "x" * 199 + "…")])
def test_a_long_text_is_cut(length: int, shown: str):
    assert errors.printable("x" * length) == shown
