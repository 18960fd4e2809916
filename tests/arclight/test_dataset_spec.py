"""A dataset serves the spec that it was built from, and no other one of its name."""

from __future__ import annotations

import json

import pytest

from arclight.catalog import Catalog
from arclight.dataset_spec import asked_of, check_built_from, dataset_of
from arclight.errors import RefusedError
from arclight.spec_file import load_spec
from arclight.store import open_store
from tests.arclight.made_records import make_manifest

SPEC = """
name: demo
task: binary
sources: {t: {path: t.csv, format: csv, schema: x double, options: {nullValue: "NA"}}}
etl: {key: [id], label: y, drop: [leak]}
train: {rounds: 10}
"""


def loaded(folder, text):
    (folder / "s.yaml").write_text(text)
    return load_spec(folder / "s.yaml")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("drop: [leak]", "drop: []", "etl.drop"),
        ("label: y", "label: z", "etl.label"),
        ("key: [id]", "key: [other]", "etl.key"),
        ("task: binary", "task: regression", "task"),
        ("train: {", "features: {derive: {a: x * 2}}\ntrain: {", "features.derive"),
        ("drop: [leak]", "drop: [leak], sql: select * from t where id > 3", "etl.sql"),
        ("sources: {t: {", "sources: {u: {", "sources"),
        ('csv, schema: x double, options: {nullValue: "NA"}', "json", "sources.t.format"),
        ("x double", "x int", "sources.t.schema"),
        ('"NA"', '"-9"', "sources.t.options"),
    ],
)
def test_another_spec_is_refused_with_the_first_field(tmp_path, old, new, field):
    manifest = make_manifest().model_copy(update={"asked": asked_of(loaded(tmp_path, SPEC))})
    check_built_from(manifest, loaded(tmp_path, SPEC))
    with pytest.raises(RefusedError, match=f"was built from another spec: {field} is not what"):
        check_built_from(manifest, loaded(tmp_path, SPEC.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rounds: 10", "rounds: 20"),
        ("path: t.csv", "path: moved/t.csv"),
        ("drop: [leak]", "drop: [leak], sql: SELECT * FROM t"),
        ("drop: [leak]", "drop: [leak], sql_file: join.sql"),
    ],
)
def test_what_does_not_decide_about_rows_may_change(tmp_path, old, new):
    (tmp_path / "join.sql").write_text("SELECT * FROM t")
    manifest = make_manifest().model_copy(update={"asked": asked_of(loaded(tmp_path, SPEC))})
    check_built_from(manifest, loaded(tmp_path, SPEC.replace(old, new)))


def test_an_older_record_is_taken_as_it_is(tmp_path):
    check_built_from(make_manifest(), loaded(tmp_path, SPEC.replace("label: y", "label: z")))
    known = {n: v for n, v in asked_of(loaded(tmp_path, SPEC)).items() if n != "sources.t.schema"}
    manifest = make_manifest().model_copy(update={"asked": known})
    check_built_from(manifest, loaded(tmp_path, SPEC.replace("x double", "x int")))


def test_a_database_may_move(tmp_path):
    options = {"url": "jdbc:a://one", "dbtable": "t"}
    source = json.dumps({"format": "jdbc", "options": options})
    text = SPEC.replace(SPEC[SPEC.index("{path") : SPEC.index("}}") + 2], source)
    manifest = make_manifest().model_copy(update={"asked": asked_of(loaded(tmp_path, text))})
    check_built_from(manifest, loaded(tmp_path, text.replace("one", "two")))
    with pytest.raises(RefusedError, match=r"sources\.t\.options is not what"):
        check_built_from(manifest, loaded(tmp_path, text.replace('e": "t"', 'e": "u"')))


def test_the_specs_own_dataset_is_found_behind_another_specs(tmp_path):
    """`etl` says of it that it stands: nothing else would make it the newest again."""
    catalog = Catalog(open_store(tmp_path / "store"))
    ours, other = (loaded(tmp_path, SPEC.replace("[leak]", drop)) for drop in ("[leak]", "[]"))
    for key, spec in (("k1", ours), ("k2", ours), ("k3", other)):
        manifest = make_manifest(name="demo", key=key)
        catalog.publish_dataset(manifest.model_copy(update={"asked": asked_of(spec)}))
    assert dataset_of(catalog, ours).ref == "demo@2"
    assert dataset_of(catalog, other).ref == "demo@3"
    with pytest.raises(RefusedError, match=r"'demo@3' was built from another spec: etl\.label"):
        dataset_of(catalog, loaded(tmp_path, SPEC.replace("label: y", "label: z")))


def test_an_older_record_behind_another_specs_is_not_taken_for_its_own(tmp_path):
    catalog = Catalog(open_store(tmp_path / "store"))
    other = asked_of(loaded(tmp_path, SPEC.replace("label: y", "label: z")))
    for key, asked in (("k1", {}), ("k2", other)):
        manifest = make_manifest(name="demo", key=key)
        catalog.publish_dataset(manifest.model_copy(update={"asked": asked}))
    with pytest.raises(RefusedError, match=r"'demo@2' was built from another spec"):
        dataset_of(catalog, loaded(tmp_path, SPEC))
