"""Waiting for a job outlives a server that does not answer for a while; a list asks it once."""

from __future__ import annotations

import json
import shlex
import socket
from typing import TYPE_CHECKING

import pytest

from arclight.errors import EngineError, RefusedError
from arclight.spec_file import load_spec
from arclight.store import open_store
from cluster.profiles import Profile, RayPlace
from cluster.tokens import create_token
from jobs import watch
from jobs.runs import store_words
from jobs.submissions import JobState, create_submission, record_exit

if TYPE_CHECKING:
    from pathlib import Path

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


def test_what_is_typed_next_finds_the_store(tmp_path: Path, monkeypatch):
    store = open_store(tmp_path / "a folder" / ".arclight")
    monkeypatch.chdir(tmp_path)
    assert shlex.split(store_words(None, store.root)) == ["--store", str(store.root)]
    monkeypatch.chdir(tmp_path / "a folder")
    assert store_words(None, store.root) == ""  # where it is looked for when none is given
    assert "--store" in store_words("here", store.root)  # ARCLIGHT_STORE may name another one


def test_a_list_asks_a_silent_server_once(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(watch, "LIST_TIMEOUT_S", 0.2)
    create_token(tmp_path / "token")
    (tmp_path / "spec.yaml").write_text(
        "{name: flights, task: binary, sources: {t: {path: t}}, etl: {label: late}}"
    )
    store = open_store(tmp_path / "store")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        place = Profile(name="x", ray=RayPlace(jobs_url=url, token_path=str(tmp_path / "token")))
        loaded = load_spec(tmp_path / "spec.yaml")
        made = [create_submission(store, loaded, place, attempt=n).id for n in (1, 2, 3)]
        record_exit(store, made[-1], status=0, reason="well")
        watch.jobs_command(store=str(store.root), as_json=True)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # nobody else knocked
            silent.accept()
    rows = {row["job"]: row for row in json.loads(capsys.readouterr().out)["jobs"]}
    assert [rows[job]["state"] for job in made] == ["unknown", "unknown", "done"]
    assert all(f"{url} cannot be reached" in rows[job]["reason"] for job in made[:2])
