"""X16: what stands in names and values is shown on a terminal and never obeyed by it."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from arclight.errors import DataError
from jobs.guard import guarded
from jobs.say import answer, progress, say, say_table

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


def test_the_title_of_a_table_is_text(capsys):
    say_table("keys[/x].json\x1b[31m [red]", ("key",), [("a" * 60,)])
    assert "keys[/x].json\\x1b[31m [red]" in capsys.readouterr().err


def test_no_name_between_colons_becomes_a_picture(capsys):
    say("10 rows for infinite:a: is that meant?")
    say_table("of a:b:c", ("what:b:", "rows"), [("ledger key: check:ok:", "1")])
    said = capsys.readouterr().err
    for name in ("infinite:a:", "a:b:c", "what:b:", "check:ok:"):
        assert name in said


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


LONG = ("delivery-times-of-the-north-20260101-120000-abcdef", "/a" * 150, "what " * 30 + "end")


@pytest.mark.parametrize("columns", ["40", "80"])
def test_what_is_to_be_copied_is_whole_in_a_pipe(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    say_table("t", ("run", "folder", "what"), [LONG, ("a", "b", "c")])
    lines = _lines(capsys.readouterr().err)
    assert len(lines) == 7  # title, head, two rows and three borders: no row is folded
    assert sum(all(cell.strip() in line for cell in LONG) for line in lines) == 1


def test_a_terminal_folds_and_cuts_nothing(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        "jobs.say.console", lambda: Console(file=screen, force_terminal=True, width=80)
    )
    say_table("t", ("run", "folder"), [LONG[:2]])
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    halves = [line.split("│")[1:3] for line in lines if line.startswith("│")]
    assert ["".join(parts).replace(" ", "") for parts in zip(*halves, strict=True)] == list(
        LONG[:2]
    )


def test_where_no_bar_can_be_drawn_a_long_step_says_now_and_then_how_far_it_is(
    capsys, monkeypatch
):
    monkeypatch.setattr("jobs.say.SAID_EVERY_S", 3600.0)
    with progress("tune") as tick:
        tick(1, 9, "best 0.7")
        monkeypatch.setattr("jobs.say.SAID_EVERY_S", 0.0)
        tick(1234, 2000, "best 0.8, 2 running")
        tick(5, None, "")
    said = capsys.readouterr().err.splitlines()
    assert said == ["tune: begun.", "tune: 1,234 of 2,000, best 0.8, 2 running", "tune: 5"]
