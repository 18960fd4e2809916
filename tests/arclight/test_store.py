"""The commit rule, with real processes, real kills and a folder that refuses."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import stat
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from arclight import failpoint
from arclight.errors import ArclightError, IntegrityError, MissingError, SpecError
from arclight.store import (
    Record,
    Store,
    check_file,
    discard,
    flush_tree,
    make_folder,
    open_private,
    open_store,
    sha256_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FORK = multiprocessing.get_context("fork")
PLACE = ("datasets", "a", "versions")
NOBODY = 65534


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def never(_record: Record) -> bool:
    return False


def in_processes(work: Callable[[int], None], count: int) -> list[int | None]:
    """Run work(0), work(1), … in processes that begin together; return their exit codes."""
    barrier = FORK.Barrier(count)

    def begin(number: int) -> None:
        barrier.wait(30)
        work(number)

    children = [FORK.Process(target=begin, args=(i,)) for i in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    return [child.exitcode for child in children]


def test_numbers_rise_from_one(store: Store):
    for expected in (1, 2, 3):
        record = store.append(lambda n: f"text {n}", never, *PLACE)
        assert (record.number, record.text) == (expected, f"text {expected}".encode())
    assert store.numbers(*PLACE) == (1, 2, 3)
    assert [r.number for r in store.records(*PLACE)] == [3, 2, 1]
    assert store.record(2, *PLACE).text == b"text 2"


def test_numbers_sort_as_numbers(store: Store):
    for _ in range(11):
        store.append(lambda _: "x", never, *PLACE)
    assert next(store.records(*PLACE)).number == 11


def test_a_record_is_never_overwritten(store: Store):
    assert store.publish(1, "first", *PLACE)
    assert not store.publish(1, "second", *PLACE)
    assert store.record(1, *PLACE).text == b"first"
    assert [p.name for p in store.path(*PLACE).iterdir()] == ["1.json"]


def test_the_same_thing_twice_gives_the_first_record(store: Store):
    def taken(record: Record) -> bool:
        return record.text == b"key"

    first = store.append(lambda _: "key", taken, *PLACE)
    store.append(lambda _: "another", never, *PLACE)
    assert store.append(lambda _: "key", taken, *PLACE) == first
    assert store.numbers(*PLACE) == (1, 2)


def test_fifty_registrations_at_once_get_fifty_numbers(store: Store):
    def work(number: int) -> None:
        store.append(lambda n: f"{number} {n}", never, *PLACE)

    assert in_processes(work, 50) == [0] * 50
    records = list(store.records(*PLACE))
    assert store.numbers(*PLACE) == tuple(range(1, 51))
    texts = [tuple(map(int, record.text.split())) for record in records]
    assert sorted(who for who, _ in texts) == list(range(50))
    assert all(number == record.number for (_, number), record in zip(texts, records, strict=True))


def test_one_key_from_many_processes_gets_one_number(store: Store):
    def work(number: int) -> None:
        store.append(
            lambda _: f"key{number % 3}", lambda r: r.text == f"key{number % 3}".encode(), *PLACE
        )

    assert in_processes(work, 12) == [0] * 12
    assert sorted(r.text for r in store.records(*PLACE)) == [b"key0", b"key1", b"key2"]


def test_two_processes_race_200_times_and_one_wins_each(store: Store):
    wins = FORK.Array("i", 400)
    barrier = FORK.Barrier(2)

    def work(me: int) -> None:
        for race in range(200):
            barrier.wait(30)
            wins[2 * race + me] = store.publish(1, f"{me}", "race", str(race))

    assert in_processes(work, 2) == [0, 0]
    pairs = [(wins[2 * race], wins[2 * race + 1]) for race in range(200)]
    assert Counter(sum(pair) for pair in pairs) == {1: 200}
    for race, (first, _) in enumerate(pairs):
        assert store.record(1, "race", str(race)).text == (b"0" if first else b"1")


@pytest.mark.parametrize("text", ["", " \n"])
def test_r4_an_empty_record_is_named_and_its_number_not_used_again(store: Store, text: str):
    store.append(lambda _: "a", never, *PLACE)
    store.path(*PLACE, "2.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"2\.json' must not be empty"):
        store.record(2, *PLACE)
    assert store.append(lambda _: "b", never, *PLACE).number == 3
    assert store.append(lambda _: "a", lambda r: r.text == b"a", *PLACE).number == 1
    assert store.numbers(*PLACE) == (1, 2, 3)


def test_r4_a_record_that_cannot_be_parsed_hides_no_other(store: Store):
    def taken(record: Record) -> bool:
        if record.text == b"torn":
            raise IntegrityError("torn")
        return record.text == wanted

    for text in ("torn", "b", "c", "torn"):
        store.append(lambda _, text=text: text, never, *PLACE)  # type: ignore[misc]
    wanted = b"c"
    assert store.append(lambda _: "c", taken, *PLACE).number == 3
    wanted = b"d"
    assert store.append(lambda _: "d", taken, *PLACE).number == 5


def test_a_removed_record_leaves_its_number_unused(store: Store):
    for _ in range(3):
        store.append(lambda _: "x", never, *PLACE)
    store.path(*PLACE, "2.json").unlink()
    assert store.append(lambda _: "y", never, *PLACE).number == 4
    with pytest.raises(MissingError, match=r"2\.json' does not exist"):
        store.record(2, *PLACE)


@pytest.mark.parametrize(
    "name",
    [
        "0.json",
        "01.json",
        "1.json~",
        "x.json",
        "٣.json",
        "1.json\n",
        "-1.json",
        ".1.json",
        "9" * 30 + ".json",
    ],
)
def test_other_files_are_no_records(store: Store, name: str):
    store.append(lambda _: "x", never, *PLACE)
    store.path(*PLACE).joinpath(name).write_text("stray")
    assert store.numbers(*PLACE) == (1,)


def test_a_file_where_a_folder_is_expected_holds_no_records(store: Store):
    store.path("datasets").write_text("stray")
    assert store.numbers("datasets", "a") == ()


def test_e17_a_record_that_cannot_be_written_is_one_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(
        ArclightError, match=r"1\.json' must be written, but No space left .* again"
    ):
        store.append(lambda _: "x", never, *PLACE)
    monkeypatch.undo()
    assert list(store.path(*PLACE).iterdir()) == []
    assert store.append(lambda _: "x", never, *PLACE).number == 1


@pytest.mark.parametrize("point", ["before-link", "after-link"])
def test_e16_killed_at_the_link_a_record_is_absent_or_complete(store: Store, point: str):
    def work(_: int) -> None:
        staged = store.stage("datasets", "a")
        (staged / "part-0.parquet").write_bytes(b"data")
        flush_tree(staged)
        failpoint.arm(f"datasets.versions.{point}")
        store.append(lambda _: "whole", never, *PLACE)

    assert in_processes(work, 1) == [-signal.SIGKILL]
    found = [record.text for record in store.records(*PLACE)]
    assert found == ([] if point == "before-link" else [b"whole"])
    assert len(list(store.path("datasets", "a", "data").iterdir())) == 1
    again = store.append(lambda _: "whole", lambda r: r.text == b"whole", *PLACE)
    assert again.number == 1


def test_two_staged_folders_are_two(store: Store):
    one, two = store.stage("models", "m"), store.stage("models", "m")
    assert one != two
    assert one.parent == two.parent == store.path("models", "m", "data")
    discard(one)
    discard(one)
    assert not one.exists()
    assert two.exists()


@pytest.mark.parametrize("name", ["..", ".", "", "/", "a/b", "/etc", "a\0b", "../..", "..\0"])
def test_x2_no_name_leads_out_of_the_store(store: Store, name: str):
    canary = store.root.parent / "canary"
    canary.write_text("secret")
    for parts in ((name,), ("datasets", name), (name, "canary")):
        with pytest.raises(SpecError, match="must be a plain name"):
            store.path(*parts)
        with pytest.raises(SpecError, match="must be a plain name"):
            store.publish(1, "x", *parts)
    assert canary.read_text() == "secret"


@pytest.fixture(params=[0o000, 0o777], ids=oct)
def any_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("any_umask")
def test_x15_everything_is_private_whatever_the_umask(tmp_path: Path):
    store = open_store(tmp_path / "deep" / "store")
    store.append(lambda _: "x", never, *PLACE)
    staged = store.stage("models", "m")
    with open_private(staged / "secret") as stream:
        stream.write(b"x")
    made = [store.root.parent, store.root, *store.root.rglob("*")]
    assert len(made) > 8
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in made}
    assert modes == {p.name: 0o700 if p.is_dir() else 0o600 for p in made}


def test_a_folder_that_was_there_keeps_its_rights(tmp_path: Path):
    tmp_path.chmod(0o755)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_private_file_is_new(tmp_path: Path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileExistsError):
        open_private(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        open_private(tmp_path / "link")


def as_somebody_else(work: Callable[[], None]) -> str:
    """Run work in a process without root's rights and return the sentence it fails with."""
    answer = FORK.Queue()

    def child() -> None:
        if os.getuid() == 0:
            os.setuid(NOBODY)
        try:
            work()
        except ArclightError as error:
            answer.put(f"{type(error).__name__} {error.message}")
        else:
            answer.put("no error")

    process = FORK.Process(target=child)
    process.start()
    found = answer.get(timeout=30)
    process.join(30)
    return str(found)


def test_j8_a_store_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    folder = tmp_path / "readonly"
    folder.mkdir(mode=0o555)
    said = as_somebody_else(lambda: open_store(folder) and None)
    assert said == (
        f"ArclightError store '{folder}' must be a folder that can be written, but Permission "
        "denied; use --store FOLDER or mend its rights or free space."
    )


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("s3://bucket/x", "object stores are not supported yet"),
        ("", "must be a folder"),
        ("  ", "must be a folder"),
        ("a\0b", "must be a folder"),
    ],
)
def test_an_address_that_is_no_folder(uri: str, part: str):
    with pytest.raises(SpecError, match=part):
        open_store(uri)


def test_a_file_is_no_store(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/below", "x" * 300):
        with pytest.raises(ArclightError, match="must be a folder that can be written"):
            open_store(tmp_path / place)


def test_a_store_is_opened_at_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("s").root == tmp_path / "s"
    assert open_store(f"file://{tmp_path}/s").root == tmp_path / "s"
    assert list((tmp_path / "s").iterdir()) == []


def test_changed_bytes_are_refused_before_anything_reads_them(tmp_path: Path):
    file = tmp_path / "part"
    file.write_bytes(b"0123456789" * 200_000)
    size, digest = file.stat().st_size, sha256_file(file)
    check_file(file, size_bytes=size, sha256=digest)
    with file.open("r+b") as stream:
        stream.seek(1_500_000)
        stream.write(b"x")
    with pytest.raises(
        IntegrityError, match=r"part' must have the SHA-256 .* but its bytes differ"
    ):
        check_file(file, size_bytes=size, sha256=digest)
    file.write_bytes(b"0" * 10)
    with pytest.raises(IntegrityError, match="must have 2,000,000 bytes as published, got 10"):
        check_file(file, size_bytes=size, sha256=digest)
    file.unlink()
    with pytest.raises(IntegrityError, match="is recorded but not there"):
        check_file(file, size_bytes=size, sha256=digest)


def test_the_sha256_is_the_usual_one(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
