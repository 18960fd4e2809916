"""The reader: who reads what, what is refused, and that no row is lost."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arclight.errors import DataError, IntegrityError, LockedError
from arclight.manifest import DataFile
from ray_apps.shards import (
    Reader,
    assign,
    dense,
    open_split,
    read_shard,
    stored_features,
)
from tests.ray_apps.make_dataset import EMOJI, make_dataset


def files(*groups: tuple[int, ...]) -> list[DataFile]:
    return [
        DataFile(
            part="train", path=f"train/{i}", rows=sum(g), size_bytes=1, sha256="", row_groups=g
        )
        for i, g in enumerate(groups)
    ]


@given(
    st.lists(st.lists(st.integers(0, 1000), max_size=6).map(tuple), max_size=6),
    st.integers(1, 5),
)
def test_every_row_goes_to_exactly_one_worker_and_all_have_as_many(groups, world):
    made = files(*groups)
    shares = [assign(made, rank, world) for rank in range(world)]
    rows = [
        (p.file.path, p.group, row) for p in itertools.chain(*shares)
        for row in range(p.start, p.start + p.rows)
    ]  # fmt: skip
    wanted = [
        (f.path, i, row) for f in made for i, n in enumerate(f.row_groups) for row in range(n)
    ]
    assert sorted(rows) == wanted
    loads = [sum(piece.rows for piece in share) for share in shares]
    assert max(loads) - min(loads) <= 1
    # a worker opens a row group of another only where the rows would not come out even
    pieces = sum(len(share) for share in shares)
    assert pieces <= len({row[:2] for row in wanted}) + world - 1


def test_one_worker_reads_in_file_order():
    found = assign(files((5, 0, 9), (7,)), 0, 1)
    assert [(p.group, p.start, p.rows) for p in found] == [(0, 0, 5), (2, 0, 9), (0, 0, 7)]


def test_each_worker_sees_the_whole_table():
    """Rows that come in order, by time say, would otherwise teach each worker another time."""
    found = [assign(files((10,) * 6), rank, 2) for rank in range(2)]
    assert [[p.group for p in share] for share in found] == [[0, 2, 4], [1, 3, 5]]


def test_T5_odd_row_counts_on_two_workers_lose_no_row(tmp_path):
    made = make_dataset(tmp_path, rows=(2001, 101, 50), row_groups=7)
    folder = made.catalog.folder(made.manifest)
    for part, rows in (("train", 2001), ("valid", 101)):
        shards = [
            read_shard(folder, made.manifest, part, reader=Reader(rank, 2)) for rank in range(2)
        ]
        assert sum(shard.rows for shard in shards) == rows
        whole = read_shard(folder, made.manifest, part)
        assert sorted(np.concatenate([s.label for s in shards])) == sorted(whole.label)


def test_T5_PQ2_a_worker_without_rows_is_refused(tmp_path):
    made = make_dataset(tmp_path, rows=(100, 2, 20), row_groups=1, files=1)
    folder = made.catalog.folder(made.manifest)
    read_shard(folder, made.manifest, "valid", reader=Reader(1, 2))
    with pytest.raises(DataError, match=r"worker 1 of 3 must get at least one row of the valid"):
        read_shard(folder, made.manifest, "valid", reader=Reader(0, 3))


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_come_in_order_whatever_the_threads(shared, threads):
    made = shared("binary")
    batches = open_split(
        made.catalog.folder(made.manifest),
        made.manifest,
        "train",
        columns=("label", "id"),
        reader=Reader(threads=threads),
    )
    table = pa.Table.from_batches(list(batches))
    assert table.column_names == ["label", "id"]
    assert table["id"].to_pylist() == list(range(2400))


def test_features_are_encoded_as_the_plan_says(shared):
    made = shared("binary")
    shard = read_shard(made.catalog.folder(made.manifest), made.manifest, "train")
    table = pa.concat_tables(shard.tables)
    plan = made.manifest.plan
    assert table.column_names == [f"f{i}" for i in range(len(plan.features))]
    assert [str(t) for t in table.schema.types] == ["int32"] * 3 + ["float"] * 5
    shop = pc.subtract(made.raw["train"]["shop"], 1)
    assert table["f0"].to_pylist() == shop.to_pylist()
    grey = pc.equal(made.raw["train"]["color"], "grey").to_pylist()
    codes = [c for c, g in zip(table["f1"].to_pylist(), grey, strict=True) if g]
    assert set(codes) == {
        plan.features[1].unknown_code
        if "grey" not in plan.features[1].levels
        else plan.features[1].levels.index("grey")
    }
    matrix = dense(table)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert np.isnan(matrix[:, 1]).sum() == table["f1"].null_count > 0


def test_the_test_split_is_locked(shared):
    made = shared("binary")
    folder = made.catalog.folder(made.manifest)
    with pytest.raises(LockedError, match="must be opened by an evaluation, got the opening"):
        open_split(folder, made.manifest, "test")
    with pytest.raises(LockedError, match="record none"):
        read_shard(folder, made.manifest, "test")


def test_an_opening_of_another_dataset_opens_nothing(own):
    made, bundle = own("binary", "lightgbm")
    other = made.manifest.model_copy(update={"number": 9})
    opening = made.catalog.open_test(made.manifest, bundle, run="r")
    folder = made.catalog.folder(made.manifest)
    with pytest.raises(LockedError, match=r"one of demo@1"):
        open_split(folder, other, "test", opening=opening)
    rows = sum(b.num_rows for b in open_split(folder, made.manifest, "test", opening=opening))
    assert rows == 600


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [(_flip, "SHA-256"), (_cut, "bytes as published"), (Path.unlink, "not there")],
)
def test_a_damaged_file_is_refused_before_it_is_parsed(tmp_path, damage, message):
    made = make_dataset(tmp_path, rows=(200, 50, 50))
    folder = made.catalog.folder(made.manifest)
    damage(folder / made.manifest.files_of("train")[1].path)
    with pytest.raises(IntegrityError, match=message):
        read_shard(folder, made.manifest, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_groups": (80, 20)}, "must have row groups of"),
        ({"rows": 99, "row_groups": (99,)}, "add up to"),
    ],
)
def test_rows_must_be_those_published(tmp_path, change, message):
    made = make_dataset(tmp_path, rows=(200, 50, 50), row_groups=1)
    files_now = [
        f.model_copy(update=change) if f.path.endswith("train/part-00001.parquet") else f
        for f in made.manifest.files
    ]
    manifest = made.manifest.model_copy(update={"files": tuple(files_now)})
    with pytest.raises(IntegrityError, match=message):
        read_shard(made.catalog.folder(manifest), manifest, "train")


def test_a_column_that_is_not_there_is_named(shared):
    made = shared("binary")
    batches = open_split(
        made.catalog.folder(made.manifest), made.manifest, "train", columns=("nope",)
    )
    with pytest.raises(IntegrityError, match="column 'nope'"):
        next(batches)


def test_a_sample_is_of_rows_from_all_over(tmp_path):
    """Rows of a part may lie in an order of time, as parts may: its first ones are no sample."""
    made = make_dataset(tmp_path, rows=(2000, 50, 50), row_groups=10)
    shard = read_shard(made.catalog.folder(made.manifest), made.manifest, "train")
    matrix, told = shard.sample(240, 3)
    assert matrix.shape == (240, len(made.manifest.plan.features))
    whole, every = shard.sample(10**9, 3)
    assert np.array_equal(whole, shard.matrix(), equal_nan=True)
    assert np.array_equal(every, np.arange(shard.rows))
    lines = {row.tobytes(): place for place, row in enumerate(whole)}
    places = np.array([lines[row.tobytes()] for row in matrix])
    assert np.array_equal(told, places)
    wanted = [len(shard.labels) * i // 8 for i in range(8)]
    starts = np.cumsum([0, *map(len, shard.labels)])
    for part, mine in zip(wanted, np.split(places, 8), strict=True):
        assert starts[part] <= mine.min()
        assert mine.max() < starts[part + 1]
        assert len(set(mine.tolist())) == 30
        assert mine.mean() - starts[part] == pytest.approx(len(shard.labels[part]) / 2, rel=0.35)
    assert np.array_equal(shard.sample(240, 3)[0], matrix, equal_nan=True)
    assert not np.array_equal(shard.sample(240, 4)[0], matrix, equal_nan=True)
    assert abs(len(shard.sample(1900, 3)[1]) - 1900) < len(shard.labels)


def test_features_are_read_anew_and_few_are_held(tmp_path):
    made = make_dataset(tmp_path, rows=(60_000, 50, 50), row_groups=60)
    folder = made.catalog.folder(made.manifest)
    shard = read_shard(folder, made.manifest, "train", reader=Reader(threads=2))
    first = pa.concat_tables(shard.tables)
    assert len(shard.tables) == len(shard.labels) >= 60
    whole = first.nbytes
    assert pa.concat_tables(shard.tables).equals(first)
    assert shard.tables[3].equals(list(shard.tables)[3])
    del first
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in shard.tables]
    assert max(held) < whole / 4


def test_a_file_is_hashed_once_however_often_it_is_read(tmp_path, monkeypatch):
    made = make_dataset(tmp_path, rows=(400, 50, 50))
    hashed = []

    def count(path, **_):
        hashed.append(path.name)

    monkeypatch.setattr("ray_apps.shards.check_file", count)
    shard = read_shard(made.catalog.folder(made.manifest), made.manifest, "train")
    for _ in range(3):
        list(shard.tables)
    shard.matrix()
    assert sorted(hashed) == sorted(
        {p.path.rpartition("/")[2] for p in made.manifest.files_of("train")}
    )


def test_damage_between_two_readings_is_seen(tmp_path):
    made = make_dataset(tmp_path, rows=(400, 50, 50), row_groups=2)
    folder = made.catalog.folder(made.manifest)
    shard = read_shard(folder, made.manifest, "train")
    list(shard.tables)
    _flip(folder / made.manifest.files_of("train")[1].path)
    with pytest.raises(IntegrityError, match="cannot be decoded"):
        list(shard.tables)


def test_a_carried_number_is_what_the_builder_makes_of_it(tmp_path):
    """A key or group may be a feature as well, and have whole numbers that no float64 holds."""
    plan = make_dataset(tmp_path, rows=(40, 10, 10)).manifest.plan
    raw = pa.table({name: pa.nulls(3) for name in plan.names}).to_batches()[0]
    large = pa.array([2**53 + 1, -(2**63), None])
    raw = raw.set_column(raw.schema.get_field_index(EMOJI), EMOJI, large)
    found = stored_features(raw, plan)[EMOJI]
    assert found.to_pylist() == [2.0**53, -(2.0**63), None]
