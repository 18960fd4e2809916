from __future__ import annotations

import os

import pytest

from cluster.environment import environment


def test_variables_are_put_back_even_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARC_A", "old")
    monkeypatch.setenv("ARC_B", "here")
    monkeypatch.delenv("ARC_C", raising=False)
    changed = {"ARC_A": "new", "ARC_B": None, "ARC_C": "made"}
    seen: list[str | None] = []
    with pytest.raises(KeyError):
        look_and_fail(changed, seen)
    assert seen == ["new", None, "made"]
    assert os.environ["ARC_A"] == "old"
    assert os.environ["ARC_B"] == "here"
    assert "ARC_C" not in os.environ


def look_and_fail(changed: dict[str, str | None], seen: list[str | None]) -> None:
    with environment(changed):
        seen.extend(os.environ.get(name) for name in changed)
        raise KeyError
