"""The manifest and the bundle as values."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from arclight.bundle import BundleFile, ModelBundle
from arclight.lineage import code_digest, library_versions, python_version
from arclight.manifest import SPLITS, DataFile, DatasetManifest
from tests.arclight.made_records import make_bundle, make_file, make_manifest


def test_a_manifest_keeps_its_form():
    manifest = make_manifest()
    assert DatasetManifest.from_json(manifest.to_json()) == manifest
    assert manifest.ref == "flights@0"
    assert SPLITS == ("train", "valid", "test")


def test_files_are_found_by_part():
    manifest = make_manifest()
    assert [f.path for f in manifest.files_of("test")] == ["test/part-0.parquet"]
    assert manifest.files_of("quarantine") == ()


@pytest.mark.parametrize("path", ["../x.parquet", "/etc/passwd", "train/../../x", "", "a\0b"])
def test_x2_a_file_lies_inside(path: str):
    with pytest.raises(ValidationError, match="plain path below its folder"):
        make_file(path=path)
    with pytest.raises(ValidationError, match="plain path below its folder"):
        BundleFile(path=path, size_bytes=1, sha256="x")


SAME_CONTENT = {
    "name": {"name": "other"},
    "number": {"number": 9},
    "key": {"key": "k9"},
    "folder": {"folder": "elsewhere"},
    "warnings": {"warnings": ("w",)},
    "order of files": {"files": tuple(reversed(make_manifest().files))},
    "names of files": {"files": (make_file("train", "a"), make_file("test", "b"))},
}
OTHER_CONTENT = {
    "a file's bytes": {
        "files": (make_file("train").model_copy(update={"sha256": "x"}), make_file("test"))
    },
    "a file's part": {"files": (make_file("valid"), make_file("test"))},
    "a file more": {"files": (*make_manifest().files, make_file("valid"))},
    "columns": {"columns": ()},
    "plan": {"plan": make_manifest().plan.model_copy(update={"classes": ("x",)})},
}


@pytest.mark.parametrize("case", SAME_CONTENT)
def test_the_content_digest_ignores(case: str):
    changed = make_manifest().model_copy(update=SAME_CONTENT[case])
    assert changed.content_digest == make_manifest().content_digest


@pytest.mark.parametrize("case", OTHER_CONTENT)
def test_the_content_digest_sees(case: str):
    changed = make_manifest().model_copy(update=OTHER_CONTENT[case])
    assert changed.content_digest != make_manifest().content_digest


def test_a_bundle_keeps_its_form_and_types():
    bundle = make_bundle()
    again = ModelBundle.from_json(bundle.to_json())
    assert again == bundle
    assert again.golden.rows[0] == {"a": 1, "c": "x"}
    assert type(again.golden.rows[0]["a"]) is int


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"number": 5, "rounds": 9, "key": "other"}, True),
        ({"threshold": 0.4}, False),
        ({"plan": make_bundle().plan.model_copy(update={"classes": ("x",)})}, False),
        ({"files": make_bundle().files[:1]}, True),
        ({"files": make_bundle(key="k2").files}, False),
    ],
)
def test_the_model_digest_is_of_what_the_model_computes(changes: dict[str, object], same: bool):
    changed = make_bundle().model_copy(update=changes)
    assert (changed.model_digest == make_bundle().model_digest) is same


def test_lineage_knows_the_code_and_the_libraries():
    assert code_digest(("arclight",)) == code_digest(("arclight",))
    assert code_digest(("arclight",)) != code_digest(("arclight", "spark"))
    assert {"arclight", "pyarrow", "numpy", "pydantic"} <= set(library_versions())
    assert python_version().startswith("3.")


def test_a_file_of_no_known_part_is_refused():
    with pytest.raises(ValidationError, match="'train', 'valid', 'test'"):
        DataFile.model_validate({**make_file().model_dump(), "part": "other"})


def test_a_digest_of_an_older_release_is_of_the_same_data():
    manifest = make_manifest()
    older = manifest._digest(list(manifest.files))
    assert manifest.has_content(manifest.content_digest)
    assert manifest.has_content(older)
    changed = manifest.files[0].model_copy(update={"sha256": "0" * 64})
    other = manifest.model_copy(update={"files": (changed, *manifest.files[1:])})
    assert not other.has_content(older)
    assert not other.has_content(manifest.content_digest)
