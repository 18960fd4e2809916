"""The trials of a study in a Postgres server: a real one, which is killed and comes back."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager

import pytest

from arclight.errors import ArclightError, ConflictError, IntegrityError, RefusedError, SpecError
from arclight.store import open_store
from arclight.study import alone, find_study, open_study, trial_lines
from arclight.trial_file import TrialFile
from arclight.trial_table import TrialTable, check_url, connect, password_as, reach
from arclight.trials import Trials
from arclight.tune_section import Tune
from tests.arclight.made_records import make_manifest
from tests.arclight.test_study import ended, spec_of

HOLDS = """
import sys
from arclight.trial_table import TrialTable
with TrialTable(sys.argv[1], sys.argv[2]).held() as is_mine:
    print(is_mine, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def table(postgres):
    return TrialTable(postgres.url, uuid.uuid4().hex)


@pytest.fixture(params=["file", "table"])
def lines(request, tmp_path):
    """Both places of lines, which behave alike."""
    if request.param == "file":
        return TrialFile(tmp_path / "trials.jsonl")
    return TrialTable(request.getfixturevalue("postgres").url, uuid.uuid4().hex)


def test_what_was_written_is_read_again(lines):
    trials = Trials.read(lines)
    assert trials.next_number == 0
    with lines.held() as is_mine:
        assert is_mine
        trials.begin(0, {"a": 1})
        trials.begin(1, {"a": 0.1, "b": "ü"})
        trials.end(ended(0, points=((4, 0.25),)))
    again = Trials.read(lines)
    assert (again.ended, again.begun) == (trials.ended, {1: {"a": 0.1, "b": "ü"}})
    trials.close(Tune.model_validate({"space": {"a": {"int": (1, 2)}}}))  # nobody holds it
    again.read_on()
    assert again.over == trials.over is not None
    assert Trials.read(lines) == again


def test_what_another_writes_is_read_on(lines):
    watching, writing = Trials.read(lines), Trials.read(lines)
    with lines.held():
        for number in range(3):
            writing.begin(number, {"a": number})
            watching.read_on()
            assert watching == writing


def test_one_holds_it_at_a_time(lines, tmp_path):
    other = lines if isinstance(lines, TrialFile) else TrialTable(lines.url, lines.study)
    with lines.held() as mine, other.held() as too:
        assert (mine, too) == (True, False)
    with other.held() as mine:
        assert mine


def test_a_line_that_was_changed_or_is_gone_is_named(table, postgres):
    trials = Trials.read(table)
    with table.held():
        for number in range(3):
            trials.begin(number, {"a": number})

    def change(statement):
        postgres.admin(statement, table.study, database="trials")

    change("UPDATE arclight_trials SET body = replace(encode(body, 'escape'), '\"begun\": 1', "
           "'\"begun\": 7')::bytea WHERE study = %s")  # fmt: skip
    with pytest.raises(IntegrityError, match=rf"line 2 of study {table.study} in postgresql://"):
        Trials.read(table)
    change("DELETE FROM arclight_trials WHERE study = %s AND line = 2")
    with pytest.raises(IntegrityError, match=r"line 2 of study .* must be there, since 3 is"):
        Trials.read(table)


def test_who_searches_waits_for_a_server_that_comes_back(table, postgres):
    trials = Trials.read(table)
    with table.held():
        trials.begin(0, {"a": 0})
        postgres.stop()
        back = threading.Timer(1.0, postgres.start)
        back.start()
        try:
            trials.begin(1, {"a": 1})
        finally:
            back.join()
        with TrialTable(table.url, table.study).held() as is_mine:
            assert not is_mine  # it was taken again
        trials.end(ended(0))
    assert Trials.read(table) == trials


def test_a_line_that_the_server_took_just_before_it_was_gone_is_there_once(table, postgres):
    """The answer is lost, not the line."""
    trials = Trials.read(table)
    with table.held():
        trials.begin(0, {"a": 0})
        with TrialTable(table.url, table.study).held():
            body = bytes(table.after(0)[0][0])
        postgres.admin(
            "INSERT INTO arclight_trials (study, line, body) VALUES (%s, 2, %s)",
            table.study, body, database="trials",
        )  # fmt: skip
        table.append(body, is_lasting=True)
        assert table.after(1) == ([body], 2)
        table.append(b"other", is_lasting=True)
    assert table.after(0) == ([body, body, b"other"], 3)


def test_who_lost_it_to_another_writes_no_more(table, postgres, monkeypatch):
    trials = Trials.read(table)
    other = TrialTable(table.url, table.study)
    with table.held():
        trials.begin(0, {"a": 0})
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'arclight'"
        postgres.admin(cut)
        with other.held() as is_mine:
            assert is_mine
            with pytest.raises(ConflictError, match="by another command by now"):
                trials.begin(1, {"a": 1})
            other.append(b"{}", is_lasting=True)
    assert len(table.after(0)[0]) == 2


def test_a_connection_whose_loss_the_server_has_not_seen_is_nobody_else(table):
    """As behind a firewall or a proxy that forgot it: the lock is its own."""
    trials = Trials.read(table)
    with table.held():
        trials.begin(0, {"a": 0})
        lost = table._open.fileno()
        server_side = os.dup(lost)
        gone, other_end = socket.socketpair()
        other_end.close()
        os.dup2(gone.fileno(), lost)
        seen = threading.Timer(1.0, os.close, (server_side,))
        seen.start()
        try:
            trials.begin(1, {"a": 1})
        finally:
            seen.join()
            gone.close()
        with TrialTable(table.url, table.study).held() as is_mine:
            assert not is_mine
    assert Trials.read(table) == trials


def test_one_patience_is_had_with_a_server_however_many_trials_wait(table, postgres, monkeypatch):
    monkeypatch.setattr("arclight.trial_table.PATIENCE_S", 1.0)
    trials, tries = Trials.read(table), []

    def counted(url):
        tries.append(url)
        return connect(url)

    with table.held():
        trials.begin(0, {"a": 0})
        monkeypatch.setattr("arclight.trial_table.connect", counted)
        postgres.stop()
        try:
            with pytest.raises(ArclightError, match="the same command goes on"):
                trials.begin(1, {"a": 1})
            tries.clear()
            for number in (1, 2):
                with pytest.raises(ArclightError, match="the same command goes on"):
                    trials.begin(number, {"a": number})
            assert len(tries) == 2
        finally:
            postgres.start()
        trials.begin(1, {"a": 1})
        monkeypatch.setattr("arclight.trial_table.PATIENCE_S", 60.0)  # it is there again
        postgres.stop()
        back = threading.Timer(0.3, postgres.start)
        back.start()
        try:
            trials.begin(2, {"a": 2})
        finally:
            back.join()
    assert Trials.read(table) == trials


@pytest.fixture
def silence(table, postgres, monkeypatch):
    """Blocks for whose length the server is there and answers nothing of the table."""
    import psycopg

    monkeypatch.setattr("arclight.trial_table.ANSWERS_S", 0.3)

    @contextmanager
    def silent():
        where = f"postgresql://admin@127.0.0.1:{postgres.port}/trials"
        with psycopg.connect(where) as other:
            other.execute("LOCK TABLE arclight_trials")
            yield other

    return silent


def test_who_searches_waits_for_a_server_that_is_silent(table, silence):
    trials = Trials.read(table)
    with table.held():
        trials.begin(0, {"a": 0})
        with silence() as other:
            with pytest.raises(ArclightError, match="must be kept in postgresql://"):
                table.after(0)
            speaks = threading.Timer(1.0, other.rollback)
            speaks.start()
            trials.begin(1, {"a": 1})
            speaks.join()
        with TrialTable(table.url, table.study).held() as is_mine:
            assert not is_mine
    assert Trials.read(table) == trials


def test_a_server_that_stays_silent_ends_the_search(table, silence, monkeypatch):
    monkeypatch.setattr("arclight.trial_table.PATIENCE_S", 1.0)
    trials = Trials.read(table)
    with table.held():
        trials.begin(0, {"a": 0})
        with silence(), pytest.raises(ArclightError, match="the same command goes on"):
            trials.begin(1, {"a": 1})
    assert len(Trials.read(table).begun) in (1, 2)  # it may have taken what it was silent on


def test_a_server_that_came_back_without_the_last_lines_gets_no_line_behind_a_gap(table, postgres):
    """As after a failover to one that had not all of them: what is there can be gone on with."""
    trials = Trials.read(table)
    with table.held():
        for number in range(3):
            trials.begin(number, {"a": number})
        postgres.admin(
            "DELETE FROM arclight_trials WHERE study = %s AND line = 3",
            table.study, database="trials",
        )  # fmt: skip
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'arclight'"
        postgres.admin(cut)
        with pytest.raises(IntegrityError, match="must have 3 lines, but has 2 since the server"):
            trials.begin(3, {"a": 3})
    again = Trials.read(table)
    assert sorted(again.begun) == [0, 1]
    with table.held():
        again.begin(2, {"a": 2})
    assert Trials.read(table) == again


def test_what_was_let_go_of_is_free_before_the_server_sees_the_end(table, monkeypatch):
    """As behind a pooler, which keeps the connection."""
    kept = []

    def keep(connection):
        kept.append(connection)

    with monkeypatch.context() as pooled:
        pooled.setattr("psycopg.Connection.close", keep)
        with table.held() as is_mine:
            assert is_mine
        table.append(b"{}", is_lasting=True)
    for connection in kept:
        connection.close()
    assert table.after(0) == ([b"{}"], 1)


def test_what_two_wrote_in_the_same_place_is_not_mixed(table, postgres):
    with table.held():
        table.append(b"mine", is_lasting=True)
        postgres.admin(
            "INSERT INTO arclight_trials (study, line, body) VALUES (%s, 2, 'theirs')",
            table.study, database="trials",
        )  # fmt: skip
        with pytest.raises(ConflictError, match="by another command by now"):
            table.append(b"mine too", is_lasting=True)
    assert table.after(0)[0] == [b"mine", b"theirs"]


def test_a_process_that_was_killed_holds_nothing(table):
    words = [sys.executable, "-c", HOLDS, table.url, table.study]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"True\n"
        with table.held() as is_mine:
            assert not is_mine
        holder.kill()
    until = time.monotonic() + 30
    while True:  # the server learns of it at once, but of itself
        with table.held() as is_mine:
            if is_mine:
                return
        assert time.monotonic() < until
        time.sleep(0.05)


def test_two_who_make_the_table_at_once_do(postgres):
    postgres.admin("DROP TABLE IF EXISTS arclight_trials", database="trials")
    tables = [TrialTable(postgres.url, uuid.uuid4().hex) for _ in range(6)]
    failed = []

    def write(table):
        try:
            with table.held():
                table.append(b"{}", is_lasting=True)
        except ArclightError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(table,)) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [table.after(0)[1] for table in tables] == [1] * 6


def test_a_database_without_the_table_has_no_trials(postgres):
    postgres.admin("DROP TABLE IF EXISTS arclight_trials", database="trials")
    assert TrialTable(postgres.url, "none").after(0) == ([], 0)


def test_studies_of_two_stores_are_two(postgres, tmp_path):
    manifest, spec = make_manifest(), spec_of({"storage": postgres.url})
    first, trials = open_study(open_store(tmp_path / "a"), manifest, spec)
    with alone(trials.lines, first):
        trials.begin(0, {})
    second, others = open_study(open_store(tmp_path / "b"), manifest, spec)
    assert (first.key, first.ref) == (second.key, second.ref)
    assert (others.begun, first.lines == second.lines) == ({}, False)
    again, known = open_study(open_store(tmp_path / "a"), manifest, spec)
    assert (again.lines, known.begun) == (first.lines, {0: {}})
    read = find_study(open_store(tmp_path / "a"), first.ref)
    assert trial_lines(open_store(tmp_path / "a"), read) == trials.lines
    # its trials are not left behind in silence
    with pytest.raises(RefusedError, match=r"tune\.storage \(postgresql://.*, now None\)"):
        open_study(open_store(tmp_path / "a"), manifest, spec_of())


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("sqlite:///here.db", "must be the URL of a Postgres database such as postgresql://"),
        ("postgresql://a:secret@host/db", "must hold no password"),
        ("postgresql://a@host/db?password=secret", "must hold no password"),
        ("postgresql://a@host/db#?password=secret", "must hold no password"),
        ("postgresql://a:se/secret@host/db", "must hold no password"),
        ("postgresql://a:secret@host:none/db", "must hold no password"),
        ("host=a password=secret", "must hold no password"),
        ("postgresql://a@host/db#?passfile=/etc/shadow", "must be the URL of a Postgres"),
        ("postgresql://a@host,other:none/db", "must be the URL of a Postgres"),
        ("postgresql://a@host:1,other:65536/db", "must be the URL of a Postgres"),
        ("postgresql:db", "must be the URL of a Postgres"),
        ("POSTGRESQL://a@host/db", "must be the URL of a Postgres"),
        ("postgresql://a@host/db?passfile=/etc/shadow", "option 'passfile' must be one of host"),
        ("postgresql://a@host:none/db", "must be the URL of a Postgres"),
        ("postgresql://a@host/d\nb", "must be the URL of a Postgres"),
        ("host=a dbname=b", "must be the URL of a Postgres"),
    ],
)
def test_a_url_that_a_spec_must_not_hold_is_refused(url, rule):
    with pytest.raises(ValueError, match=rule) as told:
        check_url(url)
    assert "secret" not in str(told.value)
    with pytest.raises(ValueError, match="storage"):
        Tune.model_validate_json(json.dumps({"storage": url, "space": {"a": {"int": [1, 2]}}}))


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("postgres://a@one:5432,two:5433/db", "one,two", "5432,5433"),
        ("postgresql://a@[::1]:5432,[fe80::1%25eth0]:5433/db", "::1,fe80::1%eth0", "5432,5433"),
        ("postgresql://a@%2Frun%2Fpostgresql:5433/db", "/run/postgresql", "5433"),
        ("postgresql://a@/db?host=/run,two&port=5432,5433", "/run,two", "5432,5433"),
        ("postgresql:///db", None, None),
    ],
)
def test_what_libpq_takes_for_a_url_is_one(url, hosts, ports):
    from psycopg.conninfo import conninfo_to_dict

    assert check_url(url) == url
    known = conninfo_to_dict(url)
    assert (known.get("host"), known.get("port")) == (hosts, ports)


def test_a_server_that_is_not_there_is_a_sentence_without_the_password(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "secret")
    with pytest.raises(ArclightError, match="the trials must be kept in postgresql://") as told:
        reach("postgresql://a@127.0.0.1:1/db")
    assert told.value.message.count("\n") == 0
    assert "secret" not in told.value.message


def test_a_wrong_password_is_told(postgres, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(ArclightError, match="password authentication failed"):
        reach(postgres.url)


def test_the_password_of_who_asked_is_had_for_a_while(postgres, monkeypatch):
    given = os.environ["PGPASSWORD"]
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(ArclightError, match="no password supplied"):
        reach(postgres.url)
    with password_as(given):
        reach(postgres.url)
    assert "PGPASSWORD" not in os.environ
    with password_as(None):
        assert "PGPASSWORD" not in os.environ


def test_a_role_that_may_make_no_table_is_told(postgres):
    postgres.admin("DROP TABLE IF EXISTS arclight_trials", database="trials")
    postgres.admin("CREATE ROLE guest LOGIN PASSWORD %s", os.environ["PGPASSWORD"])
    url = postgres.url.replace("arclight@", "guest@")
    with (
        pytest.raises(ArclightError, match="permission denied for schema public"),
        TrialTable(url, "none").held(),
    ):
        pass


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("postgresql://a@far.example/db", "verify-full"),
        ("postgresql://a@localhost,far.example/db", "verify-full"),
        ("postgresql://a@far.example/db?sslmode=require", None),
        ("postgresql://a@127.0.0.1/db", None),
        ("postgresql:///db?host=/run/postgresql", None),
    ],
)
def test_another_machine_must_prove_who_it_is(url, asked, monkeypatch):
    given = {}
    monkeypatch.setattr("psycopg.connect", lambda url, **more: given.update(more))
    connect(url)
    assert given.get("sslmode") == asked


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SpecError, match=r"pip install 'arclight\[postgres\]'"):
        reach("postgresql://a@127.0.0.1/db")
