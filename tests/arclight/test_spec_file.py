from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from arclight.errors import MissingError, SpecError
from arclight.spec import Spec
from arclight.spec_file import MAX_ALIASES, MAX_BYTES, MAX_DEPTH, MAX_VALUES, load_spec

if TYPE_CHECKING:
    from pathlib import Path

SMALL = """\
name: flights
task: binary
sources:
  flights: {path: data}
etl:
  label: late
"""


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "a.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def refusal(folder: Path, text: str | bytes) -> str:
    file = write(folder, text)
    with pytest.raises(SpecError) as caught:
        load_spec(file)
    assert caught.value.exit_status == 2
    assert "\n" not in caught.value.message
    return caught.value.message.replace(str(file), "FILE")


def test_a_small_spec_has_the_documented_defaults(tmp_path: Path):
    loaded = load_spec(write(tmp_path, SMALL))
    spec = loaded.spec
    assert loaded.sql == "SELECT * FROM flights"
    assert loaded.folder == tmp_path
    assert (spec.metric, spec.features.max_levels, spec.features.min_count) == ("auc", 1000, 20)
    assert spec.etl.split.by == "hash"
    assert (spec.etl.on_bad_key, spec.etl.on_bad_label) == ("quarantine", "quarantine")
    assert Spec.from_json(spec.to_json()) == spec


def test_paths_start_at_the_folder_of_the_spec(tmp_path: Path):
    loaded = load_spec(write(tmp_path, SMALL))
    assert loaded.resolve("data") == str(tmp_path / "data")
    assert loaded.resolve("/data") == "/data"
    assert loaded.resolve("s3://b/data") == "s3://b/data"


def test_sql_may_stand_in_a_file(tmp_path: Path):
    (tmp_path / "join.sql").write_text("SELECT 1 AS late")
    assert load_spec(write(tmp_path, SMALL + "  sql_file: join.sql\n")).sql == "SELECT 1 AS late"


def test_paths_of_a_spec_behind_a_link_all_start_where_it_lies(tmp_path: Path):
    (tmp_path / "join.sql").write_text("SELECT 1 AS late")
    write(tmp_path, SMALL + "  sql_file: join.sql\n")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "now.yaml").symlink_to("../a.yaml")
    loaded = load_spec(tmp_path / "links" / "now.yaml")
    assert (loaded.sql, loaded.resolve("data")) == ("SELECT 1 AS late", str(tmp_path / "data"))


def test_a_mark_before_utf8_is_no_part_of_the_text(tmp_path: Path):
    (tmp_path / "join.sql").write_bytes(b"\xef\xbb\xbfSELECT 1 AS late")
    loaded = load_spec(write(tmp_path, "\ufeff" + SMALL + "  sql_file: join.sql\n"))
    assert (loaded.spec.name, loaded.sql) == ("flights", "SELECT 1 AS late")


@pytest.mark.parametrize("name", ["gone.sql", "x" * 300, "gone/\\u001bx.sql"])
def test_a_missing_sql_file_is_named(tmp_path: Path, name: str):
    with pytest.raises(MissingError, match=r"a\.yaml:7: etl\.sql_file '.*(gone|xxx)"):
        load_spec(write(tmp_path, SMALL + f'  sql_file: "{name}"\n'))


def test_a_missing_spec_is_named(tmp_path: Path):
    with pytest.raises(MissingError, match=r"spec '.*none\.yaml' does not exist"):
        load_spec(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("lable", "etl.lable' is not a field of a spec. Did you mean 'label'?"),
        ("target", "'etl.label' must be given. (1 more after this one.)"),
    ],
)
def test_a_mistyped_field_comes_before_the_one_it_leaves_out(
    tmp_path: Path, wrong: str, sentence: str
):
    with pytest.raises(SpecError) as error:
        load_spec(write(tmp_path, SMALL.replace("label:", f"{wrong}:")))
    assert sentence in error.value.message


# text after `SMALL`, and the whole sentence
SENTENCES = {
    "unknown field, nearest": (
        "features: {min_cuont: 3}\n",
        "FILE:7: 'features.min_cuont' is not a field of a spec. Did you mean 'min_count'? "
        "Known here: derive, categorical, max_levels, min_count.",
    ),
    "unknown field of a hash split": (
        "  split: {by: hash, trian: 0.8}\n",
        "FILE:7: 'etl.split.trian' is not a field of a spec. Did you mean 'train'? "
        "Known here: by, train, valid, test, group, seed.",
    ),
    "unknown field of a source": (
        "serve:\n  replicas:\n    mni: 1\n",
        "FILE:9: 'serve.replicas.mni' is not a field of a spec. Did you mean 'min'? "
        "Known here: min, max, ongoing_per_replica.",
    ),
    "unknown field, nothing near": (
        "gate: {zzz: 1}\n",
        "FILE:7: 'gate.zzz' is not a field of a spec. "
        "Known here: at_least, at_most, not_worse_than.",
    ),
    "a Python name is no synonym": (
        "tune: {space: {a: {bounds: [1, 2]}}}\n",
        "FILE:7: 'tune.space.a' must have one of the fields int, float or choice.",
    ),
    "a range of three numbers": (
        "tune: {space: {a: {int: [1, 2, 3]}}}\n",
        "FILE:7: 'tune.space.a.int' must be the lowest and the highest number of a range: "
        "[LOW, HIGH].",
    ),
    "a range of one number": (
        "tune: {space: {a: {float: 0.1}}}\n",
        "FILE:7: 'tune.space.a.float' must be the lowest and the highest number of a range: "
        "[LOW, HIGH].",
    ),
    "a Python name is no field": (
        "  checks: [{name: a, expect: x, otherwise: fail}]\n",
        "FILE:7: 'etl.checks.0.otherwise' is not a field of a spec. "
        "Known here: name, expect, else.",
    ),
    "wrong type": (
        "train:\n  rounds: many\n",
        "FILE:8: 'train.rounds' is wrong: it should be a valid integer, got 'many'.",
    ),
    "a date where a number belongs": (
        "train: {rounds: 2013-11-01}\n",
        "FILE:7: 'train.rounds' is wrong: it should be a valid integer, got '2013-11-01'.",
    ),
    "true where a number belongs": (
        "train: {rounds: true}\n",
        "FILE:7: 'train.rounds' is wrong: it should be a valid integer, got True.",
    ),
    "a huge number": (
        "train: {rounds: " + "9" * 5000 + "}\n",
        "FILE:7: 'train.rounds' is wrong: it should be a valid integer, got '" + "9" * 198 + "….",
    ),
    "a scalar of no type": (
        "train: {params: {max_depth: null}}\n",
        "FILE:7: 'train.params.max_depth' is wrong: it must be text, a whole number, a number, "
        "true or false; quote it if it is text, got None.",
    ),
    "a fraction as a reader's option": (
        "sources:\n  t: {path: x, format: csv, options: {nullValue: -999.00}}\n",
        "FILE:8: 'sources.t.options.nullValue' is wrong: it must be text, a whole number, a "
        "number, true or false; quote it if it is text, got -999.0.",
    ),
    "not finite": (
        "gate: {at_least: {auc: .nan}}\n",
        "FILE:7: 'gate.at_least.auc' is wrong: it should be a valid number, got '.nan'.",
    ),
    "infinite": (
        "gate: {at_least: {auc: 1e999}}\n",
        "FILE:7: 'gate.at_least.auc' is wrong: it should be a finite number, got inf.",
    ),
    "a list where a mapping belongs": (
        "train: [1]\n",
        "FILE:7: 'train' is wrong: it should be an object.",
    ),
    "range of the wrong kind": (
        "tune: {space: {lr: {float: [0.1, x]}}}\n",
        "FILE:7: 'tune.space.lr.float.1' is wrong: it should be a valid number, got 'x'.",
    ),
    "split without by": (
        "  split: {train: 0.8}\n",
        "FILE:7: 'etl.split' must say by which of them it goes: by: time, or by: hash.",
    ),
    "bad date": (
        "  time: t\n  split: {by: time, valid_from: 2013-02-30, test_from: 2013-12-01}\n",
        "FILE:8: etl.split.valid_from: '2013-02-30' must be an ISO date or time such as "
        "2013-11-01 or 2013-11-01T06:00:00Z.",
    ),
    "a name that is none": (
        'name: "Flights\\n"\n',
        "FILE:7: field 'name' stands twice; remove one.",
    ),
    "a view's name": (
        "sources: {a-b: {path: x}}\n",
        "FILE:7: sources.a-b: 'a-b' must be a plain SQL identifier, since etl.sql names the "
        "source by it.",
    ),
    "between fields, at its line": (
        "features:\n  derive:\n    speed: a\n    late: b\n",
        "FILE:10: features.derive.late: must not take the name of the label, a key, a group, "
        "the time or a drop.",
    ),
    "several": (
        "train: {rounds: x, seed: y}\n",
        "FILE:7: 'train.rounds' is wrong: it should be a valid integer, got 'x'. (1 more after "
        "this one.)",
    ),
    "duplicate key": (
        "train: {}\nserve: {}\ntrain: {}\n",
        "FILE:9: field 'train' stands twice; remove one.",
    ),
    "merge key": (
        "train:\n  <<: {rounds: 3}\n",
        "FILE:8: '<<' merges no fields here; write the fields out.",
    ),
    "a mapping as a name": (
        "train:\n  ? {a: 1}\n  : 2\n",
        "FILE:8: a field's name must be plain text; write it as such.",
    ),
    "an alias inside itself": (
        "train: &x {params: *x}\n",
        "FILE:7: aliases must not nest past 40; write them out.",
    ),
    "two documents": (
        "---\nname: b\n",
        "FILE:7: not valid YAML: expected a single document in the stream, but found another "
        "document; mend it there.",
    ),
    "a tab": (
        "train:\n\trounds: 3\n",
        "FILE:8: not valid YAML: while scanning for the next token, found character '\\t' that "
        "cannot start any token; mend it there.",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_a_refusal_is_one_sentence_with_its_line(tmp_path: Path, case: str):
    text, sentence = SENTENCES[case]
    base = SMALL
    if text.startswith("sources"):
        base = SMALL.replace("sources:\n  flights: {path: data}\n", "\n\n")
    assert refusal(tmp_path, base + text) == sentence


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"name: \xff\n", "must be UTF-8 text, but byte 6 is not"),
        ("- a\n", "FILE:1: a spec must be a mapping"),
        ("", "FILE:1: a spec must be a mapping"),
        ("word", "FILE:1: a spec must be a mapping"),
        ("a: [1\n", "FILE:2: not valid YAML"),
        ("a: \x00\n", "not valid YAML"),
        ('a: "\\ud800"\n', "FILE:1"),
        (SMALL.replace("flights\n", '"\\e[31m\\n"\n', 1), r"\x1b[31m\n' must be lower-case"),
        (SMALL.replace("late", '"\\ud800"'), "FILE"),
    ],
)
def test_what_is_no_spec_is_refused(tmp_path: Path, text: str | bytes, part: str):
    assert part in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch CANARY']",
        "!!python/name:os.system",
        "!custom x",
        "!!str x",
        "!!binary aGk=",
        "! x",
    ],
)
def test_tags_are_refused(tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "must be plain YAML, got the tag" in refusal(tmp_path, f"{SMALL}train: {tag}\n")
    assert not (tmp_path / "CANARY").exists()


def alias_bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels + 1)]
    return "\n".join(lines) + "\n"


LARGE = {
    "50 levels of aliases": (alias_bomb(50, 9), f"at most {MAX_ALIASES} aliases"),
    "few aliases of much": (
        "a: &a [" + "1," * 3000 + "]\nb: [*a, *a, *a, *a, *a, *a]\n",
        "aliases must not expand past",
    ),
    "depth 10,000, flow": ("a: " + "[" * 10_000 + "]" * 10_000, f"at most {MAX_DEPTH} deep"),
    "depth 10,000, block": ("- " * 10_000, f"at most {MAX_DEPTH} deep"),
    "depth 10,000, mappings": ("a: " + "{a: " * 10_000, f"at most {MAX_DEPTH} deep"),
    "50 MB": ("a: " + "x" * 50_000_000, f"at most {MAX_BYTES:,} bytes"),
    "many values": ("a: [" + "1," * 120_000 + "]", f"at most {MAX_VALUES:,} values"),
}


@pytest.mark.parametrize("case", LARGE)
def test_x4_what_is_too_large_is_refused_within_a_second(tmp_path: Path, case: str):
    text, part = LARGE[case]
    file = write(tmp_path, text)
    start = time.process_time()
    with pytest.raises(SpecError, match=part):
        load_spec(file)
    assert time.process_time() - start < 1


def test_scalars_stay_the_text_they_are(tmp_path: Path):
    written = "[007, 1:30, no, on, 0x1F, 1_000, +7, 2013-11-01, =, 'true', \"1\", .inf, y]"
    loaded = load_spec(write(tmp_path, f"{SMALL}features: {{categorical: {written}}}\n"))
    assert loaded.spec.features.categorical == (
        "007", "1:30", "no", "on", "0x1F", "1_000", "+7", "2013-11-01", "=", "true", "1", ".inf",
        "y",
    )  # fmt: skip


def test_numbers_are_numbers(tmp_path: Path):
    params = "{a: 1e-3, b: -5, c: 0.1, d: .5, e: true, f: 1E5, g: text, h: -0.0, i: 3.}"
    loaded = load_spec(write(tmp_path, f"{SMALL}train: {{params: {params}}}\n"))
    got = loaded.spec.train.params
    assert got == {
        "a": 0.001, "b": -5, "c": 0.1, "d": 0.5, "e": True, "f": 1e5, "g": "text", "h": 0.0,
        "i": 3.0,
    }  # fmt: skip
    assert {k: type(v) for k, v in got.items()}["e"] is bool
    assert {k: type(v) for k, v in got.items()}["b"] is int


def test_dates_may_stand_without_quotes(tmp_path: Path):
    split = "{by: time, valid_from: 2013-11-01, test_from: 2013-12-01T00:00:00+02:00, gap: 1d}"
    loaded = load_spec(write(tmp_path, f"{SMALL}  time: t\n  split: {split}\n"))
    assert loaded.spec.etl.split.valid_from == "2013-11-01"
    assert loaded.spec.etl.split.test_from == "2013-12-01T00:00:00+02:00"


@pytest.mark.parametrize(
    "text", ["$(touch x); `id` | & > <", "'; DROP TABLE t; --", "${HOME} %s {0} \\n", "a\u202eb🚀"]
)
def test_x5_shell_and_sql_characters_stay_literal(tmp_path: Path, text: str):
    quoted = "'" + text.replace("'", "''") + "'"
    body = SMALL.replace("late", quoted).replace("data", quoted)
    spec = load_spec(write(tmp_path, body)).spec
    assert spec.etl.label == text
    assert spec.sources["flights"].path == text


def test_an_alias_stands_for_its_values(tmp_path: Path):
    text = SMALL + "  key: &k [a, b]\nevaluate: {segments: *k}\n"
    assert load_spec(write(tmp_path, text)).spec.evaluate.segments == ("a", "b")


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="must be a file, got a folder"):
        load_spec(tmp_path)
