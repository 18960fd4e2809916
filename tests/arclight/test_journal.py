from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from arclight.errors import ArclightError, ConflictError, IntegrityError
from arclight.journal import Journal, read_entries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITTEN = "120bd6b6521b3af2eb79401b0abb168ab0f88f4ba58041faed3879fc63d3dfbc"
FORK = multiprocessing.get_context("fork")


def clock_that_jumps() -> Iterator[float]:
    yield from (1e9, 1e9 + 3600, 1e9 - 3600, 0.0, 2e9)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A run's folder whose journal has three lines."""
    journal = Journal.open(tmp_path / "run")
    for state in ("started", "failed", "started"):
        journal.note("etl", state, key="k", detail="ä🚀\n")
    journal.close()
    return tmp_path / "run"


def lines(folder: Path) -> list[bytes]:
    return (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)


def write(folder: Path, content: list[bytes]) -> None:
    (folder / "journal.jsonl").write_bytes(b"".join(content))


def test_what_was_noted_is_read_back(three: Path):
    journal = Journal.open(three)
    assert [(e.seq, e.step, e.state, e.attempt) for e in journal.entries] == [
        (1, "etl", "started", 1),
        (2, "etl", "failed", 1),
        (3, "etl", "started", 2),
    ]
    assert not journal.torn
    done = journal.note("etl", "done", result="a@1", seconds=1.5)
    assert (done.seq, done.attempt) == (4, 2)
    assert journal.note("train", "started").attempt == 1
    journal.close()
    entries, last = read_entries((three / "journal.jsonl").read_bytes(), "j")
    assert entries == journal.entries
    assert last == json.loads(lines(three)[-1])["own"]


def test_a_journal_has_the_bytes_that_older_releases_wrote_and_read(tmp_path: Path):
    times = iter((1700000000.0, 1700000001.25, 1.7e9 + 2))
    journal = Journal.open(tmp_path, clock=lambda: next(times))
    journal.note("etl", "started", key="k")
    journal.note("etl", "done", key="k", result="a@1", seconds=2.0)
    journal.note("train", "failed", detail="ä🚀\n")
    journal.close()
    text = (tmp_path / "journal.jsonl").read_bytes()
    assert sha256(text).hexdigest() == WRITTEN


def test_each_line_is_on_disk_before_the_step_goes_on(tmp_path: Path):
    journal = Journal.open(tmp_path)
    for count in (1, 2, 3):
        journal.note("etl", "started")
        assert len(lines(tmp_path)) == count
    journal.close()


def test_j3_a_torn_last_line_is_dropped_and_reported(three: Path):
    whole = lines(three)
    for cut in range(1, len(whole[2])):
        write(three, [*whole[:2], whole[2][:cut]])
        journal = Journal.open(three)
        assert journal.torn
        assert [e.seq for e in journal.entries] == [1, 2]
        if cut % 50 == 0:
            assert journal.note("etl", "started").seq == 3
        journal.close()
    again = Journal.open(three)
    assert not again.torn
    again.close()


DAMAGE = {
    "first removed": (lambda ls: ls[1:], 1, "does not follow"),
    "middle removed": (lambda ls: [ls[0], ls[2]], 2, "does not follow"),
    "two swapped": (lambda ls: [ls[0], ls[2], ls[1]], 2, "does not follow"),
    "one repeated": (lambda ls: [ls[0], ls[0], ls[1]], 2, "does not follow"),
    "first changed": (lambda ls: [ls[0].replace(b'"k"', b'"x"'), *ls[1:]], 1, "was changed"),
    "middle changed": (
        lambda ls: [ls[0], ls[1].replace(b"failed", b"done"), ls[2]],
        2,
        "was changed",
    ),
    "last changed": (lambda ls: [*ls[:2], ls[2].replace(b"started", b"done")], 3, "was changed"),
    "digest removed": (lambda ls: [*ls[:2], strip_own(ls[2])], 3, "was changed"),
    "field added": (lambda ls: [*ls[:2], b'{"x":1,' + ls[2][1:]], 3, "not a journal line"),
    "a blank line": (lambda ls: [ls[0], b"\n", *ls[1:]], 2, "not a journal line"),
    "no JSON": (lambda ls: [b"\x00\xff\n", *ls], 1, "not a journal line"),
}


def strip_own(line: bytes) -> bytes:
    body = json.loads(line)
    del body["own"]
    return json.dumps(body).encode() + b"\n"


def test_x11_a_line_of_another_run_is_named(three: Path, tmp_path: Path):
    other = Journal.open(tmp_path / "other")
    for _ in range(3):
        other.note("etl", "started")
    other.close()
    write(three, [lines(three)[0], lines(tmp_path / "other")[1]])
    with pytest.raises(IntegrityError, match=r"journal\.jsonl:2: .*does not follow"):
        Journal.open(three)


@pytest.mark.parametrize("case", DAMAGE)
def test_x11_a_line_removed_or_changed_is_named(three: Path, case: str):
    damage, number, part = DAMAGE[case]
    write(three, damage(lines(three)))
    before = (three / "journal.jsonl").read_bytes()
    with pytest.raises(IntegrityError, match=rf"journal\.jsonl:{number}: .*{part}"):
        Journal.open(three)
    assert (three / "journal.jsonl").read_bytes() == before
    with pytest.raises(IntegrityError):  # not a conflict: the lock was let go
        Journal.open(three)


def test_two_processes_cannot_open_one_journal(tmp_path: Path):
    journal = Journal.open(tmp_path / "run-7")
    answer = FORK.Queue()

    def child() -> None:
        os.close(journal._stream)  # a forked child would share the lock
        try:
            Journal.open(tmp_path / "run-7")
        except ConflictError as error:
            answer.put(error.message)
        else:
            answer.put("opened")

    process = FORK.Process(target=child)
    process.start()
    assert answer.get(timeout=30) == (
        "run 'run-7' is being run by another process; wait for it or stop it."
    )
    process.join(30)
    with pytest.raises(ConflictError):
        Journal.open(tmp_path / "run-7")
    journal.close()
    journal.close()
    Journal.open(tmp_path / "run-7").close()


def test_j6_a_clock_that_jumps_does_no_harm(tmp_path: Path):
    ticks = clock_that_jumps()
    journal = Journal.open(tmp_path, clock=lambda: next(ticks))
    for _ in range(5):
        journal.note("etl", "started")
    journal.close()
    again = Journal.open(tmp_path)
    assert [e.seq for e in again.entries] == [1, 2, 3, 4, 5]
    assert [e.at for e in again.entries] == list(clock_that_jumps())
    again.close()


def test_text_that_is_no_text_is_kept_readable(tmp_path: Path):
    journal = Journal.open(tmp_path)
    journal.note("etl", "failed", detail=os.fsdecode(b"caf\xe9") + "\u2028\r\n")
    journal.close()
    again = Journal.open(tmp_path)
    assert again.entries[0].detail == "caf\\udce9\u2028\r\n"
    again.close()


def test_e17_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal.open(tmp_path)
    journal.note("etl", "started")
    real = os.write

    def write_half(stream: int, content: memoryview) -> int:
        if len(content) < 60:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(stream, content[:50])

    monkeypatch.setattr(os, "write", write_half)
    with pytest.raises(ArclightError, match=r"must take a line, but No space left.* free space"):
        journal.note("etl", "done")
    monkeypatch.undo()
    assert len(journal.entries) == 1
    assert journal.note("etl", "failed").seq == 2
    journal.close()
    again = Journal.open(tmp_path)
    assert [e.state for e in again.entries] == ["started", "failed"]
    assert not again.torn
    again.close()


def test_an_interrupt_while_a_line_is_written_leaves_a_journal_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = Journal.open(tmp_path)
    journal.note("etl", "started")
    real = os.fsync

    def interrupted(stream: int) -> None:
        real(stream)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        journal.note("etl", "done")
    monkeypatch.undo()
    journal.note("etl", "interrupted")
    journal.close()
    again = Journal.open(tmp_path)
    assert [e.state for e in again.entries] == ["started", "interrupted"]
    again.close()


def test_x15_a_journal_is_private(tmp_path: Path):
    before = os.umask(0)
    try:
        Journal.open(tmp_path / "runs" / "a").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "runs" / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "runs" / "a" / "journal.jsonl").stat().st_mode) == 0o600
