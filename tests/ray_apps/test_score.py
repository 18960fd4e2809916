"""Batch scoring: whole or absent, every row accounted for, types widened and never guessed."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from arclight.errors import (
    ConflictError,
    DataError,
    MissingError,
    RefusedError,
    SchemaError,
    SpecError,
)
from arclight.progress import silent
from arclight.store import held, sha256_file
from ray_apps import score as module
from ray_apps import score_input, score_output
from ray_apps.predictor import load_predictor
from ray_apps.rows import conform
from ray_apps.score import ScoreResult, score_folder
from ray_apps.unusual import told
from tests.ray_apps.make_dataset import EMOJI, ODD, SPACED, one_batch, raw_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def score(trained, tmp_path):
    """Return a function that scores a table or path with the binary LightGBM model."""

    def run(source, output=None, *, task="binary", **options) -> tuple[ScoreResult, Path]:
        made, bundle = trained(task, "lightgbm")
        if isinstance(source, pa.Table):
            pq.write_table(source, tmp_path / "in.parquet")
            source = tmp_path / "in.parquet"
        target = output or tmp_path / "out"
        options = {"threads": 1, "tick": silent, **options}
        return score_folder(made.catalog, bundle, source, target, **options), target

    return run


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(p) for p in sorted(folder.glob("*.parquet"))])


def test_scores_stand_beside_their_keys(score, trained, shared):
    made, bundle = trained("binary", "lightgbm")
    raw = shared("binary").raw["test"]
    result, output = score(raw)
    table = read(output)
    assert table.column_names == ["id", "score", "label", "model"]
    assert table["id"].to_pylist() == raw["id"].to_pylist()
    wanted = load_predictor(made.catalog, bundle, threads=1).predict(one_batch(raw)).scores
    assert np.array_equal(table["score"].to_numpy(), wanted)
    assert table["label"].to_pylist() == (wanted >= bundle.threshold).tolist()
    assert set(table["model"].to_pylist()) == {bundle.ref}
    assert (result.rows_in, result.rows_scored, result.rows_rejected) == (600, 600, 0)


def test_a_multiclass_model_gives_a_column_a_class(score, shared):
    _, output = score(shared("multiclass").raw["test"], task="multiclass")
    table = read(output)
    names = ["score_high", "score_low", "score_mid"]
    assert table.column_names == ["id", *names, "label", "model"]
    top = np.column_stack([table[n].to_numpy() for n in names]).argmax(axis=1)
    assert table["label"].to_pylist() == [["high", "low", "mid"][i] for i in top]


def test_a_regression_gives_a_number(score, shared):
    _, output = score(shared("regression").raw["test"], task="regression")
    assert read(output).column_names == ["id", "score", "model"]


def test_the_manifest_names_every_file_and_its_bytes(score):
    result, output = score(raw_table(50, seed=1))
    stored = ScoreResult.from_json((output / "_manifest.json").read_bytes())
    assert stored == result
    for file in result.files:
        path = output / file.path
        assert (file.size_bytes, file.sha256) == (path.stat().st_size, sha256_file(path))
    assert json.loads((output / "_manifest.json").read_text())["kind"] == "score-manifest"


def test_scores_are_never_left_without_a_key_in_silence(score):
    raw = raw_table(50, seed=1).drop_columns(["id"])
    with pytest.raises(SchemaError, match=r"must have the key column 'id'.*--keep"):
        score(raw)
    _, output = score(raw, keep=["at"])
    assert read(output).column_names == ["at", "score", "label", "model"]


def test_a_store_without_the_dataset_does_not_know_the_keys(own, tmp_path):
    """As where models alone were copied to where they score."""
    made, bundle = own("binary", "lightgbm")
    shutil.rmtree(made.catalog.store.path("datasets"))
    pq.write_table(raw_table(50, seed=1), tmp_path / "in.parquet")

    def score(name, **options):
        places = (tmp_path / "in.parquet", tmp_path / name)
        score_folder(made.catalog, bundle, *places, threads=1, tick=silent, **options)

    with pytest.raises(
        MissingError, match=rf"'demo@1' of model '{bundle.ref}' must be in .*--keep"
    ):
        score("out")
    score("out", keep=["id"])
    assert read(tmp_path / "out")["id"].to_pylist() == list(range(50))


def test_rows_of_a_table_without_a_key_are_scored_in_their_order(score, monkeypatch):
    """Their dataset's key is a digest that no raw row has."""
    monkeypatch.setattr(module, "_keys", lambda *_: ("row_key",))
    raw = raw_table(50, seed=1)
    _, output = score(raw.drop_columns(["id"]))
    assert read(output).column_names == ["score", "label", "model"]
    _, keyed = score(raw, output.with_name("keyed"), keep=["id"])
    assert read(keyed)["score"].equals(read(output)["score"])


def test_an_output_inside_the_input_is_refused(score, tmp_path):
    folder = tmp_path / "rows"
    (folder / "more").mkdir(parents=True)
    pq.write_table(raw_table(30, seed=1), folder / "more" / "a.parquet")
    for output in (folder / "out", folder, folder / "more" / ".." / "x"):
        with pytest.raises(SpecError, match="must not lie in the input"):
            score(folder, output)
    assert [path.name for path in folder.rglob("*")] == ["more", "a.parquet"]
    first, beside = score(folder, folder / "_scores")
    assert first.rows_scored == score(folder, tmp_path / "again")[0].rows_scored == 30
    assert len(read(beside)) == 30
    pq.write_table(pa.table({"id": [1]}), folder / "more" / "b.parquet")
    with pytest.raises(SchemaError, match=r"'more/b\.parquet'"):
        score(folder)


def test_any_reader_of_parquet_folders_reads_the_scores_alone(score):
    raw = raw_table(60, seed=1)
    values = raw[SPACED].to_numpy().copy()
    values[7] = np.inf
    result, output = score(change(raw, SPACED, pa.array(values, from_pandas=True)))
    assert result.rows_rejected == 1
    assert pd.read_parquet(output).shape[0] == pq.read_table(output).num_rows == 59


def test_columns_to_keep_are_kept_as_they_are(score):
    raw = raw_table(50, seed=1)
    _, output = score(raw, keep=["at", "color", EMOJI])
    table = read(output)
    assert table.column_names == ["at", "color", EMOJI, "score", "label", "model"]
    assert table.select(["at", "color", EMOJI]).equals(raw.select(["at", "color", EMOJI]))


def test_rows_unlike_those_of_training_are_scored_and_counted(score):
    raw, rows = raw_table(400, seed=1), 100_000
    raw = pa.concat_tables([raw] * (rows // 400))  # more than a batch
    color, count = raw["color"].to_pylist(), raw[EMOJI].to_pylist()
    values = raw[SPACED].to_numpy().copy()
    color[5] = color[70_000] = color[9] = "octarine"
    count[6], values[9] = 10**6, np.inf  # the ninth row is not scored
    raw = change(change(raw, "color", pa.array(color)), EMOJI, pa.array(count))
    result, output = score(change(raw, SPACED, pa.array(values, from_pandas=True)))
    assert result.rows_rejected == 1
    assert result.unusual["color"]["unseen"] >= 2
    usual = score(raw_table(400, seed=1), output.with_name("usual"))[0].unusual
    known = usual.get("color", {}).get("unseen", 0) * (rows // 400)  # too rare to be kept
    assert result.unusual["color"]["unseen"] - known in (
        1,
        2,
    )  # one may stand where such a one was
    assert result.unusual[EMOJI] == {"far": 1}
    missing = pc.sum(pc.is_null(raw[ODD])).as_py()
    assert result.unusual[ODD]["missing"] == missing - (raw[ODD][9].as_py() is None)
    text = told(result.unusual)
    assert f"'{EMOJI}'" in text or f"{EMOJI} far in 1" in text
    assert "missing" not in text


@pytest.mark.parametrize("name", ["nope", "score", "model", "reasons"])
def test_a_column_that_cannot_be_kept_is_named(score, name):
    raw = raw_table(5, seed=1)
    raw = raw if name == "nope" else raw.append_column(name, pa.nulls(5, pa.string()))
    with pytest.raises(SpecError, match=f"column '{name}' cannot be kept"):
        score(raw, keep=[name])


def test_a_folder_is_read_in_order_and_hidden_files_are_not(score, tmp_path):
    folder = tmp_path / "many"
    (folder / "b").mkdir(parents=True)
    pq.write_table(raw_table(30, seed=1, first_id=30), folder / "b" / "z.parquet")
    pq.write_table(raw_table(30, seed=2), folder / "a.parquet")
    for hidden in ("_temporary.parquet", ".part.parquet"):
        (folder / hidden).write_bytes(b"half a file")
    _, output = score(folder)
    assert read(output)["id"].to_pylist() == list(range(60))


def test_files_are_read_through_links_whatever_their_name(score, tmp_path):
    folder, elsewhere = tmp_path / "many", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    pq.write_table(raw_table(30, seed=1), elsewhere / "000000_0")
    pq.write_table(raw_table(30, seed=2, first_id=30), folder / "B.PARQUET")
    (folder / "A").symlink_to(elsewhere)
    result, output = score(folder)
    assert result.rows_in == 60
    assert sorted(read(output)["id"].to_pylist()) == list(range(60))


def test_rows_that_cannot_be_seen_are_never_passed_over(score, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    pq.write_table(raw_table(30, seed=1), folder / "a.parquet")
    for name, make in {
        "b.csv": lambda path: path.write_text("id\n1\n"),
        "b.parquet": lambda path: path.symlink_to(tmp_path / "gone.parquet"),
        "b": lambda path: path.symlink_to(folder),
        "latest.parquet": lambda path: path.symlink_to("a.parquet"),
    }.items():
        make(folder / name)
        with pytest.raises(DataError, match=rf"/{name}' must (not )?be a"):
            score(folder)
        (folder / name).unlink()
    assert score(folder)[0].rows_in == 30


def test_a_folder_that_may_not_be_listed_is_named(score, tmp_path, monkeypatch):
    folder = tmp_path / "many"
    (folder / "closed").mkdir(parents=True)
    pq.write_table(raw_table(30, seed=1), folder / "a.parquet")
    listed = os.scandir

    def scandir(path):
        if Path(path).name == "closed":  # root may list every folder
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"closed' must be readable.* but Permission denied"):
        score(folder)


def test_a_link_to_a_folder_may_be_the_output(score, tmp_path):
    (tmp_path / "latest").symlink_to(tmp_path / "today")
    score(raw_table(30, seed=1), tmp_path / "latest")
    assert read(tmp_path / "today").num_rows == 30
    assert (tmp_path / "latest").is_symlink()


def test_batches_and_files_of_any_size_give_the_same_scores(score, tmp_path, monkeypatch):
    raw = raw_table(1000, seed=4)
    _, whole = score(raw)
    monkeypatch.setattr(score_input, "BATCH_ROWS", 64)
    monkeypatch.setattr(score_output, "FILE_ROWS", 200)
    result, parts = score(raw, tmp_path / "parts")
    assert len(result.files) > 3
    assert read(parts).equals(read(whole))


def test_B5_empty_input_gives_an_empty_output(score):
    result, output = score(raw_table(10, seed=1).slice(0, 0))
    assert result.rows_in == 0
    assert read(output).schema.names == ["id", "score", "label", "model"]
    assert (output / "_manifest.json").exists()


# ---------------------------------------------------------------------------- what is refused


def change(raw: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return raw.set_column(raw.schema.get_field_index(name), name, values)


def test_B5_every_missing_or_wrong_column_is_named_before_a_row_is_read(score, monkeypatch):
    monkeypatch.setattr(module, "load_predictor", None)  # nothing may be loaded
    raw = raw_table(5, seed=1).drop_columns(["color", ODD])
    raw = change(raw, "shop", pa.array(["a"] * 5))
    with pytest.raises(SchemaError) as caught:
        score(raw)
    for part in (
        "column 'color' (string) is missing",
        f"column '{ODD}' (double) is missing",
        "column 'shop' must be int32, is string",
    ):
        assert part in caught.value.message


def test_a_missing_column_is_told_the_one_of_nearly_its_name(score):
    raw = raw_table(5, seed=1).rename_columns({"color": "Color", "shop": "SHOP"})
    with pytest.raises(SchemaError) as caught:
        score(raw)
    assert "column 'color' (string) is missing (there is 'Color'); " in caught.value.message
    assert "column 'shop' (int32) is missing (there is 'SHOP'); " in caught.value.message
    with pytest.raises(SchemaError, match=r"'color' \(string\) is missing; give the columns"):
        score(raw_table(5, seed=1).rename_columns({"color": "hue"}))


WIDER = {
    "int8 for int64": (EMOJI, lambda v: v.cast(pa.int8())),
    "uint64 for int64": (EMOJI, lambda v: v.cast(pa.uint64())),
    "whole floats for int64": (EMOJI, lambda v: v.cast(pa.float64())),
    "int64 for int32": ("shop", lambda v: v.cast(pa.int64())),
    "dictionary for string": ("color", lambda v: v.dictionary_encode()),
    "large string for string": ("color", lambda v: v.cast(pa.large_string())),
    "ns for us": ("at", lambda v: v.cast(pa.timestamp("ns", tz="UTC"))),
    "no zone for UTC": ("at", lambda v: v.cast(pa.timestamp("us"))),
    "another zone": ("at", lambda v: v.cast(pa.timestamp("ms", tz="Europe/Zurich"))),
}


@pytest.mark.parametrize("case", WIDER)
def test_types_that_hold_the_same_values_give_the_same_scores(score, tmp_path, case):
    raw = raw_table(200, seed=5)
    _, plain = score(raw)
    name, cast = WIDER[case]
    _, other = score(change(raw, name, cast(raw[name].combine_chunks())), tmp_path / "other")
    assert read(other).equals(read(plain))


@pytest.mark.parametrize(
    "values", [pa.array([1.5, -2.25], pa.float32()), pa.array([Decimal("1.5"), Decimal("-2.25")])]
)
def test_float32_and_decimal_widen_to_float64(score, tmp_path, values):
    raw = raw_table(2, seed=5)
    _, plain = score(change(raw, SPACED, pa.array([1.5, -2.25])))
    _, other = score(change(raw, SPACED, values), tmp_path / "other")
    assert read(other).equals(read(plain))


@pytest.mark.parametrize("kind", [pa.decimal128(10, 2), pa.decimal256(40, 2)])
def test_a_decimal_is_the_number_that_a_request_and_the_dataset_have(kind):
    cents = [*range(0, 2000, 7), 70, 123_456_789, None]
    exact = [None if n is None else Decimal(n).scaleb(-2) for n in cents]
    table = pa.record_batch([pa.array(exact, kind)], ["price"])
    wanted = [None if n is None else float(n) for n in exact]
    found = conform(table, pa.schema([("price", pa.float64())]), where="rows")
    assert found.column("price").to_pylist() == wanted


def test_whole_numbers_past_2_to_the_53_are_rounded_where_the_model_takes_fractions(
    score, tmp_path
):
    raw = raw_table(2, seed=5)
    _, plain = score(change(raw, SPACED, pa.array([2.0**53, 2.0**63])))
    large = pa.array([2**53 + 1, 2**63 + 1], pa.uint64())
    _, other = score(change(raw, SPACED, large), tmp_path / "other")
    assert read(other).equals(read(plain))


def test_int96_times_are_those_that_were_written(score, tmp_path):
    """As Spark, Hive and Impala write them; 9999 is how many say 'no end'."""
    times = [dt.datetime(9999, 12, 31, 5), dt.datetime(1600, 1, 1, 7), dt.datetime(2024, 2, 3, 4)]
    raw = change(raw_table(3, seed=5), "at", pa.array(times, pa.timestamp("us", tz="UTC")))
    _, plain = score(raw)
    pq.write_table(raw, tmp_path / "96.parquet", use_deprecated_int96_timestamps=True)
    _, other = score(tmp_path / "96.parquet", tmp_path / "other", keep=["id", "at"])
    assert read(other)["at"].to_pylist() == times
    assert read(other).drop_columns(["at"]).equals(read(plain))


def test_nan_is_missing_where_the_model_takes_whole_numbers(score, tmp_path):
    raw = raw_table(3, seed=5)
    _, plain = score(change(raw, EMOJI, pa.array([7, None, 3])))
    for kind in (pa.float64(), pa.float32()):
        floats = pa.array([7.0, float("nan"), 3.0], kind)
        _, other = score(change(raw, EMOJI, floats), tmp_path / str(kind))
        assert read(other).equals(read(plain))


def test_a_kept_column_without_nulls_in_one_file_has_some_in_the_next(score, tmp_path):
    raw = raw_table(4, seed=5)
    folder = tmp_path / "rows"
    folder.mkdir()
    for place in (0, 1):
        part = raw.slice(2 * place, 2)
        key = pa.field("id", pa.int64(), nullable=bool(place))
        ids = pa.array([None, 3] if place else [0, 1])
        pq.write_table(part.set_column(0, key, ids), folder / f"{place}.parquet")
    assert not pq.read_schema(folder / "0.parquet").field("id").nullable
    _, output = score(folder)
    assert read(output)["id"].to_pylist() == [0, 1, None, 3]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("shop", pa.array([1, 2**40], pa.int64())),
        ("shop", pa.array([Decimal("3.70"), Decimal("1.00")])),
        ("shop", pa.array([Decimal(1), Decimal(5_000_000_000)])),
        (EMOJI, pa.array([1, 2**63 + 5], pa.uint64())),
        (EMOJI, pa.array([1.0, 2.5])),
        (EMOJI, pa.array([float("nan"), 2.5])),
        (EMOJI, pa.array([1.0, float("inf")])),
        ("at", pa.array([0, 2**63 - 1], pa.timestamp("ms", tz="UTC"))),
        ("at", pa.array([0, 2**44], pa.timestamp("s"))),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_leaves_nothing(score, tmp_path, name, values):
    with pytest.raises(SchemaError, match=r"column '.+' is .* and must fit"):
        score(change(raw_table(2, seed=5), name, values))
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize("name", ["color", "shop", "at", SPACED])
def test_a_column_of_nulls_without_a_type_is_taken(score, name):
    raw = change(raw_table(4, seed=5), name, pa.nulls(4))
    assert score(raw)[0].rows_scored == 4


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", b"a,b\n1,2\n"])
def test_a_file_that_is_no_parquet_is_named(score, tmp_path, content):
    path = tmp_path / "broken.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.parquet.*must be a whole Parquet file"):
        score(path)


def test_a_file_of_text_is_told_what_makes_parquet_of_it(score, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"rows\.csv' must be a Parquet file, .* `arclight rows"):
        score(path)


def test_a_flipped_page_is_found_by_its_checksum(score, tmp_path):
    path = tmp_path / "flip.parquet"
    options = {"write_page_checksum": True, "compression": "none", "use_dictionary": False}
    pq.write_table(raw_table(5000, seed=1), path, **options)
    content = bytearray(path.read_bytes())
    meta = pq.read_metadata(path).row_group(0)
    place = next(
        meta.column(i).data_page_offset + meta.column(i).total_compressed_size // 2
        for i in range(meta.num_columns)
        if meta.column(i).path_in_schema == SPACED
    )
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"flip\.parquet"):
        score(path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a.parquet", "b.parquet"])
@pytest.mark.parametrize("change", ["cut", "written into", "replaced", "of other columns", "gone"])
def test_a_file_that_changes_while_it_is_scored_is_named(
    score, tmp_path, monkeypatch, change, name
):
    """Rows of `a` are being read, those of `b` not yet; mapped into memory a cut is a crash."""
    monkeypatch.setattr(score_input, "BATCH_ROWS", 64)
    raw = raw_table(20_000, seed=3)
    (tmp_path / "in").mkdir()
    for one in ("a.parquet", "b.parquet"):
        pq.write_table(raw, tmp_path / "in" / one, row_group_size=1000)
    changed, other = tmp_path / "in" / name, tmp_path / "other.parquet"
    pq.write_table(raw.drop_columns(["color"]) if "columns" in change else raw, other)

    def disturb(rows: int, *_: object) -> None:
        if rows != 64:
            return
        if change == "cut":
            os.truncate(changed, 1000)
        elif change == "written into":
            content = changed.read_bytes()
            with changed.open("r+b") as file:
                file.write(content)
        elif change == "gone":
            changed.unlink()
        else:
            other.replace(changed)

    with pytest.raises(DataError, match=f"'{name}' must stay as it is while .* run again"):
        score(tmp_path / "in", tick=disturb)
    assert not list(tmp_path.glob("out*"))
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("make", "kind"),
    [(lambda p: None, MissingError), (lambda p: p.mkdir(), DataError)],
)
def test_no_input_is_an_error(score, tmp_path, make, kind):
    make(tmp_path / "nowhere")
    with pytest.raises(kind):
        score(tmp_path / "nowhere")


def test_an_output_with_something_in_it_is_never_touched(score, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    assert score(raw_table(5, seed=1), output)[0].rows_scored == 5  # empty is fine
    before = sorted(p.name for p in output.iterdir())
    with pytest.raises(RefusedError, match="must be a new or empty folder"):
        score(raw_table(5, seed=1), output)
    assert sorted(p.name for p in output.iterdir()) == before


def test_B6_of_two_runs_with_one_output_one_is_told(score, tmp_path):
    output = tmp_path / "out"
    first = []
    pq.write_table(raw_table(5, seed=1), tmp_path / "five.parquet")

    def tick(*_):
        if not first:
            first.append(True)
            score(raw_table(7, seed=2), output)  # another run finishes meanwhile

    with pytest.raises(ConflictError, match="somebody else wrote it"):
        score(tmp_path / "five.parquet", output, tick=tick)
    assert read(output).num_rows == 7
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


# ---------------------------------------------------------------------------- rows and faults


def test_B3_rejected_rows_stand_aside_with_place_and_reason(score, monkeypatch):
    monkeypatch.setattr(score_input, "BATCH_ROWS", 64)
    raw = raw_table(300, seed=6)
    values = raw[SPACED].to_numpy().copy()
    values[[3, 70, 299]] = np.inf
    result, output = score(change(raw, SPACED, pa.array(values, from_pandas=True)))
    assert (result.rows_scored, result.rows_rejected) == (297, 3)
    assert result.reasons == {f"infinite:{SPACED}": 3}
    side = read(output / "_rejected")
    assert side["row"].to_pylist() == side["id"].to_pylist() == [3, 70, 299]
    assert side["reasons"].to_pylist() == [[f"infinite:{SPACED}"]] * 3
    assert set(side["file"].to_pylist()) == {"in.parquet"}
    ids = read(output)["id"].to_pylist()
    assert sorted([*ids, 3, 70, 299]) == list(range(300))


def test_views_are_kept_beside_rejected_rows(score):
    """Arrow cannot take some rows of views, in which DataFusion and others write text."""
    raw = raw_table(4, seed=1)
    raw = change(raw, SPACED, pa.array([1.0, np.inf, 2.0, 3.0]))
    for kind in (pa.string_view(), pa.binary_view()):
        raw = raw.append_column(str(kind), pa.array(["a", "b", "c", None], pa.string()).cast(kind))
    _, output = score(raw, keep=["string_view", "binary_view"])
    assert read(output)["string_view"].to_pylist() == ["a", "c", None]
    assert read(output / "_rejected")["binary_view"].to_pylist() == [b"b"]


def test_rejected_rows_name_their_file_where_folders_have_files_of_one_name(score, tmp_path):
    for year in (2013, 2014):
        (tmp_path / "in" / f"year={year}").mkdir(parents=True)
        raw = change(raw_table(2, seed=6), SPACED, pa.array([0.0, np.inf]))
        pq.write_table(raw, tmp_path / "in" / f"year={year}" / "part-0.parquet")
    _, output = score(tmp_path / "in")
    files = read(output / "_rejected")["file"].to_pylist()
    assert files == ["year=2013/part-0.parquet", "year=2014/part-0.parquet"]


def test_S4_E13_nulls_and_unseen_levels_are_scored(score):
    raw = raw_table(3, seed=1)
    raw = change(raw, "color", pa.array(["never seen", None, "🙂"]))
    raw = change(raw, EMOJI, pa.array([None, -(10**15), 10**15], pa.int64()))
    result, output = score(raw)
    assert result.rows_scored == 3
    assert pc.all(pc.is_finite(read(output)["score"])).as_py()


def test_B2_a_reader_sees_nothing_or_all(score, tmp_path, monkeypatch):
    monkeypatch.setattr(score_input, "BATCH_ROWS", 64)
    output, seen, stop = tmp_path / "out", set(), threading.Event()

    def poll():
        while not stop.is_set():
            if output.exists():
                seen.add(((output / "_manifest.json").exists(), read(output).num_rows))
            time.sleep(0.001)

    thread = threading.Thread(target=poll)
    thread.start()
    score(raw_table(3000, seed=1), output)
    time.sleep(0.02)
    stop.set()
    thread.join()
    assert seen == {(True, 3000)}


KILLED = """
import sys
from pathlib import Path
from arclight.catalog import Catalog
from arclight.store import Store
from ray_apps import score_input
from ray_apps.score import score_folder

score_input.BATCH_ROWS = 16
catalog = Catalog(Store(Path(sys.argv[1])))

def tick(done, total, note):
    print(done, flush=True)

score_folder(catalog, catalog.model(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]),
             threads=1, tick=tick)
"""


def test_B1_a_killed_scoring_leaves_no_output_and_runs_again(score, trained, tmp_path):
    made, bundle = trained("binary", "lightgbm")
    source, output = tmp_path / "in.parquet", tmp_path / "out"
    raw = raw_table(50_000, seed=3)
    pq.write_table(raw, source)
    arguments = [str(made.catalog.store.root), bundle.ref, str(source), str(output)]
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 320:
            break
    os.kill(child.pid, signal.SIGKILL)
    child.stdout.close()
    assert child.wait(timeout=30) == -signal.SIGKILL
    assert not output.exists()
    score(source, output)
    assert read(output)["id"].to_pylist() == raw["id"].to_pylist()


def test_a_scoring_holds_its_folder_while_it_works(score, shared, tmp_path):
    seen = []

    def tick(done, total, note):
        for work in tmp_path.glob(".out.*.tmp"):
            with held(work, alone=True) as is_ours:
                seen.append(is_ours)

    score(shared("binary").raw["test"], tick=tick)
    assert seen
    assert not any(seen)
