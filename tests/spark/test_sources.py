"""What a source may be: Parquet of every usual writer, CSV; and how a bad one is named."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
import lzma
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest

from arclight.errors import ArclightError, DataError, MissingError, SchemaError, SpecError
from spark.columns import check_indexes
from tests.spark.etl_case import Case, make_case, rows
from tests.spark.source_writers import ROWS, WRITERS, expected

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


# what makes each writer's file awkward: if it stops writing these, its test has lost its point
HELD = {
    "pandas": {"timestamp[ns]", "timestamp[ns, tz=Europe/Berlin]", "large_string", "uint64"},
    "polars": {"timestamp[ns]", "timestamp[ns, tz=Europe/Berlin]", "large_string", "uint16"},
    "duckdb": {"timestamp[ns]", "timestamp[us, tz=UTC]", "uint64", "decimal128(12, 2)"},
    "spark": {"timestamp[us]", "timestamp[us, tz=UTC]", "decimal128(20, 0)", "int16"},
    "spark_int96": {"timestamp[us]", "timestamp[ns]"},
    "int96": {"timestamp[ns]", "uint64"},
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_table_is_the_same_whoever_wrote_it(
    session: SparkSession, tmp_path: Path, writer: str
) -> None:
    case = make_case(tmp_path, key=["id", "at", "zoned", "day"])
    (tmp_path / "t").mkdir()
    WRITERS[writer](session, tmp_path / "t")
    file = next((tmp_path / "t").glob("*.parquet"))
    assert {str(kind) for kind in pq.read_schema(file).types} >= HELD[writer]
    manifest = case.build(session)
    assert manifest.ledger.sources == {"t": ROWS}
    assert case.splits(manifest).sort_by("id").to_pylist() == expected()


def test_a_nested_column_is_refused_by_name_unless_dropped(session: SparkSession, tmp_path: Path):
    table = rows(300).append_column("parts", pa.array([[1, 2]] * 300))
    case = make_case(tmp_path, table)
    with pytest.raises(SchemaError, match=r"'parts' is array<bigint>"):
        case.build(session)
    case.body["etl"]["drop"] = ["parts"]
    assert case.build(session).number == 1


def test_a_pandas_index_is_no_feature(session: SparkSession, tmp_path: Path):
    table = rows(300).append_column("__index_level_0__", pa.array(range(300)))
    case = make_case(tmp_path, table)
    with pytest.raises(SchemaError, match="'__index_level_0__' is the index of a pandas frame"):
        case.build(session)
    case.body["etl"]["drop"] = ["__index_level_0__"]
    assert "__index_level_0__" not in case.splits(case.build(session)).column_names


@pytest.mark.parametrize("name", ["_c0", "Unnamed: 0", "Unnamed: 0.1"])
def test_an_index_that_a_csv_has_is_none(name: str):
    with pytest.raises(SchemaError, match=r"is the index of a pandas frame.*index=False"):
        check_indexes([name, "x", "y"], {"x"})
    check_indexes([name, "x", "y"], {name})
    check_indexes(["_c0", "_c1", "_c2"], {"_c1"})  # of a CSV without a header
    check_indexes(["Unnamed: 3", "c0"], ())


def test_decimals_unsigned_and_dictionaries_as_engines_write_them(
    session: SparkSession, tmp_path: Path
):
    table = rows(
        300,
        x=pa.array([Decimal(i) / 4 for i in range(300)], pa.decimal128(12, 2)),
        n=pa.array([i % 5 for i in range(300)], pa.uint16()),
        c=pa.array(["abc"[i % 3] for i in range(300)]).dictionary_encode(),
    )
    table = table.append_column("big", pa.array([2**63 + i for i in range(300)], pa.uint64()))
    table = table.append_column("wide", pa.array(["w"] * 300, pa.large_string()))
    case = make_case(tmp_path, table)
    stored = case.splits(case.build(session)).sort_by("id")
    assert stored["x"].to_pylist() == [i / 4 for i in range(300)]
    assert stored["c"].to_pylist() == ["abc"[i % 3] for i in range(300)]
    assert stored["big"].to_pylist()[0] == float(2**63)


def test_csv_without_a_header(session: SparkSession, tmp_path: Path):
    lines = [f"{i},{i % 17}.5,{'abc'[i % 3]},{i % 2}" for i in range(400)]
    case = make_case(tmp_path)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.csv").write_text("\n".join(lines) + "\n")
    case.body["sources"]["t"] = {
        "path": "t", "format": "csv", "schema": "id bigint, x double, c string, y int",
    }  # fmt: skip
    manifest = case.build(session)
    assert manifest.ledger.sources == {"t": 400}
    assert sum(manifest.rows[p] for p in ("train", "valid", "test")) == 400


@pytest.mark.parametrize(
    ("kind", "lines", "record"),
    [
        ("csv", "1,2.5,a,0\nnot a number,1.0,b\x1b[31m,1\n", r"null,1\.0,b\\x1b\[31m,1"),
        ("csv", "1,2.5,a,0\n7,\n", "7,', which has more or fewer fields than there are col"),
        ("csv", "1,2.5,a,0\n0,0.0,a,0,9\n", "0,0.0,a,0,9', which has more or fewer fields"),
        ("csv", "1;2.5;a;0\n", "1;2.5;a;0', which has .* columns; .* options.sep is the sign"),
        ("csv", "x,1.0," + "b" * 1000 + ",1\n", "null,1.0,b{60,80}…"),
        ("json", '{"id": 1, "x": "no", "c": "a", "y": 1}\n', "null|no"),
    ],
)
def test_a_line_that_is_no_row_stops_the_run_and_is_shown(
    session: SparkSession, tmp_path: Path, kind: str, lines: str, record: str
) -> None:
    case = make_case(tmp_path)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / f"a.{kind}").write_text(lines)
    case.body["sources"]["t"] = {
        "path": "t", "format": kind, "schema": "id bigint, x double, c string, y int",
    }  # fmt: skip
    with pytest.raises(DataError, match=rf"a\.{kind}.* bad record reads '.*{record}") as caught:
        case.build(session)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 800


DDL = "id bigint, x double, c string, y int"


def lines_of(header: str, row: str = "{0},{0}.5,a,{1}") -> str:
    return "\n".join([header, *(row.format(i, i % 2) for i in range(200)), ""])


def files_case(folder: Path, files: dict[str, str | bytes], **source: Any) -> Case:
    case = make_case(folder)
    (folder / "t").mkdir()
    for name, text in files.items():
        (folder / "t" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    case.body["sources"]["t"] = {"path": "t", **source}
    return case


@pytest.mark.parametrize(
    ("files", "ddl", "sentence"),
    [
        ({"a": "x,id,c,y"}, DDL, r"a\.csv' has 'x' in its header where the schema has 'id' \(h"),
        ({"a": "id,x,c,y", "b": "id,c,x,y"}, DDL, r"b\.csv' has 'c' in its .* schema has 'x'"),
        ({"a": "id,x,c,y", "b": "id,c,x,y"}, None, r"b\.csv' has 'c' in its .* schema has 'x'"),
        ({"a": "id,z,c,y"}, DDL, r"a\.csv' has 'z' in its header where the schema has 'x'"),
        ({"a": "id,x,c"}, DDL, r"a\.csv' has 3 columns in its header, but the schema has 4; "),
        (
            {"a": "id;x;c;y"},
            DDL,
            r"has 1 columns in its header, but .* has 4 \(options\.sep is the",
        ),
    ],
)
def test_a_csv_header_that_is_not_the_schema_is_refused(
    session: SparkSession, tmp_path: Path, files: dict[str, str], ddl: str | None, sentence: str
) -> None:
    texts = {f"{name}.csv": lines_of(header) for name, header in files.items()}
    case = files_case(tmp_path, texts, format="csv", options={"header": True}, schema=ddl)
    case.body["etl"]["sql"] = "SELECT id, x, y = 1 AS y FROM t"
    with pytest.raises(SchemaError, match=f"{sentence}.*rename them in etl.sql"):
        case.build(session)


@pytest.mark.parametrize(
    ("files", "ddl"), [({"a": "ID,x,c,Y", "b": "id,x,c,y"}, DDL), ({"a": "id,x,,y"}, None)]
)
def test_a_csv_header_that_is_the_schema_is_taken(
    session: SparkSession, tmp_path: Path, files: dict[str, str], ddl: str | None
) -> None:
    texts = {
        f"{name}.csv": lines_of(header, f"{place}{{0}},{{0}}.5,a,{{1}}")
        for place, (name, header) in enumerate(files.items(), 1)
    }
    case = files_case(tmp_path, texts, format="csv", options={"header": True}, schema=ddl)
    case.body["etl"]["sql"] = "SELECT id, x, y = 1 AS y FROM t"
    manifest = case.build(session)
    assert manifest.ledger.sources == {"t": 200 * len(files)}


ARRAY = '[\n {"id": 1},\n {"id": 2}\n]\n'


@pytest.mark.parametrize(
    ("files", "source", "kind", "sentence"),
    [
        ({"a": ARRAY}, {"format": "json"}, DataError,
         r"/a'\) holds a line that is no JSON object; mend it, or set options: \{multiLine: true"),
        ({"a": '{"id": 1}\n', "b": '{"id": 1}\n{"id":\n'}, {"format": "json"}, DataError,
         r"/b'\) holds a line that is no JSON object"),
        ({"a": b"ORCgarbagegarbage"}, {"format": "orc"}, DataError,
         r"/a' must be a whole ORC file, .*; write the file again"),
        ({"a": b"zz"}, {"format": "orc"}, DataError, r"/a' must be a whole ORC file"),
        ({"a": ""}, {"format": "delta"}, MissingError,
         r"Spark has no reader for format delta; put its jar on the cluster \(spark\.jars"),
        ({"a": ""}, {"format": "iceberg"}, MissingError, "no reader for format iceberg"),
        ({"a": ""}, {"format": "csv", "options": {"encoding": "klingon"}}, SpecError,
         r"spec\.yaml:1: sources\.t\.options: encoding must be one that Java knows.*'klingon'\.$"),
        ({"a": "1"}, {"format": "csv", "schema": "id int", "options": {"encoding": "latin-1"}},
         SpecError, r"sources\.t\.options: encoding must .* Did you mean 'iso8859-1'\?"),
        ({"a": "{}"}, {"format": "json", "schema": "id int", "options": {"encoding": "no way"}},
         SpecError, r"sources\.t\.options: encoding must .*got 'no way'\.$"),
        ({"a": ""}, {"format": "csv", "schema": "x string COLLATE KLINGON"}, SpecError,
         r"spec\.yaml:1: sources\.t\.schema: "),
        ({}, {"path": None, "format": "jdbc", "options": {"url": "jdbc:x://h", "dbtable": "t"}},
         MissingError, r"Spark has no JDBC driver of its url; put its jar"),
        ({}, {"path": None, "format": "jdbc",
              "options": {"url": "jdbc:x://h", "dbtable": "t", "driver": "org.x.Driver"}},
         MissingError, r"Spark has no JDBC driver 'org\.x\.Driver'; put its jar"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_opened_is_one_sentence(
    session: SparkSession,
    tmp_path: Path,
    files: dict[str, str | bytes],
    source: dict[str, Any],
    kind: type[ArclightError],
    sentence: str,
) -> None:
    case = files_case(tmp_path, files, **source)
    if source.get("path", "t") is None:
        del case.body["sources"]["t"]["path"]
    with pytest.raises(kind, match=sentence) as caught:
        case.build(session)
    assert type(caught.value) is kind
    assert caught.value.message.isprintable()


def objects(first: int, end: int) -> list[str]:
    texts = [
        {"id": i, "c": "a}{b", "d": {"e": [{"k": 1}, {"k": 2}]}, "y": i % 2}
        for i in range(first, end)
    ]
    return [json.dumps(one) for one in texts]


MORE_IN_A_LINE = r"a\.json' must have one JSON object or array in a line, .* begins '\{\"id\": 7,"
MORE_IN_A_FILE = r"a\.json' must be one JSON array or object, .* take multiLine out if"


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("\n".join([*objects(0, 7), "".join(objects(7, 9))]), {}, MORE_IN_A_LINE),
        ("\n".join([*objects(0, 7), ", ".join(objects(7, 9)) + ","]), {}, MORE_IN_A_LINE),
        ("\n".join([*objects(0, 7), objects(7, 8)[0] + " torn"]), {}, MORE_IN_A_LINE),
        ("\n".join(objects(0, 300)), {"multiLine": True}, MORE_IN_A_FILE),
        (f"[{objects(0, 1)[0]}]\n[{objects(1, 2)[0]}]", {"multiLine": True}, MORE_IN_A_FILE),
        (",\n".join(["", *objects(0, 300)]), {}, r"holds a line that is no JSON object"),
        (",\n".join([*objects(0, 300), ""]), {}, None),
        ("\ufeff" + "\r\n".join([*objects(0, 300), "", " "]), {}, None),
        ("\n".join(objects(0, 300)).replace('"', "'"), {}, None),
        (" [" + ",\n".join(objects(0, 300)) + "]\n", {"multiLine": True}, None),
    ],
)
def test_json_is_read_whole_or_refused(
    session: SparkSession,
    tmp_path: Path,
    text: str,
    options: dict[str, Any],
    sentence: str | None,
):
    case = files_case(tmp_path, {"a.json": text}, format="json", options=options)
    case.body["etl"]["drop"] = ["d"]
    if sentence is None:
        assert case.build(session).ledger.sources == {"t": 300}
        return
    with pytest.raises(DataError, match=sentence):
        case.build(session)


def test_packed_text_that_is_cut_is_one_sentence(session: SparkSession, tmp_path: Path):
    packed = gzip.compress(lines_of("id,x,c,y").encode())
    source = {"format": "csv", "options": {"header": True}, "schema": DDL}
    case = files_case(tmp_path, {"a.csv.gz": packed[: len(packed) // 2]}, **source)
    with pytest.raises(DataError, match=r"source 't' .*a\.csv\.gz' cannot be read"):
        case.build(session)


SPARK_TYPES = {
    pa.int64(): "bigint",
    pa.int32(): "int",
    pa.float64(): "double",
    pa.string(): "string",
    pa.bool_(): "boolean",
}
QUOTED = ['say "hi" now', 'a "b", c', '"', '""', '"x"', "back\\slash", "it's", "", 'end"', "5, 6"]


@pytest.mark.parametrize("writer", ["pandas", "csv", "arrow", "gz"])
def test_quoted_text_is_read_as_it_was_written(session: SparkSession, tmp_path: Path, writer: str):
    texts = [QUOTED[i % len(QUOTED)] for i in range(300)]
    table = rows(300, c=pa.array(texts))
    (tmp_path / "t").mkdir()
    path = tmp_path / "t" / ("a.csv.gz" if writer == "gz" else "a.csv")
    if writer == "csv":
        with path.open("w", newline="") as stream:
            lines = csv.writer(stream, lineterminator="\n")
            lines.writerow(table.column_names)
            lines.writerows(zip(*table.to_pydict().values(), strict=True))
    elif writer == "arrow":
        arrow_csv.write_csv(table, path)
    else:
        table.to_pandas().to_csv(path, index=False)
    case = make_case(tmp_path)
    case.body["sources"]["t"] = {
        "path": "t",
        "format": "csv",
        "options": {"header": True},
        "schema": ", ".join(f"{f.name} {SPARK_TYPES[f.type]}" for f in table.schema),
    }
    stored = case.splits(case.build(session)).sort_by("id")
    assert [text or "" for text in stored["c"].to_pylist()] == texts


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (r'"say \"hi\" now"', {}, r"options\.escape"),
        ('"say ""hi"" now"', {"escape": "\\"}, r"options\.escape"),
        ('"over\ntwo lines"', {}, r"multiLine"),
    ],
)
def test_a_quoted_text_that_is_written_otherwise_stops_the_run(
    session: SparkSession, tmp_path: Path, text: str, options: dict[str, str], said: str
):
    lines = [f"{i},{i % 17}.5,{text if i == 150 else 'a'},{i % 2}" for i in range(400)]
    source = {"format": "csv", "schema": DDL, "options": options}
    case = files_case(tmp_path, {"a.csv": "\n".join([*lines, ""])}, **source)
    with pytest.raises(DataError, match=rf"(bad record|its line) reads .*{said}"):
        case.build(session)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (r'{0},"5\""', {}),
        ('{0},"a text\n{0},goes on"', {}),
        ('{0},"it ends nowhere', {}),
        (r'{0},"ends with a backslash\"', {"escape": "\\"}),
    ],
)
def test_a_last_text_that_does_not_end_on_its_line_stops_the_run(
    session: SparkSession, tmp_path: Path, line: str, options: dict[str, str]
):
    lines = [line.format(i) if i == 150 else f'{i},"a ""b"""' for i in range(400)]
    lines = [one.replace('""b""', "b") if options else one for one in lines]
    source = {"format": "csv", "schema": "id bigint, c string", "options": options}
    case = files_case(tmp_path, {"a.csv": "\n".join([*lines, ""])}, **source)
    case.body["etl"]["sql"] = "SELECT id, c, id % 2 = 0 AS y FROM t"
    with pytest.raises(DataError, match=r"does not end on its line: its line reads '150,.*escape"):
        case.build(session)


@pytest.mark.parametrize(
    ("text", "options", "value"),
    [
        (r'"say \"hi\" now"', {"escape": "\\"}, 'say "hi" now'),
        ("'it''s'", {"quote": "'"}, "it's"),
        ('"over\ntwo lines"', {"multiLine": True}, "over\ntwo lines"),
        ('5" pipe', {}, '5" pipe'),
    ],
)
def test_a_text_is_read_as_the_options_say(
    session: SparkSession, tmp_path: Path, text: str, options: dict[str, Any], value: str
):
    lines = [f"{i},{i % 17}.5,{text},{i % 2}" for i in range(400)]
    source = {"format": "csv", "schema": DDL, "options": options}
    case = files_case(tmp_path, {"a.csv": "\n".join([*lines, ""])}, **source)
    assert set(case.splits(case.build(session))["c"].to_pylist()) == {value}


@pytest.mark.parametrize("ending", ["xz", "zip", "tar.gz"])
def test_text_that_is_packed_so_that_spark_reads_it_as_it_is_is_refused(
    session: SparkSession, tmp_path: Path, ending: str
):
    source = {"format": "csv", "schema": DDL}
    case = files_case(tmp_path, {f"a.csv.{ending}": lzma.compress(b"1,2.5,a,0\n")}, **source)
    with pytest.raises(
        DataError, match=rf"a\.csv\.{ending}' .* packed as \.(xz|zip|tar), .*unpack it"
    ):
        case.build(session)


def test_times_of_day_are_not_completed_with_the_day_of_the_run(
    session: SparkSession, tmp_path: Path
) -> None:
    """Keys and splits would be others every day."""
    lines = (f"{i},2024-01-0{1 + i % 9} 10:00:00,1{i % 10}:24:00,{i % 2}" for i in range(300))
    files = {"a.csv": "\n".join(["id,at,o.clock,label", *lines])}
    options = {"header": True, "inferSchema": True}
    case = files_case(tmp_path, files, format="csv", options=options)
    with pytest.raises(SpecError, match=r"'1\d:24:00' in column 'o\.clock' .* day of the run"):
        case.build(session)


def test_e9_times_are_utc_however_they_were_written(session: SparkSession, tmp_path: Path):
    base = [dt.datetime(2024, 3, 31, 0, 30) + dt.timedelta(minutes=30 * i) for i in range(400)]
    utc = pa.array(base, pa.timestamp("us"))
    kinds = {
        "naive_us": utc,
        "naive_ns": utc.cast(pa.timestamp("ns")),
        "naive_ms": utc.cast(pa.timestamp("ms")),
        "aware_us": utc.cast(pa.timestamp("us", tz="UTC")),
        "berlin_ns": utc.cast(pa.timestamp("ns", tz="Europe/Berlin")),
    }
    digests = set()
    for name, at in kinds.items():
        folder = tmp_path / name
        folder.mkdir()
        case = make_case(folder, rows(400, at=at), key=["id", "at"])
        case.body["features"]["derive"] = {"hour": "hour(at)"}
        digests.add(case.build(session).content_digest)
    assert len(digests) == 1
