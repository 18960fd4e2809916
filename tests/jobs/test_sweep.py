"""`arclight sweep` as typed: it lists, it removes when told, and says how much."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from arclight.errors import MissingError, RefusedError, SpecError
from arclight.store import Store, held, open_store
from jobs.sweep import sweep_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def sweep(store: Store, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Return a function that types it and reads its answer."""

    def type_it(*outputs: Path, delete: bool = False, older_than: str = "24h") -> dict[str, Any]:
        sweep_command(
            outputs, delete=delete, older_than=older_than, store=str(store.root), as_json=True
        )
        return json.loads(capsys.readouterr().out)

    return type_it


def stage(store: Store, *, age_s: float) -> Path:
    folder = store.stage("datasets", "flights")
    (folder / "rows").write_bytes(b"x" * 9000)
    for path in (folder / "rows", folder):
        os.utime(path, (time.time() - age_s,) * 2)
    return folder


def test_it_lists_first_and_removes_when_told(
    store: Store, sweep: Callable[..., dict[str, Any]]
) -> None:
    old, young = stage(store, age_s=90_000), stage(store, age_s=80_000)
    listed = sweep()
    assert (listed["deleted"], listed["folders"]) == (False, [str(old)])
    assert list(listed["kept"]) == [str(young)]
    assert listed["bytes"] >= 9000
    assert old.exists()
    assert sweep(delete=True) == {**listed, "deleted": True}
    assert (old.exists(), young.exists()) == (False, True)
    assert sweep(older_than="1h", delete=True)["folders"] == [str(young)]
    assert sweep(older_than="0s") == {
        "deleted": False, "bytes": 0, "folders": [], "files": [], "kept": {}, "refused": [],
    }  # fmt: skip


def test_people_read_the_bytes(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    stage(store, age_s=90_000)
    for delete, text in ((False, "1 folder may go; add --delete"), (True, "1 folder removed.")):
        sweep_command((), delete=delete, older_than="1d", store=str(store.root), as_json=False)
        out, err = capsys.readouterr()
        assert out == ""
        assert text in err
        assert " bytes in " in err


def test_a_file_that_a_record_was_written_to_is_told_apart(
    store: Store, sweep: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    file = store.root / f".{32 * '0'}.tmp"
    file.write_text("{")
    os.utime(file, (0, 0))
    assert (sweep()["folders"], sweep()["files"]) == ([], [str(file)])
    sweep_command((), delete=True, older_than="1d", store=str(store.root), as_json=False)
    assert "in 0 folders and 1 file that a record was written to removed." in " ".join(
        capsys.readouterr().err.split()
    )
    assert not file.exists()


def test_a_record_that_cannot_be_read_is_a_refusal(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stage(store, age_s=90_000)
    other = stage(store, age_s=90_000).rename(store.stage("models", "other"))
    record = store.path("datasets", "flights", "versions", "1.json")
    record.parent.mkdir()
    record.write_text("{")
    with pytest.raises(RefusedError, match=r"versions/1\.json.*nothing of that name"):
        sweep_command((), delete=True, older_than="1h", store=str(store.root), as_json=True)
    assert json.loads(capsys.readouterr().out)["folders"] == [str(other)]
    assert (folder.exists(), other.exists()) == (True, False)


def test_what_is_typed_wrong_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--older-than: 'soon' must be a duration"):
        sweep_command((), delete=True, older_than="soon", store=None, as_json=False)
    with pytest.raises(MissingError, match="does not exist"):
        sweep_command(
            (tmp_path / "none",), delete=True, older_than="1h", store=None, as_json=False
        )


def test_what_a_killed_scoring_left_goes_and_what_one_works_in_stays(
    tmp_path: Path, sweep: Callable[..., dict[str, Any]]
) -> None:
    left, used, done = (tmp_path / "out" / n for n in (f".a.{32 * '0'}.tmp", BUSY, "done"))
    for folder in (left, used, done, tmp_path / "out" / ".mine.tmp"):
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    with held(used):
        assert sweep(tmp_path / "out")["kept"] == {str(used): "in use"}
        assert sweep(tmp_path / "out", delete=True)["folders"] == [str(left)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [BUSY, ".mine.tmp", "done"]
    assert sweep(tmp_path / "out")["folders"] == [str(used)]


BUSY = f".b.{32 * 'f'}.tmp"
