"""A reader in one process and a writer in another: each read is exactly one version."""

from __future__ import annotations

import json
import multiprocessing
from typing import TYPE_CHECKING

import pytest

from arclight.bundle import BundleFile
from arclight.catalog import Catalog
from arclight.errors import MissingError
from arclight.store import check_file, flush_tree, open_store, sha256_file
from tests.arclight.made_records import make_bundle

if TYPE_CHECKING:
    from pathlib import Path

FORK = multiprocessing.get_context("fork")
COMMITS = 50
FILES = ("a.bin", "b.bin", "model.ubj")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(open_store(tmp_path / "store"))


def commit(catalog: Catalog, turn: int) -> None:
    """Publish a version whose files all hold its turn, and point the alias at it."""
    folder = catalog.store.stage("models", "flights")
    for place, name in enumerate(FILES):
        (folder / name).write_bytes(turn.to_bytes(4, "big") * (1000 * (place + 1) + turn))
    files = tuple(
        BundleFile(
            path=name,
            size_bytes=(folder / name).stat().st_size,
            sha256=sha256_file(folder / name),
        )
        for name in FILES
    )
    flush_tree(folder)
    made = make_bundle(key=f"k{turn}").model_copy(
        update={"files": files, "folder": str(folder.relative_to(catalog.store.root))}
    )
    bundle = catalog.publish_model(made)
    seen = catalog.alias("flights", "champion")
    catalog.move_alias(bundle, "champion", reason=f"turn {turn}", seen=seen)


def read(catalog: Catalog, ref: str) -> tuple[int, set[int]]:
    """Return a version's number and the turns that its files hold, every byte checked."""
    bundle = catalog.model(ref)
    held = set()
    for file in bundle.files:
        path = catalog.folder(bundle) / file.path
        check_file(path, size_bytes=file.size_bytes, sha256=file.sha256)
        content = path.read_bytes()
        held |= {int.from_bytes(content[at : at + 4], "big") for at in range(0, len(content), 4)}
    return bundle.number, held


def test_a_reader_through_fifty_commits_sees_one_whole_version_each_time(
    catalog: Catalog, tmp_path: Path
) -> None:
    done, began, seen = FORK.Event(), FORK.Event(), tmp_path / "seen.json"

    def follow() -> None:
        found: dict[str, list[int]] = {"flights": [], "flights@champion": []}
        began.set()
        is_last = False
        while not is_last:
            is_last = done.is_set()  # one more read when the writer has ended
            for ref, numbers in found.items():
                try:
                    number, turns = read(catalog, ref)
                except MissingError:
                    assert not numbers, "what was there is gone"
                    continue
                assert turns == {number}, f"{ref}: version {number} holds {turns}"
                numbers.append(number)
        seen.write_text(json.dumps(found))

    reader = FORK.Process(target=follow)
    reader.start()
    assert began.wait(30)
    for turn in range(1, COMMITS + 1):
        commit(catalog, turn)
    done.set()
    reader.join(60)
    assert reader.exitcode == 0
    for ref, numbers in json.loads(seen.read_text()).items():
        assert numbers == sorted(numbers), f"{ref} went back"
        assert numbers[-1] == COMMITS
        assert len(set(numbers)) > 5, f"{ref}: the reader saw too little to show anything"
