"""Sources that Spark would read otherwise than they are, without a word."""

from __future__ import annotations

import csv
import datetime as dt
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import orc

from arclight.errors import ArclightError, DataError, SchemaError, SpecError
from arclight.inputs import look_at
from arclight.progress import silent
from arclight.spec_file import load_spec
from spark import etl as module
from spark.etl import build_dataset
from spark.etl_plan import plan_etl
from spark.read import _check_files
from spark.rowfiles import write_rows
from tests.spark.etl_case import Case, make_case, rows

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def write_csv(
    case: Case, table: pa.Table, *, name: str = "t.csv", encoding: str = "utf-8"
) -> None:
    path = case.folder / "t" / name
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as stream:
        out = csv.writer(stream)
        out.writerow(table.column_names)
        out.writerows(zip(*(table[c].to_pylist() for c in table.column_names), strict=True))


def as_csv(case: Case, schema: str, **options: Any) -> None:
    case.body["sources"]["t"] |= {
        "format": "csv", "schema": schema, "options": {"header": True, **options},
    }  # fmt: skip


def labelled(count: int, **changes: Any) -> pa.Table:
    table = rows(count, **changes)
    label = table["y"].cast(pa.int32())
    return table.set_column(table.schema.get_field_index("y"), "y", label)


def test_a_source_that_the_sql_leaves_out_is_refused(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(300), sql="WITH more AS (SELECT * FROM t) SELECT * FROM more")
    case.body["sources"]["more"] = {"path": "more", "format": "csv", "schema": "id bigint"}
    write_csv(Case(tmp_path, {}), rows(3), name="../more.csv")
    case.body["sources"]["more"]["path"] = "more.csv"
    with pytest.raises(SpecError, match="reads 'more' nowhere; join it"):
        case.build(session)


@pytest.mark.parametrize(
    "sql",
    ["SELECT t.*, m.v FROM t LEFT JOIN (SELECT * FROM more WHERE v > 9) m USING (id)",
     "SELECT DISTINCT t.* FROM t LEFT JOIN more USING (id)",
     "SELECT * FROM t WHERE id NOT IN (SELECT id FROM more WHERE 1 = 0)"],
)  # fmt: skip
def test_a_source_that_spark_leaves_out_is_counted_all_the_same(
    session: SparkSession, tmp_path: Path, sql: str
):
    case = make_case(tmp_path, rows(300), sql=sql)
    case.body["sources"]["more"] = {"path": "m.csv", "format": "csv", "schema": "id bigint, v int"}
    (tmp_path / "m.csv").write_text("1,2\n2,3\n")
    assert case.build(session).ledger.sources == {"t": 300, "more": 2}
    (tmp_path / "m.csv").write_text("1,2\n2,3,4\n")
    with pytest.raises(DataError, match=r"m\.csv' holds a record"):
        case.build(session)


@pytest.mark.parametrize(
    "condition",
    ["at < 'now'", "at = ' Today '", "day IN ('2013-01-01', 'tomorrow')",
     "datediff('today', at) > 0", "to_date('yesterday') > day", "try_to_timestamp('now') > at",
     "coalesce(at, 'now') IS NULL",
     "at BETWEEN '2013-01-01' AND 'now'", "hour('12:30') > 1", "at > '12:30 UTC'",
     "day IN (SELECT day FROM t WHERE day < 'today')"],
)  # fmt: skip
def test_a_text_that_becomes_a_time_may_not_hang_on_the_clock(
    session: SparkSession, tmp_path: Path, condition: str
):
    at = pa.array([dt.datetime(2013, 1, 1, tzinfo=dt.UTC)] * 300)
    table = rows(300, c=pa.array(["today", "now", "12:30"] * 100), at=at, day=at.cast("date32"))
    case = make_case(tmp_path, table, sql=f"SELECT * FROM t WHERE {condition}")
    with pytest.raises(SpecError, match=r"must not use '.*' as a date or a time"):
        case.build(session)


def test_words_of_the_clock_are_text_beside_text(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(300, c=pa.array(["today", "now", "12:30"] * 100)))
    case.body["etl"]["sql"] = "SELECT * FROM t WHERE c = 'today' OR c > 'now' OR c IN ('12:30')"
    assert case.build(session).ledger.stages[0].rows_in == 200


def test_signs_of_variables_in_the_sql_are_text(session: SparkSession, tmp_path: Path):
    case = make_case(
        tmp_path, rows(300), sql="SELECT *, '${env:HOME}' AS home, '${gone}' AS gone FROM t"
    )
    stored = case.splits(case.build(session))
    assert set(stored["home"].to_pylist()) == {"${env:HOME}"}
    assert set(stored["gone"].to_pylist()) == {"${gone}"}


def test_files_that_change_while_they_are_read_are_not_published(
    session: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    case = make_case(tmp_path, rows(300))
    plan = plan_etl(load_spec(case.spec_file()))
    read = module.read_source

    def replaced(*args: Any) -> Any:
        found = read(*args)
        case.write("t", rows(300, x=pa.array([1.0] * 300)))
        return found

    monkeypatch.setattr(module, "read_source", replaced)
    with pytest.raises(DataError, match=r"source 't' .* must not change while it is read"):
        build_dataset(session, plan, case.catalog, tick=silent)
    assert list(case.catalog.datasets("case")) == []


def test_rows_of_files_that_change_while_they_are_read_are_not_written(
    session: SparkSession, tmp_path: Path
):
    case = make_case(tmp_path, rows(300))
    plan = plan_etl(load_spec(case.spec_file()))
    table, schema = module.joined_rows(session, plan, case.catalog)
    case.write("t", rows(300, x=pa.array([1.0] * 300)))
    with pytest.raises(DataError, match=r"source 't' .* must not change while it is read"):
        write_rows(table, schema, tmp_path / "out", plan=plan, where=None, tick=silent)
    assert not (tmp_path / "out").exists()


def test_a_schema_names_no_column_that_parquet_files_lack(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path, rows(300))
    schema = "id bigint, x double, n int, colour string, y boolean"
    case.body["sources"]["t"]["schema"] = schema
    with pytest.raises(SchemaError, match=r"names the column 'colour', which its files do not"):
        case.build(session)
    case.body["sources"]["t"]["schema"] = schema.replace("colour", "c")
    assert case.splits(case.build(session))["c"].null_count == 0


def test_a_value_of_the_path_may_stand_in_a_schema(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path)
    for year in (2013, 2014):
        (tmp_path / "t" / f"year={year}").mkdir(parents=True)
        ids = pa.array(range(year * 1000, year * 1000 + 200), pa.int64())
        case.write("t", rows(200, id=ids), file=f"year={year}/part-0.parquet")
    schema = "id bigint, x double, n int, c string, y boolean, year int"
    case.body["sources"]["t"]["schema"] = schema
    assert set(case.splits(case.build(session))["year"].to_pylist()) == {2013.0, 2014.0}


def test_a_value_of_the_path_is_text_and_keeps_its_zeros(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path)
    for first, fips in enumerate(("01001", "1001")):
        (tmp_path / "t" / f"fips={fips}").mkdir(parents=True)
        ids = pa.array(range(first * 200, first * 200 + 200), pa.int64())
        case.write("t", rows(200, id=ids), file=f"fips={fips}/part-0.parquet")
    kept = case.splits(case.build(session))["fips"].to_pylist()
    assert {one: kept.count(one) for one in kept} == {"01001": 200, "1001": 200}


@pytest.mark.parametrize(
    ("path", "beside"),
    [("t", "more.parquet"), ("t", "more/part-0.parquet"), ("[t]", "more.parquet")],
)
def test_a_file_beside_folders_that_carry_values_is_named(
    session: SparkSession, tmp_path: Path, path: str, beside: str
):
    """Spark reads the folders' files alone, and lists them all."""
    case = make_case(tmp_path)
    for first, file in enumerate((beside, "k=1/part-0.parquet")):
        (tmp_path / "t" / file).parent.mkdir(parents=True, exist_ok=True)
        ids = pa.array(range(first * 200, first * 200 + 200), pa.int64())
        case.write("t", rows(200, id=ids), file=file)
    case.body["sources"]["t"]["path"] = path
    with pytest.raises(DataError, match=rf"'.*/{beside}' must lie in a folder that carries a val"):
        case.build(session)


def test_a_pattern_of_folders_that_carry_values_reads_all_of_them(
    session: SparkSession, tmp_path: Path
):
    case = make_case(tmp_path)
    for first, folder in enumerate(("k=1", "k=22", "plain")):
        (tmp_path / "t" / folder).mkdir(parents=True)
        ids = pa.array(range(first * 200, first * 200 + 200), pa.int64())
        case.write("t", rows(200, id=ids), file=f"{folder}/part-0.parquet")
    case.body["sources"]["t"]["path"] = "t/*"
    manifest = case.build(session)
    assert (manifest.ledger.stages[0].rows_in, manifest.ledger.sources) == (600, {"t": 600})
    assert "k" not in [column.name for column in manifest.sources[0].columns]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_names_beyond_ascii_are_read_in_any_locale(session: SparkSession, tmp_path: Path, kind):
    """The session's own locale is C here: Java would pass over what it cannot spell."""
    case = make_case(tmp_path)
    for first, place in enumerate(("Zürich", "Bern #1", "大阪 🙂")):
        (tmp_path / "t" / f"place={place}").mkdir(parents=True)
        table = labelled(200, id=pa.array(range(first * 200, first * 200 + 200), pa.int64()))
        if kind == "csv":
            write_csv(case, table, name=f"place={place}/größe.csv")
        else:
            case.write("t", table, file=f"place={place}/größe.parquet")
    if kind == "csv":
        as_csv(case, "id bigint, x double, n int, c string, y int")
    kept = case.splits(case.build(session))["place"].to_pylist()
    assert {one: kept.count(one) for one in kept} == {
        "Zürich": 200, "Bern #1": 200, "大阪 🙂": 200,
    }  # fmt: skip


def test_a_file_that_spark_would_pass_over_is_named(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path)
    case.write("t", rows(200), file="a.parquet")
    case.write("t", rows(200), file="b.parquet")
    table = session.read.parquet(str(tmp_path / "t" / "a.parquet"))
    (tmp_path / "spec.yaml").write_text(json.dumps(case.body))
    loaded = load_spec(tmp_path / "spec.yaml")
    files = look_at("t", loaded.spec.sources["t"], loaded)
    with pytest.raises(DataError, match=r"reads 1 of its 2 files.*b\.parquet"):
        _check_files("t", table, files)


def test_bytes_that_are_not_utf8_are_no_text(session: SparkSession, tmp_path: Path):
    names = pa.array(["Müller", "Möller", "Meier"] * 100)
    case = make_case(tmp_path)
    write_csv(case, labelled(300, c=names), encoding="iso-8859-1")
    as_csv(case, "id bigint, x double, n int, c string, y int")
    with pytest.raises(DataError, match=r"t\.csv' must be UTF-8.*a line reads '\d+,.*encoding"):
        case.build(session)
    as_csv(case, "id bigint, x double, n int, c string, y int", encoding="iso-8859-1")
    assert set(case.splits(case.build(session))["c"].to_pylist()) == set(names.to_pylist())


@pytest.mark.parametrize("encoding", ["windows-1252", "utf8", "latin1"])
def test_an_encoding_that_java_knows_is_read(session: SparkSession, tmp_path: Path, encoding: str):
    names = pa.array(["Müller", "Möller" if encoding == "latin1" else "5 €", "Meier"] * 100)
    case = make_case(tmp_path)
    write_csv(case, labelled(300, c=names), encoding=encoding)
    as_csv(case, "id bigint, x double, n int, c string, y int", encoding=encoding)
    assert set(case.splits(case.build(session))["c"].to_pylist()) == set(names.to_pylist())


def test_text_of_two_bytes_a_sign_is_read_whole(session: SparkSession, tmp_path: Path):
    names = pa.array(["Müller", "Ӂ", "上"] * 100)  # 上 is 4E 0A: the second byte is a line's end
    case = make_case(tmp_path)
    write_csv(case, labelled(300, c=names), encoding="utf-16")
    schema = "id bigint, x double, n int, c string, y int"
    as_csv(case, schema, encoding="utf-16")
    with pytest.raises(SpecError, match="add multiLine: true"):
        case.build(session)
    as_csv(case, schema, encoding="utf-16", multiLine=True)
    found = case.splits(case.build(session))
    assert len(found) == 300
    assert set(found["c"].to_pylist()) == set(names.to_pylist())


def test_a_sign_that_stands_for_lost_ones_is_a_sign(session: SparkSession, tmp_path: Path):
    names = pa.array(["M\ufffdller", "Meier", "ü"] * 100)
    case = make_case(tmp_path)
    write_csv(case, labelled(300, c=names))
    as_csv(case, "id bigint, x double, n int, c string, y int")
    assert set(case.splits(case.build(session))["c"].to_pylist()) == set(names.to_pylist())


def test_a_file_more_does_not_undo_what_never_read_it(
    session: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    case = make_case(tmp_path, rows(300))
    plan = plan_etl(load_spec(case.spec_file()))
    read = module.read_source

    def joined(*args: Any) -> Any:
        found = read(*args)
        case.write("t", rows(300, id=pa.array(range(300, 600))), file="part-1.parquet")
        return found

    monkeypatch.setattr(module, "read_source", joined)
    manifest = build_dataset(session, plan, case.catalog, tick=silent)
    assert manifest.ledger.sources == {"t": 300}


def test_a_bad_row_beside_times_is_shown(session: SparkSession, tmp_path: Path):
    times = pa.array(["2013-01-01 10:00:00"] * 300)
    ids = pa.array(["1x", *map(str, range(1, 300))])
    case = make_case(tmp_path)
    write_csv(case, labelled(300, c=times, id=ids))
    as_csv(case, "id bigint, x double, n int, c timestamp, y int")
    case.body["etl"]["drop"] = ["c"]
    with pytest.raises(DataError, match=r"t\.csv' holds a record"):
        case.build(session)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_schema_makes_no_date_of_a_time_of_day(session: SparkSession, tmp_path: Path, kind: str):
    times = pa.array(["08:15:00", "2013-01-01 10:00:00"] * 150)
    case, schema = make_case(tmp_path), "id bigint, x double, n int, c timestamp, y int"
    table = labelled(300, c=times)
    if kind == "csv":
        write_csv(case, table)
        as_csv(case, schema)
    else:
        (tmp_path / "t").mkdir()
        table.to_pandas().to_json(tmp_path / "t" / "t.json", orient="records", lines=True)
        case.body["sources"]["t"] |= {"format": "json", "schema": schema}
    with pytest.raises(ArclightError, match=r"'08:15:00' in column 'c' has no date"):
        case.build(session)
    case.body["sources"]["t"]["schema"] = schema.replace("timestamp", "string")
    assert case.build(session).number == 1


def test_later_files_are_held_to_columns_that_the_first_lacks(
    session: SparkSession, tmp_path: Path
):
    case = make_case(tmp_path, rows(300))
    case.body["sources"]["t"]["options"] = {"mergeSchema": True}
    times = pa.array(np.arange(300) * 10**9 + 1_357_000_000 * 10**9, pa.timestamp("ns", tz="UTC"))
    later = rows(300, id=pa.array(range(300, 600), pa.int64())).append_column("t", times)
    case.write("t", later, file="part-1.parquet")
    case.body["etl"]["time"] = "t"
    manifest = case.build(session)
    assert {column.name: column.type for column in manifest.columns}["t"] == "timestamp"
    other = later.set_column(later.schema.get_field_index("t"), "t", pa.array(["soon"] * 300))
    case.write("t", other, file="part-2.parquet")
    with pytest.raises(SchemaError, match="files disagree on column 't'"):
        case.build(session)


def orc_case(folder: Path, *tables: pa.Table, **source: Any) -> Case:
    case = make_case(folder)
    (folder / "t").mkdir()
    for place, table in enumerate(tables):
        orc.write_table(table, folder / "t" / f"part-{place}.orc")
    case.body["sources"]["t"] |= {"format": "orc", **source}
    return case


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": None}, r"column 'x', which one of them lacks"),
        ({"n": pa.int64()}, r"column 'n', int32 against int64"),
        ({"n": pa.string()}, r"column 'n', int32 against string"),
    ],
)
def test_orc_files_that_disagree_are_refused_with_both_named(
    session: SparkSession, tmp_path: Path, change: dict[str, pa.DataType | None], said: str
):
    first, later = rows(300).slice(0, 150), rows(300).slice(150)
    for name, kind in change.items():
        place = later.schema.get_field_index(name)
        other = None if kind is None else later[name].cast(kind)
        later = later.remove_column(place)
        later = later if other is None else later.add_column(place, name, other)
    case = orc_case(tmp_path, first, later)
    with pytest.raises(SchemaError, match=rf"{said} .*part-0\.orc.*part-1\.orc"):
        case.build(session)


def test_orc_files_in_another_order_of_columns_are_read_by_name(
    session: SparkSession, tmp_path: Path
):
    first, later = rows(300).slice(0, 150), rows(300).slice(150)
    case = orc_case(tmp_path, first, later.select(["y", "c", "n", "x", "id"]))
    manifest = case.build(session)
    assert manifest.ledger.sources == {"t": 300}
    stored = case.splits(manifest).sort_by("id")
    assert stored["n"].to_pylist() == [float(i % 5) for i in range(300)]


WIDE = pa.array(range(70_000, 70_300), pa.int32())


@pytest.mark.parametrize(
    ("kind", "values", "declared", "said"),
    [
        ("parquet", WIDE, "smallint", "'n' is smallint, but its files hold int32"),
        ("parquet", WIDE.cast(pa.uint32()), "double", "'n' is double, but its files hold uint32"),
        ("parquet", pa.array([200] * 300, pa.uint8()), "tinyint", "files hold uint8"),
        ("orc", WIDE.cast(pa.int64()), "int", "'n' is int, but its files hold int64"),
        ("orc", WIDE.cast(pa.string()), "double", "files hold string, whose values would become"),
        ("parquet", WIDE, "bigint", None),
        ("parquet", WIDE, "double", None),
        ("parquet", WIDE.cast(pa.uint16(), safe=False), "int", None),
        ("orc", WIDE, "bigint", None),
        ("orc", WIDE.cast(pa.decimal128(12, 2)), "decimal(20,4)", None),
    ],
)
def test_a_schema_makes_no_other_values_of_typed_ones(
    session: SparkSession,
    tmp_path: Path,
    kind: str,
    values: pa.Array,
    declared: str,
    said: str | None,
):
    table = rows(300, n=values)
    case = orc_case(tmp_path, table) if kind == "orc" else make_case(tmp_path, table)
    schema = f"id bigint, x double, n {declared}, c string, y boolean"
    case.body["sources"]["t"]["schema"] = schema
    if said is None:
        stored = case.splits(case.build(session)).sort_by("id")
        assert stored["n"].to_pylist() == [float(v) for v in values.to_pylist()]
        return
    with pytest.raises(SchemaError, match=f"{said}.*CAST it in etl.sql"):
        case.build(session)


def test_a_schema_of_orc_names_columns_of_its_files_or_all_of_them_anew(
    session: SparkSession, tmp_path: Path
):
    schema = "id bigint, x double, n int, colour string, y boolean"
    case = orc_case(tmp_path, rows(300), schema=schema)
    with pytest.raises(SchemaError, match=r"names the column 'colour', which its files do not"):
        case.build(session)
    table = rows(300).rename_columns([f"_col{place}" for place in range(5)])
    orc.write_table(table, tmp_path / "t" / "part-0.orc")
    stored = case.splits(case.build(session)).sort_by("id")
    assert stored["colour"].to_pylist() == ["abc"[i % 3] for i in range(300)]


def test_signs_of_patterns_in_names_mean_themselves(session: SparkSession, tmp_path: Path):
    case = make_case(tmp_path)
    schema = "id bigint, x double, n int, c string, y int"
    write_csv(case, labelled(300), name="x1.csv")
    write_csv(case, labelled(300, id=pa.array(range(300, 600), pa.int64())), name="x[1].csv")
    as_csv(case, schema)
    manifest = case.build(session)
    assert manifest.ledger.sources == {"t": 600}
    assert sum(manifest.rows[split] for split in ("train", "valid", "test")) == 600
    shutil.move(tmp_path / "t", tmp_path / "run{1}*")
    case.body["sources"]["t"]["path"] = "run{1}*"
    assert case.build(session).ledger.sources == {"t": 600}


def test_text_that_is_not_utf8_takes_its_rows_aside(session: SparkSession, tmp_path: Path):
    raw = pa.array([b"a", b"b\xff", b"c"] * 100)
    broken = pa.Array.from_buffers(pa.string(), 300, raw.buffers())
    case = make_case(tmp_path, rows(300, c=broken))
    case.body["features"]["derive"] = {"upper": "upper(c)"}
    case.body["etl"]["checks"] = [{"name": "known", "expect": "lower(c) <> 'x'"}]
    manifest = case.build(session)
    assert manifest.ledger.quarantined == 100
    reasons = case.read(manifest, "quarantine")["reasons"].to_pylist()
    assert all({"check:known", "derive:upper"} <= set(found) for found in reasons)


def test_years_that_python_has_not(session: SparkSession, tmp_path: Path):
    micros = np.full(300, 1_357_000_000_000_000)
    micros[7] = 1_500_000_000_000_000_000  # the year 49503
    times = pa.array(micros, pa.timestamp("us", tz="UTC"))
    case = make_case(tmp_path, rows(300).append_column("at", times), time="at")
    assert case.build(session).number == 1


def test_a_check_may_have_a_name_like_a_reason(session: SparkSession, tmp_path: Path):
    case = make_case(
        tmp_path,
        rows(300),
        on_bad_label="fail",
        checks=[{"name": "label_null", "expect": "x < 3", "else": "warn"}],
    )
    manifest = case.build(session)
    assert any("check 'label_null' was broken by" in text for text in manifest.warnings)


def test_rows_of_one_key_do_not_change_what_is_trained_on(session: SparkSession, tmp_path: Path):
    twice = rows(300, id=pa.array([*range(298), 7, 7], pa.int64()))
    case = make_case(tmp_path, twice)
    first = case.build(session)
    (tmp_path / "t" / "part-0.parquet").unlink()
    for number, part in enumerate((twice.slice(150), twice.slice(0, 150))):
        case.write("t", part, file=f"part-{number}.parquet")
    second = case.build(session)
    assert (first.number, second.number) == (1, 2)
    assert first.rows["quarantine"] == second.rows["quarantine"] == 3
    assert first.content_digest == second.content_digest
