"""X16: what stands in names and values is shown on a terminal and never obeyed by it."""

from __future__ import annotations

import json

import pytest

from arclight.errors import DataError
from jobs.cli import guarded
from jobs.say import answer, say, say_table

HOSTILE = "a\x1b[2J\x1b]0;owned\x07b\rc\nd\x9b31m\u202ee\u2028f[red]g[/red]"
SHOWN = r"a\x1b[2J\x1b]0;owned\x07b\rc\nd\x9b31m\u202ee\u2028f[red]g[/red]"


def _lines(text: str) -> list[str]:
    assert not any(c in text for c in "\x1b\x07\r\x9b\u202e\u2028"), repr(text)
    return text.splitlines()


def test_a_line_is_one_line(capsys):
    say(f"column '{HOSTILE}' is new.")
    assert _lines(capsys.readouterr().err) == [f"column '{SHOWN}' is new."]


def test_a_table_shows_what_stands_in_it(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    say_table("t", ("name", "value"), [(HOSTILE, HOSTILE)])
    lines = _lines(capsys.readouterr().err)
    assert sum(SHOWN in line for line in lines) == 1
    assert not any(line.startswith("d") for line in lines)


@pytest.mark.parametrize(
    "error", [DataError(f"'{HOSTILE}' must not be."), KeyError(HOSTILE), ValueError(HOSTILE)]
)
def test_an_error_is_shown_as_text(capsys, error):
    def fail() -> None:
        raise error

    assert guarded(fail) == 1
    lines = _lines(capsys.readouterr().err)
    assert lines[-1].startswith("arclight: ")


def test_json_is_ascii_and_gives_the_text_back(capsys):
    answer({"name": HOSTILE}, as_json=True)
    out = capsys.readouterr().out
    assert out.isascii()
    assert len(_lines(out)) == 1
    assert json.loads(out) == {"name": HOSTILE}
