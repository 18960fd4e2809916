"""Waiting for a job outlives a server that does not answer for a while."""

from __future__ import annotations

import pytest

from arclight.errors import EngineError, RefusedError
from jobs import watch
from jobs.submissions import JobState

DOWN = EngineError("the job server cannot be reached.")


def waited(monkeypatch: pytest.MonkeyPatch, *answers: object) -> JobState:
    left = list(answers)

    def look(*_: object) -> object:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(watch, "look", look)
    monkeypatch.setattr(watch, "POLL_S", 0.0)
    state = watch.wait_for(None, None, None, poll_s=0.0)  # type: ignore[arg-type]
    assert not left
    return state


def test_a_server_that_is_away_for_a_while_is_asked_again(monkeypatch, capsys):
    running, done = JobState("running", ""), JobState("done", "")
    assert waited(monkeypatch, running, DOWN, DOWN, running, DOWN, done) == done
    assert capsys.readouterr().err.count("Asking again for 120 s") == 2


def test_a_server_that_never_answered_is_told_at_once(monkeypatch):
    with pytest.raises(EngineError, match="cannot be reached"):
        waited(monkeypatch, DOWN, JobState("done", ""))


def test_patience_ends(monkeypatch):
    monkeypatch.setattr(watch, "PATIENCE_S", -1.0)
    with pytest.raises(EngineError, match="cannot be reached"):
        waited(monkeypatch, JobState("running", ""), DOWN, JobState("done", ""))


def test_a_refusal_is_no_blip(monkeypatch):
    refused = RefusedError("the token is not this server's.")
    with pytest.raises(RefusedError):
        waited(monkeypatch, JobState("running", ""), refused, JobState("done", ""))
