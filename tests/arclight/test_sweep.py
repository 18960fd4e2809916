"""Promise 5: what no record and no live run names goes, when told, after a while; nothing else."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from arclight import sweep
from arclight.catalog import Catalog
from arclight.errors import ConflictError
from arclight.failpoint import arm
from arclight.journal import Journal, is_open
from arclight.store import discard, held, open_store
from arclight.sweep import Leftover, decide, find_leftovers, remove
from tests.arclight.made_records import make_bundle, make_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arclight.store import Store

FORK = multiprocessing.get_context("fork")
RUN = "flights-20260101-000000-abcdef"
DAY_S = 86_400.0


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(open_store(tmp_path / "store"))


def stage(catalog: Catalog, shelf: str = "datasets", *, age_s: float = 2 * DAY_S) -> Path:
    """Make a folder as a run does, changed so long ago."""
    folder = catalog.store.stage(shelf, "flights")
    (folder / "train").mkdir()
    (folder / "train" / "part-0.parquet").write_bytes(b"x" * 5000)
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (time.time() - age_s,) * 2)
    return folder


def publish(catalog: Catalog, folder: Path, key: str = "k1") -> None:
    place = folder.relative_to(catalog.store.root).as_posix()
    if place.startswith("datasets"):
        catalog.publish_dataset(make_manifest(key=key).model_copy(update={"folder": place}))
    else:
        catalog.publish_model(make_bundle(key=key).model_copy(update={"folder": place}))


def found(catalog: Catalog, **options: Any) -> dict[Path, str]:
    findings = find_leftovers(catalog.store, **{"clock": time.time(), "grace_s": DAY_S, **options})
    return {left.path: left.kept for left in findings.leftovers}


@pytest.mark.parametrize("shelf", ["datasets", "models"])
def test_what_a_record_names_is_none(catalog: Catalog, shelf: str) -> None:
    named, free = stage(catalog, shelf), stage(catalog, shelf)
    publish(catalog, named)
    assert found(catalog) == {free: ""}


def test_a_record_of_another_name_counts_too(catalog: Catalog) -> None:
    folder = stage(catalog)
    place = folder.relative_to(catalog.store.root).as_posix()
    other = make_manifest(name="other").model_copy(update={"folder": place})
    catalog.publish_dataset(other)
    assert found(catalog) == {}


@pytest.mark.parametrize("text", ["", "{", '{"kind": "dataset", "version": 99}'])
def test_a_record_that_cannot_be_read_keeps_all_of_its_name(catalog: Catalog, text: str) -> None:
    stage(catalog)
    other = stage(catalog, "models")
    record = catalog.store.path("datasets", "flights", "versions", "1.json")
    record.parent.mkdir()
    record.write_text(text)
    findings = find_leftovers(catalog.store, clock=time.time(), grace_s=0)
    assert [left.path for left in findings.removable] == [other]
    assert [str(record) in reason for reason in findings.refused] == [True]


def test_what_changed_lately_stays_however_deep(catalog: Catalog) -> None:
    folder = stage(catalog)
    os.utime(folder / "train" / "part-0.parquet")
    assert found(catalog)[folder].startswith("changed ")
    assert found(catalog, clock=time.time() + 2 * DAY_S) == {folder: ""}
    assert found(catalog, grace_s=0) == {folder: ""}


def test_a_live_run_keeps_what_has_its_name(catalog: Catalog) -> None:
    folder = stage(catalog)
    journal = Journal.open(catalog.store.path("runs", RUN))
    assert found(catalog) == {folder: "in use"}
    journal.close()
    assert found(catalog) == {folder: ""}


@pytest.mark.parametrize(
    "place", ["checkpoints/flights/0a1b", f"runs/{RUN}/fit", f"runs/{RUN}/spark"]
)
def test_checkpoints_and_scratch_go_when_nobody_goes_on(catalog: Catalog, place: str) -> None:
    folder = catalog.store.root / place
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "model").write_bytes(b"x" * 100)
    assert found(catalog)[folder].startswith("changed ")
    journal = Journal.open(catalog.store.path("runs", RUN))
    assert found(catalog, grace_s=0) == {folder: "in use"}
    journal.close()
    assert found(catalog, grace_s=0) == {folder: ""}
    (leftover,) = find_leftovers(catalog.store, clock=time.time(), grace_s=0).removable
    remove(leftover)
    assert not folder.exists()
    assert (catalog.store.path("runs", RUN) / "journal.jsonl").exists()


def test_a_live_run_of_another_name_keeps_nothing(catalog: Catalog) -> None:
    folder = stage(catalog)
    journal = Journal.open(catalog.store.path("runs", RUN.replace("flights", "flights-late")))
    assert found(catalog) == {folder: ""}
    journal.close()


def test_looking_at_a_run_does_not_end_its_hold(catalog: Catalog) -> None:
    journal = Journal.open(catalog.store.path("runs", RUN))
    found(catalog)
    with pytest.raises(ConflictError):
        Journal.open(catalog.store.path("runs", RUN))
    journal.close()


def test_a_run_that_ends_while_we_look_has_published(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stage(catalog)
    journal = Journal.open(catalog.store.path("runs", RUN))

    def look(run: Path) -> bool:
        publish(catalog, folder)
        journal.close()
        return is_open(run)

    monkeypatch.setattr(sweep, "is_open", look)
    assert found(catalog) == {}


def test_a_run_that_begins_while_we_look_is_not_seen(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals = []

    def read(store: Store) -> Any:
        journals.append(Journal.open(store.path("runs", RUN)))
        stage(catalog)
        return read_records(store)

    read_records = sweep._read_records
    monkeypatch.setattr(sweep, "_read_records", read)
    assert found(catalog) == {}
    journals[0].close()


def test_links_and_other_names_are_not_looked_at(catalog: Catalog, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(stage(catalog), outside)
    data = catalog.store.path("datasets", "flights", "data")
    (data / ("0" * 32)).symlink_to(outside)
    (data / "mine").mkdir()
    (catalog.store.path("models")).mkdir(exist_ok=True)
    (catalog.store.path("models") / "flights").symlink_to(outside)
    assert found(catalog, grace_s=0) == {}


def test_removing_frees_what_was_said(catalog: Catalog) -> None:
    folder = stage(catalog)
    (left,) = find_leftovers(catalog.store, clock=time.time(), grace_s=DAY_S).removable
    assert left.size_bytes >= 5000
    remove(left)
    assert not folder.exists()
    remove(left)  # again is the same
    assert found(catalog) == {}


def test_what_somebody_holds_is_not_removed(tmp_path: Path) -> None:
    with held(tmp_path) as is_held, held(tmp_path) as is_shared:
        assert is_held
        assert is_shared
        with pytest.raises(ConflictError, match="somebody holds it"):
            remove(Leftover(path=tmp_path, size_bytes=0, idle_s=0.0))
    assert tmp_path.exists()


@pytest.mark.parametrize(
    ("idle_s", "is_alive", "kept"),
    [(9, False, "changed 9 s ago"), (10, False, ""), (99, True, "in use"), (0, True, "in use")],
)
def test_the_decision(idle_s: float, is_alive: bool, kept: str) -> None:
    assert decide(idle_s=idle_s, grace_s=10, is_alive=is_alive) == kept


def _in_child(work: Callable[..., None], *arguments: Any) -> int:
    child = FORK.Process(target=work, args=arguments)
    child.start()
    child.join(60)
    return child.exitcode or 0


def _publish_as_a_run(root: Path, run: str, point: str, count: int) -> None:
    catalog = Catalog(open_store(root))
    arm(point)
    for number in range(count):
        journal = Journal.open(catalog.store.path("runs", f"{run}{number:06x}"))
        publish(catalog, stage(catalog), key=f"{os.getpid()}-{number}")
        journal.close()


@pytest.mark.parametrize(
    ("point", "is_left"),
    [("datasets.versions.before-link", True), ("datasets.versions.after-link", False)],
)
def test_what_a_killed_run_staged_goes_unless_it_was_published(
    catalog: Catalog, point: str, is_left: bool
) -> None:
    root, run = catalog.store.root, "flights-20260101-000000-"
    assert _in_child(_publish_as_a_run, root, run, point, 1) == -9
    left = find_leftovers(catalog.store, clock=time.time(), grace_s=DAY_S).removable
    assert len(left) == is_left
    for one in left:
        remove(one)
    for manifest in catalog.datasets("flights"):
        assert (catalog.folder(manifest) / "train" / "part-0.parquet").is_file()


@pytest.mark.parametrize(("point", "count"), [("before-link", 0), ("after-link", 1)])
def test_the_file_of_a_record_whose_publication_was_killed_goes(
    catalog: Catalog, point: str, count: int
) -> None:
    root, run = catalog.store.root, "flights-20260101-000000-"
    assert _in_child(_publish_as_a_run, root, run, f"datasets.versions.{point}", 1) == -9
    now = time.time()
    young = find_leftovers(catalog.store, clock=now, grace_s=0).leftovers
    (file,) = [one for one in young if one.is_file]
    assert file.path.parent == catalog.store.path("datasets", "flights", "versions")
    assert file.kept.startswith("changed ")
    for one in find_leftovers(catalog.store, clock=now + DAY_S, grace_s=9).removable:
        assert one.size_bytes or (one.is_file and count)  # the record has the bytes
        remove(one)
    assert not list(root.rglob(".*"))
    assert len(list(catalog.datasets("flights"))) == count


@pytest.mark.parametrize(
    ("place", "is_found"),
    [
        ("", True),
        ("models/flights/versions", True),
        ("models/flights/aliases/champion", True),
        ("models/flights/signatures/1", True),
        ("models/data/evaluations/1", True),
        ("datasets/flights/openings/2", True),
        ("studies/flights/versions", True),
        ("submissions/flights-0123", True),
        ("datasets/flights/data/UUID", False),
    ],
)
def test_files_that_records_were_written_to_are_looked_for_where_records_are(
    catalog: Catalog, place: str, is_found: bool
) -> None:
    folder = catalog.store.root / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{32 * 'a'}.tmp").write_text("{")
    (folder / ".mine.tmp").write_text("{")
    paths = list(found(catalog, clock=time.time() + DAY_S))
    assert paths == ([folder / f".{32 * 'a'}.tmp"] if is_found else [])


def test_a_sweep_beside_publishers_never_takes_what_is_published(catalog: Catalog) -> None:
    """Publishers stage folders that look old, so that only the runs and the records protect."""
    root = catalog.store.root
    children = [
        FORK.Process(
            target=_publish_as_a_run, args=(root, f"flights-2026010{n}-000000-", "none", 40)
        )
        for n in (1, 2)
    ]
    # these leave folders that nobody will publish, so that there is something to take
    doomed = [stage(catalog) for _ in range(5)]
    for child in children:
        child.start()
    removed: list[Path] = []
    while any(child.is_alive() for child in children):
        for left in find_leftovers(catalog.store, clock=time.time(), grace_s=DAY_S).removable:
            remove(left)
            removed.append(left.path)
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    for left in find_leftovers(catalog.store, clock=time.time(), grace_s=DAY_S).removable:
        discard(left.path)
    manifests = list(catalog.datasets("flights"))
    assert len(manifests) == 80
    for manifest in manifests:
        assert (catalog.folder(manifest) / "train" / "part-0.parquet").is_file()
    assert set(removed) <= set(doomed)


def test_a_model_that_is_trained_again_is_in_use_for_as_long_as_it_takes(catalog: Catalog):
    folder = catalog.store.root / f"{sweep.RETRAINED}abc"
    folder.mkdir()
    with held(folder, alone=True):
        assert found(catalog, clock=time.time() + 9 * DAY_S) == {folder: "in use"}
        assert found(catalog, clock=time.time() + 9 * DAY_S) == {folder: "in use"}
    assert found(catalog, clock=time.time() + 9 * DAY_S) == {folder: ""}


def test_what_a_killed_retraining_left_among_temporary_files_goes(
    catalog: Catalog, tmp_path: Path
) -> None:
    """One worker trains there, since it needs no right to write to the store."""
    left, busy = (tmp_path / f"{sweep.RETRAINED}{name}" for name in ("left", "busy"))
    for folder in (left, busy, tmp_path / "other"):
        (folder / "work").mkdir(parents=True)
    later = time.time() + 9 * DAY_S
    with held(busy, alone=True):
        seen = find_leftovers(catalog.store, clock=later, grace_s=DAY_S, temp=tmp_path)
    assert {one.path: one.kept for one in seen.leftovers} == {left: "", busy: "in use"}
    remove(seen.removable[0])
    assert not left.exists()
