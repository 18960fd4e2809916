"""The whole ETL on a real Spark session: what is published, and that no row goes missing."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from arclight.errors import DataError, RefusedError, SchemaError, SpecError
from arclight.spec_file import load_spec
from jobs.submissions import _write_spec
from spark.etl_plan import plan_etl
from tests.spark.etl_case import make_case, rows

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def test_every_row_is_in_one_split_or_accounted_for(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(1000))
    manifest = case.build(session)
    stored = case.splits(manifest)
    assert sorted(stored["id"].to_pylist()) == list(range(1000))
    assert manifest.ref == "case@1"
    assert manifest.ledger.sources == {"t": 1000}
    assert {s.name: s.rows_out for s in manifest.ledger.stages}["write"] == 1000
    assert manifest.proof.keys == 1000
    assert sum(manifest.rows[p] for p in ("train", "valid", "test")) == 1000
    train = {s.name: s for s in manifest.summaries["train"]}
    assert train["x"].rows == manifest.rows["train"]
    assert train["x"].high == 16.0
    assert sum(manifest.class_rows["train"].values()) == manifest.rows["train"]


def test_files_are_written_for_the_reader(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(500))
    manifest = case.build(session)
    file = manifest.files_of("train")[0]
    with pq.ParquetFile(case.catalog.folder(manifest) / file.path) as parquet:
        kinds = {f.name: str(f.type) for f in parquet.schema_arrow}
        group = parquet.metadata.row_group(0)
        encodings = {
            group.column(i).path_in_schema: group.column(i).encodings
            for i in range(group.num_columns)
        }
        codecs = {group.column(i).compression for i in range(group.num_columns)}
    assert kinds == {"id": "int64", "y": "double", "x": "float", "n": "float", "c": "string"}
    assert "RLE_DICTIONARY" in encodings["c"]
    assert "RLE_DICTIONARY" not in encodings["x"]
    assert codecs == {"LZ4"}


def test_the_same_rows_give_the_same_bytes_in_any_order_and_file(
    session: SparkSession, tmp_path: Path
):
    digests = set()
    table = rows(800)
    for name, parts in {"a": [table], "b": [table.slice(300), table.slice(0, 300)]}.items():
        folder = tmp_path / name
        folder.mkdir()
        case = make_case(folder)
        for index, part in enumerate(parts):
            case.write("t", part, file=f"part-{index}.parquet")
        digests.add(case.build(session).content_digest)
    assert len(digests) == 1


def test_rows_without_a_key_get_the_same_one_on_every_run(session: SparkSession, tmp_path: Path):
    doubled = pa.concat_tables([rows(300), rows(100)])  # 100 rows occur twice
    found = []
    for name, table in {"a": doubled, "b": doubled.take(list(reversed(range(400))))}.items():
        folder = tmp_path / name
        folder.mkdir()
        case = make_case(folder, table, key=[])
        case.body["etl"]["key"] = []
        manifest = case.build(session)
        keys = case.splits(manifest)["row_key"].to_pylist()
        assert len(set(keys)) == 400
        assert sum(key.endswith("-1") for key in keys) == 100
        found.append(sorted(keys))
    assert found[0] == found[1]


def test_null_and_repeated_keys_go_to_quarantine(session: SparkSession, tmp_path: Path):
    ids = [None, None, 7, 7, 7, *range(100, 595)]
    case = make_case(tmp_path, rows(500, id=pa.array(ids, pa.int64())))
    manifest = case.build(session)
    quarantine = case.read(manifest, "quarantine")
    reasons = sorted(tuple(r) for r in quarantine["reasons"].to_pylist())
    assert reasons == [("key_null",)] * 2 + [("key_repeated",)] * 3  # wherever the rows came
    key = next(s for s in manifest.ledger.stages if s.name == "key")
    assert key.quarantined == {"key_null": 2, "key_repeated": 3}
    assert 7 not in case.splits(manifest)["id"].to_pylist()


def test_fail_refuses_with_the_count(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(500, id=pa.array([1, 1, *range(2, 500)])), on_bad_key="fail")
    with pytest.raises(RefusedError, match=r"key_repeated by 2 rows"):
        case.build(session)
    assert not case.catalog.names("datasets")


@pytest.mark.parametrize(
    ("task", "labels", "reason", "count"),
    [
        ("binary", [None, None, *([0.0, 1.0] * 249)], "label_null", 2),
        ("binary", [2.0, -1.0, *([0.0, 1.0] * 249)], "label_not_0_or_1", 2),
        ("binary", [float("nan"), float("inf"), *([0.0, 1.0] * 249)], "label_not_finite", 2),
        ("regression", [float("nan"), float("-inf"), *([3.0, 4.5] * 249)], "label_not_finite", 2),
        ("regression", [1e200, -1e39, *([3.0, 4.5] * 249)], "label_too_large", 2),
        ("regression", [2**53 + 1, -(2**60), *([3, 4] * 249)], "label_too_large", 2),
        ("multiclass", [None, None, *(["a", "b"] * 249)], "label_null", 2),
        ("multiclass", ["x" * 257, "ü" * 200, *(["a", "b"] * 249)], "label_too_long", 2),
    ],
)
def test_labels_outside_the_task_go_to_quarantine(
    session: SparkSession, tmp_path: Path, task, labels, reason, count
):
    case = make_case(tmp_path, rows(500, y=pa.array(labels)))
    case.body["task"] = task
    manifest = case.build(session)
    label = next(s for s in manifest.ledger.stages if s.name == "label")
    assert label.quarantined == {reason: count}
    assert manifest.rows["quarantine"] == count


def test_one_class_is_refused(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(300, y=pa.array([True] * 300)))
    with pytest.raises(RefusedError, match=r"at least two classes of 'y', got only 1"):
        case.build(session)


def test_a_label_of_more_values_is_told_where_one_class_is_left(
    session: SparkSession, tmp_path: Path
):
    case = make_case(tmp_path, rows(300, y=pa.array([1, 2, 3] * 100)))
    with pytest.raises(RefusedError, match=r"only 1 in .* for label_not_0_or_1 200\); change"):
        case.build(session)


def test_where_no_row_is_left_the_reasons_are_said(session: SparkSession, tmp_path: Path):
    """There is no dataset and no page to look them up in."""
    case = make_case(tmp_path, rows(300, y=pa.array([7] * 300)))
    with pytest.raises(RefusedError, match=r"quarantine 300 for label_\w+ 300\); change what"):
        case.build(session)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows_are_refused(session: SparkSession, tmp_path: Path, count: int):
    with pytest.raises(RefusedError, match=r"no row came out|every split must have rows"):
        make_case(tmp_path, rows(count)).build(session)


def test_null_and_constant_columns_are_kept_and_said(session: SparkSession, tmp_path: Path):
    table = rows(300, x=pa.nulls(300, pa.float64()), n=pa.array([3] * 300, pa.int32()))
    table = table.append_column("void", pa.nulls(300))
    manifest = make_case(tmp_path, table).build(session)
    assert manifest.warnings == (
        "feature 'x' is null in every train row",
        "feature 'n' has one value in train",
        "feature 'void' is null in every train row",
    )


def test_checks_name_every_rule_a_row_broke(session: SparkSession, tmp_path: Path):
    checks = [
        {"name": "x_small", "expect": "x < 10"},
        {"name": "n_not_four", "expect": "n <> 4"},
        {"name": "watch", "expect": "id > 10", "else": "warn"},
    ]
    case = make_case(tmp_path, rows(510), checks=checks)
    manifest = case.build(session)
    table = rows(510)
    large, four = pc.greater_equal(table["x"], 10.0), pc.equal(table["n"], 4)
    expected = sorted(
        (i, [n for n, b in (("check:x_small", a), ("check:n_not_four", c)) if b])
        for i, a, c in zip(
            table["id"].to_pylist(), large.to_pylist(), four.to_pylist(), strict=True
        )
        if a or c
    )
    quarantine = case.read(manifest, "quarantine")
    found = zip(quarantine["id"].to_pylist(), quarantine["reasons"].to_pylist(), strict=True)
    assert sorted(found) == expected
    assert manifest.rows["quarantine"] == len(expected)
    assert "check 'watch' was broken by 11 rows, which were kept" in manifest.warnings


def test_a_check_that_says_fail_refuses(session: SparkSession, tmp_path: Path):
    checks = [{"name": "none_at_all", "expect": "x < 5", "else": "fail"}]
    with pytest.raises(RefusedError, match=r"none_at_all by 140 rows") as caught:
        make_case(tmp_path, rows(200), checks=checks).build(session)
    assert caught.value.exit_status == 3


def test_a_derived_value_that_cannot_be_is_quarantined(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(500))
    case.body["features"]["derive"] = {"ratio": "x / n", "far": "id + 9223372036854775500"}
    manifest = case.build(session)
    derive = next(s for s in manifest.ledger.stages if s.name == "derive")
    assert derive.quarantined["derive:ratio"] == 100  # n = 0
    past = range(2**63 - 9223372036854775500, 500)  # ids that overflow
    # those with n = 0 are counted under their first reason
    assert derive.quarantined["derive:far"] == sum(1 for i in past if i % 5)


def test_an_error_in_the_sql_stops_the_run_in_one_sentence(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(200), sql="SELECT *, id DIV (n - n) AS z FROM t")
    with pytest.raises(DataError, match=r"DIVIDE_BY_ZERO") as caught:
        case.build(session)
    assert caught.value.exit_status == 1
    assert len(caught.value.message) < 600


def test_infinite_numbers_are_quarantined_and_nan_is_null(session: SparkSession, tmp_path: Path):
    x = [float("inf"), float("nan"), *[1.5, 1e300] * 249]
    case = make_case(tmp_path, rows(500, x=pa.array(x)))
    manifest = case.build(session)
    derive = next(s for s in manifest.ledger.stages if s.name == "derive")
    assert derive.quarantined == {"infinite:x": 1}
    stored = case.splits(manifest)["x"]
    assert stored.null_count == 1
    assert pc.max(stored).as_py() == pytest.approx(3.4028234663852886e38)
    assert sum(s.nans for p in manifest.summaries.values() for s in p if s.name == "x") == 1


def test_a_broken_contract_names_every_difference(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(300))
    case.build(session)
    changed = rows(300).drop(["n"]).append_column("new", pa.array([1.0] * 300))
    changed = changed.set_column(1, "x", pa.array([str(i) for i in range(300)]))
    case.write("t", changed)
    with pytest.raises(SchemaError) as caught:
        case.build(session)
    assert "column 'n' (int) is missing" in caught.value.message
    assert "column 'new' (double) is new" in caught.value.message
    assert "column 'x' was double, is string" in caught.value.message
    assert caught.value.exit_status == 3
    assert case.build(session, accept_schema=True).number == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_is_named(session: SparkSession, tmp_path: Path, damage: str):
    case = make_case(tmp_path, rows(1000))
    path = case.write("t", rows(1000), file="part-1.parquet")
    data = {"cut": path.read_bytes()[:-400], "empty": b"", "text": b"id,x\n1,2\n"}[damage]
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"part-1\.parquet") as caught:
        case.build(session)
    assert caught.value.exit_status == 1


def test_split_by_time_drops_the_gap_and_proves_the_order(session: SparkSession, tmp_path: Path):
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    times = [start + dt.timedelta(hours=i) for i in range(1000)]
    table = rows(1000, at=pa.array([*times[:-1], None], pa.timestamp("us", tz="UTC")))
    case = make_case(
        tmp_path,
        table,
        time="at",
        split={
            "by": "time",
            "valid_from": "2024-01-21",
            "test_from": "2024-02-01",
            "gap": "1d",
        },
    )
    manifest = case.build(session)
    assert manifest.rows["train"] == 24 * 19
    assert manifest.rows["valid"] == 24 * 10
    assert manifest.rows["test"] == 999 - 24 * 31
    split = next(s for s in manifest.ledger.stages if s.name == "split")
    assert (split.dropped, split.quarantined) == ({"gap": 48}, {"time_null": 1})
    assert manifest.proof.bounds["valid"] == (
        "2024-01-21T00:00:00+00:00",
        "2024-01-30T23:00:00+00:00",
    )


def test_no_group_stands_in_two_splits(session: SparkSession, tmp_path: Path):
    group = pa.array([None if i < 50 else f"g{i % 40}" for i in range(1000)])
    case = make_case(tmp_path, rows(1000, g=group))
    case.body["etl"]["split"] = {
        "by": "hash", "train": 0.5, "valid": 0.25, "test": 0.25, "group": ["g"],
    }  # fmt: skip
    manifest = case.build(session)
    found = {p: set(case.read(manifest, p)["g"].to_pylist()) for p in ("train", "valid", "test")}
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not (found[a] & found[b]) - {None}
    assert sum(manifest.proof.groups.values()) == 40
    assert all(None in groups for groups in found.values())  # each is a group by itself


def test_odd_text_survives(session: SparkSession, tmp_path: Path):
    texts = ["😀 grüß", "line\nbreak", "nul\0byte", "x" * 1_000_000, "", "'; DROP TABLE t; --"]
    table = rows(300, c=pa.array([texts[i % 6] for i in range(300)]))
    table = table.append_column("2B", pa.array([1.0] * 300)).append_column(
        "a b\u00fc😀", pa.array([2.0] * 300)
    )
    case = make_case(tmp_path, table)
    manifest = case.build(session)
    assert set(case.splits(manifest)["c"].to_pylist()) == set(texts)
    levels = next(f.levels for f in manifest.plan.features if f.name == "c")
    assert set(levels) == set(texts) - {"x" * 1_000_000}  # over 256 bytes: the unknown level
    assert {"2B", "a b\u00fc😀"} <= set(manifest.plan.names)


def test_a_hundred_thousand_rows_of_one_key(session: SparkSession, tmp_path: Path):
    ids = pa.array([5] * 99_000 + list(range(10, 1010)), pa.int64())
    manifest = make_case(tmp_path, rows(100_000, id=ids)).build(session)
    assert manifest.rows["quarantine"] == 99_000
    assert manifest.proof.repeated_keys == 99_000


def test_a_category_of_many_levels_is_kept_whole_in_the_data(
    session: SparkSession, tmp_path: Path
):
    many = pa.array([f"level-{i}" for i in range(50_000)])
    case = make_case(tmp_path, rows(50_000, c=many))
    case.body["features"] = {"max_levels": 100, "min_count": 1}
    manifest = case.build(session)
    feature = next(f for f in manifest.plan.features if f.name == "c")
    assert len(feature.levels) == 100
    assert len(set(case.splits(manifest)["c"].to_pylist())) == 50_000
    assert any("more an identifier than a category" in w for w in manifest.warnings)


def test_dates_of_1582_and_9999(session: SparkSession, tmp_path: Path):
    days = [dt.date(1582, 10, 4), dt.date(1582, 10, 15), dt.date(9999, 12, 31), dt.date(1, 1, 1)]
    table = rows(400, day=pa.array([days[i % 4] for i in range(400)]))
    case = make_case(tmp_path, table, key=["id", "day"])
    case.body["features"]["derive"] = {"year": "year(day)", "yday": "dayofyear(day)"}
    stored = case.splits(case.build(session))
    assert set(stored["year"].to_pylist()) == {1582.0, 9999.0, 1.0}
    found = dict(zip(stored["day"].to_pylist(), stored["yday"].to_pylist(), strict=True))
    assert found == {day: float(day.timetuple().tm_yday) for day in days}


def test_two_columns_of_one_name_after_a_join_are_refused(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(100), sql="SELECT a.*, b.x FROM t a JOIN t b USING (id)")
    with pytest.raises(SchemaError, match=r"more than one column named 'x'"):
        case.build(session)


@pytest.mark.parametrize(
    ("key", "sql", "is_told"),
    [
        ([], "SELECT t.*, more.v FROM t JOIN more USING (n)", True),
        (["id", "v"], "SELECT t.*, more.v FROM t JOIN more USING (n)", False),
        ([], "SELECT *, 1 AS v FROM t UNION ALL SELECT t.*, v FROM t JOIN more USING (n)", False),
        ([], "SELECT t.*, v FROM t JOIN (SELECT n, max(v) AS v FROM more GROUP BY n) USING (n)",
         False),
    ],
)  # fmt: skip
def test_copies_that_a_join_makes_are_told_where_no_key_takes_them_out(
    session: SparkSession, tmp_path: Path, key: list[str], sql: str, *, is_told: bool
):
    """Copies of a row in train and in test: the figures would be too good."""
    case = make_case(tmp_path, rows(300), key=key, sql=sql)
    case.body["sources"]["more"] = {"path": "more"}
    case.write("more", pa.table({"n": pa.array([0, 1, 2, 3, 4] * 2, pa.int32()), "v": range(10)}))
    warnings = case.build(session).warnings
    assert any("600 rows, more than the largest source has ('t' 300)" in w for w in warnings) is (
        is_told
    )


def test_text_that_is_no_category_is_named(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(100))
    case.body["features"]["categorical"] = []
    with pytest.raises(SpecError, match=r"'c' is text but not in features.categorical"):
        case.build(session)


def test_unchanged_inputs_have_the_same_key_and_changed_ones_another(tmp_path: Path):
    case = make_case(tmp_path, rows(100))
    case.body["features"]["categorical"] = ["c"]
    first = plan_etl(load_spec(case.spec_file())).key
    assert plan_etl(load_spec(case.spec_file())).key == first
    case.body["evaluate"] = {"segments": ["id", "c"]}  # which it has anyhow
    assert plan_etl(load_spec(case.spec_file())).key == first
    case.write("t", rows(101))
    assert plan_etl(load_spec(case.spec_file())).key != first


@pytest.mark.parametrize("how", ["sql", "sql_file", "neither"])
def test_a_submitted_spec_has_the_key_that_it_has_here(tmp_path: Path, how: str):
    """There its paths are absolute, and its SQL stands in it."""
    case = make_case(tmp_path, rows(100))
    (tmp_path / "join.sql").write_text("SELECT * FROM t WHERE n > 1")
    told = {"sql": "SELECT * FROM t WHERE n > 1", "sql_file": "join.sql"}
    case.body["etl"] |= {how: told[how]} if how in told else {}
    here = load_spec(case.spec_file())
    sent = tmp_path / "elsewhere" / "spec.yaml"
    sent.parent.mkdir()
    _write_spec(sent, here)
    assert plan_etl(load_spec(sent)).key == plan_etl(here).key


def test_e18_the_same_key_published_twice_is_one_version(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(200))
    first, second = case.build(session), case.build(session)
    assert (first.number, second.number) == (1, 1)
    data = list((tmp_path / "store" / "datasets" / "case" / "data").iterdir())
    assert len(data) == 1  # the second one's files are gone
