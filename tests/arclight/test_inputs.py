from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from arclight.errors import DataError, MissingError
from arclight.inputs import SourceFiles, is_unchanged, look_at
from arclight.spec import Etl, Source, Spec
from arclight.spec_file import LoadedSpec

if TYPE_CHECKING:
    from pathlib import Path


def loaded_with(folder: Path, path: str = "data", **source: object) -> LoadedSpec:
    table = Source.model_validate({"path": path} | source)
    spec = Spec(name="a", task="binary", sources={"t": table}, etl=Etl(label="y"))
    return LoadedSpec(spec=spec, file=folder / "a.yaml", sql="")


def look(folder: Path, path: str = "data", **source: object) -> SourceFiles:
    loaded = loaded_with(folder, path, **source)
    return look_at("t", loaded.spec.sources["t"], loaded)


def unchanged(found: SourceFiles, folder: Path, **source: object) -> bool:
    loaded = loaded_with(folder, **source)
    return is_unchanged(found, "t", loaded.spec.sources["t"], loaded)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.parquet", "a.parquet", "x=1/c.parquet", "_part=2/d.parquet"):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode() * 10)
    return tmp_path


def names(found: SourceFiles, folder: Path) -> list[str]:
    return [str(f.relative_to(folder / "data")) for f in found.files]


def test_files_are_listed_sorted_with_their_size(folder: Path):
    found = look(folder)
    assert names(found, folder) == ["_part=2/d.parquet", "a.parquet", "b.parquet", "x=1/c.parquet"]
    assert found.size_bytes == 10 * sum(map(len, names(found, folder)))
    assert found.path == str(folder / "data")


@pytest.mark.parametrize(
    "hidden", ["_SUCCESS", ".a.crc", "_temporary/0/part.parquet", ".hidden/a.parquet", "x=1/_a"]
)
def test_hidden_files_are_passed_over(folder: Path, hidden: str):
    before = look(folder)
    (folder / "data" / hidden).parent.mkdir(parents=True, exist_ok=True)
    (folder / "data" / hidden).write_text("x")
    assert look(folder) == before


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/a.parquet", ["a.parquet"]),
        ("data/*.parquet", ["a.parquet", "b.parquet"]),
        ("data/[ab].parquet", ["a.parquet", "b.parquet"]),
        ("data/x=*", ["x=1/c.parquet"]),
        ("data/*", ["_part=2/d.parquet", "a.parquet", "b.parquet", "x=1/c.parquet"]),
    ],
)
def test_a_file_and_a_pattern(folder: Path, path: str, expected: list[str]):
    (folder / "data" / "_SUCCESS").write_text("")
    assert names(look(folder, path), folder) == expected


def test_the_digest_sees_every_change(folder: Path):
    file = folder / "data" / "a.parquet"
    seen = {look(folder).digest}
    assert look(folder).digest in seen
    kept = file.stat()
    file.write_bytes(b"X" + file.read_bytes()[1:])
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    seen.add(look(folder).digest)
    os.utime(file, ns=(0, 1))
    seen.add(look(folder).digest)
    file.rename(folder / "data" / "z.parquet")
    seen.add(look(folder).digest)
    (folder / "data" / "more.parquet").write_text("")
    seen.add(look(folder).digest)
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("path", "error", "part"),
    [
        ("gone", MissingError, r"source 't': '.*gone' does not exist; mend sources\.t\.path"),
        ("gone/*.parquet", MissingError, "does not exist"),
        ("empty", DataError, "holds no file to read"),
        ("x" * 300, DataError, "cannot be read: File name too long"),
        ("data/_hidden.parquet", DataError, "begins with '_' or '.', since Spark passes over it"),
        ("**/*.parquet", DataError, r"must not have '\*\*'.* name the folder"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, path: str, error: type[Exception], part: str):
    (folder / "empty").mkdir()
    (folder / "data" / "_hidden.parquet").write_text("x")
    with pytest.raises(error, match=part):
        look(folder, path)


def test_links_are_followed_but_never_in_a_circle(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "e.parquet").write_text("x")
    (folder / "data" / "linked").symlink_to(elsewhere)
    (folder / "data" / "x=1" / "loop").symlink_to(folder / "data")
    assert len(look(folder).files) == 5


@pytest.mark.parametrize("path", ["data", "data/*", "data/x=1", "data/x=1/*"])
@pytest.mark.parametrize("target", ["gone", "e.parquet"])  # nothing, and itself
def test_a_link_that_leads_nowhere_is_named(folder: Path, path: str, target: str):
    link = folder / "data" / "x=1" / "e.parquet"
    link.symlink_to(target)
    with pytest.raises(DataError, match=f"'{link}' must lead to a file .* is a link to nothing"):
        look(folder, path)
    with pytest.raises((DataError, MissingError), match=r"a link to nothing|does not exist"):
        look(folder, "data/x=1/e.parquet")


@pytest.mark.parametrize(("link", "target"), [("latest.parquet", "a.parquet"), ("y", "x=1")])
def test_a_file_that_stands_there_by_two_names_is_refused(folder: Path, link: str, target: str):
    (folder / "data" / link).symlink_to(target)
    with pytest.raises(DataError, match=r"must not be a second name of '.*', whose rows would"):
        look(folder)
    (folder / "data" / link).unlink()
    os.link(folder / "data" / "a.parquet", folder / "data" / "same.parquet")
    assert len(look(folder).files) == 5  # what holds the same bytes once may be two files


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_a_table_with_a_log_is_read_by_its_folder_and_changes_with_its_log(
    folder: Path, kind: str
):
    """A commit that takes rows out may leave all data files, and add one to the log."""
    log = folder / "data" / "_delta_log" / "00000000000000000000.json"
    log.parent.mkdir()
    log.write_text("{}")
    before = look(folder, format=kind)
    assert (before.path, before.files) == (str(folder / "data"), ())
    assert look(folder, format=kind) == before
    assert unchanged(before, folder, format=kind)
    log.with_name("00000000000000000001.json").write_text("{}")
    assert look(folder, format=kind).digest != before.digest
    assert not unchanged(before, folder, format=kind)


def test_what_is_not_on_a_mounted_file_system_has_no_digest(folder: Path):
    assert look(folder, "s3://b/x") == SourceFiles("s3://b/x", (), None, None)
    jdbc = Source(format="jdbc", options={"url": "jdbc:x", "dbtable": "t"})
    spec = Spec(name="a", task="binary", sources={"t": jdbc}, etl=Etl(label="y"))
    loaded = LoadedSpec(spec=spec, file=folder / "a.yaml", sql="")
    assert look_at("t", jdbc, loaded) == SourceFiles(None, (), None, None)
