"""What `check` foresees of a joined table: never more than Spark would say too."""

from __future__ import annotations

import pyarrow as pa
import pytest

from arclight.errors import SchemaError, SpecError
from spark.foreseen import Seen, joined_columns, raw_columns

INT, TEXT, TIME = pa.int64(), pa.string(), pa.timestamp("us")
SOURCES = {
    "a": (Seen("k", INT), Seen("price", pa.float64()), Seen("at", TIME)),
    "b": (Seen("k", INT), Seen("name", TEXT)),
}


def told(sql: str) -> dict[str, pa.DataType | None] | None:
    found = joined_columns(sql, SOURCES)
    return None if found is None else dict(found)


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT * FROM a", {"k": INT, "price": pa.float64(), "at": TIME}),
        ("SELECT * EXCEPT (at) FROM A;", {"k": INT, "price": pa.float64()}),
        ("SELECT x.k, price p FROM a x", {"k": INT, "p": pa.float64()}),
        ("SELECT k, price > 1 AS late FROM a", {"k": INT, "late": None}),
        ("SELECT k, name FROM a JOIN b USING (k)", {"k": INT, "name": TEXT}),
        ("SELECT k, name FROM a FULL JOIN b USING (k)", {"k": None, "name": TEXT}),
        ("SELECT a.*, name FROM a LEFT JOIN b ON a.k = b.k",
         {"k": INT, "price": pa.float64(), "at": TIME, "name": TEXT}),
        ("SELECT * FROM b LEFT SEMI JOIN a ON a.k = b.k", {"k": INT, "name": TEXT}),
        ("WITH c AS (SELECT k AS id FROM a) SELECT * FROM c", {"id": INT}),
        ("SELECT * FROM (SELECT name FROM b) x", {"name": TEXT}),
        ("SELECT k FROM a UNION ALL SELECT k FROM b", {"k": INT}),
        ("SELECT k FROM a UNION ALL SELECT name FROM b", {"k": None}),
    ],
)  # fmt: skip
def test_columns_are_told(sql: str, columns: dict[str, pa.DataType | None]) -> None:
    assert told(sql) == columns


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT K FROM a",
        "SELECT k, price + 1 FROM a",
        "SELECT * FROM a NATURAL JOIN b",
        "SELECT a.*, name FROM a JOIN b USING (k)",
        "SELECT k, c FROM a LATERAL VIEW explode(split(price, ',')) t AS c",
        "SELECT col FROM (SELECT explode(array(1, 2)) FROM a)",
        "SELECT c0 FROM (SELECT json_tuple(name, 'x') FROM b)",
        "SELECT x FROM b AS t(w, x)",
        "SELECT window.start FROM (SELECT window(at, '1 day') FROM a)",
        "SELECT `max(k)` FROM (SELECT max(k) FROM a)",
        "SELECT abc FROM (SELECT 'abc' FROM a)",
        "SELECT aggregate(array(1), 0, (s, i) -> s + i) AS n FROM a",
        "SELECT s.x AS y FROM (SELECT named_struct('x', 1) AS s FROM a)",
    ],
)
def test_nothing_is_said_in_doubt(sql: str) -> None:
    found = told(sql)
    assert found is None or set(found.values()) == {None}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT timestampdiff(MONTH, at, at) AS n, extract(DAYOFWEEK FROM at) AS d FROM a",
        "SELECT price * 2 AS p, p + 1 AS q FROM a",
        "SELECT k % 2 AS odd, count(*) AS n FROM a GROUP BY odd HAVING n > 1 ORDER BY n, odd",
        "SELECT max(k) OVER w AS m FROM a WINDOW w AS (PARTITION BY price ORDER BY at)",
        "SELECT (SELECT max(b.k) FROM b WHERE b.k = a.k) AS m FROM a",
        "WITH a2 AS (SELECT k AS z FROM a) SELECT a2.z, b.name FROM a2 JOIN b ON a2.z = b.k",
        "SELECT x.z FROM (SELECT k AS z FROM a) x",
        "SELECT x.z FROM a AS x(z, y, t)",
        "SELECT a.x FROM (SELECT named_struct('x', 1) AS a FROM a)",
        "WITH a AS (SELECT name AS n FROM b) SELECT a.n FROM a",
    ],
)
def test_what_spark_takes_is_not_refused(sql: str) -> None:
    joined_columns(sql, SOURCES)


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("SELECT k, pric FROM a", "etl.sql: no source has a column 'pric'. Did you mean 'price'?"),
        ("SELECT k FROM a WHERE pric > 1", "no source has a column 'pric'"),
        ("SELECT x.nam AS n FROM a JOIN b x ON a.k = x.k",
         "etl.sql: 'x' has no column 'nam'. Did you mean 'name'? It has: k, name."),
        ("SELECT a.name FROM a JOIN b USING (k)", "'a' has no column 'name'"),
    ],
)  # fmt: skip
def test_a_column_that_no_source_has_is_refused(sql: str, sentence: str) -> None:
    with pytest.raises(SpecError) as error:
        told(sql)
    assert sentence in error.value.message


def test_a_source_that_is_not_known_makes_names_unsure() -> None:
    sources = {**SOURCES, "b": None}
    assert joined_columns("SELECT k, pric FROM a, b", sources) is None
    assert joined_columns("SELECT b.pric FROM a JOIN b ON a.k = b.k", sources) is None


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (pa.uint64(), pa.float64()),
        (pa.decimal128(9, 2), pa.float64()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.timestamp("ns"), pa.timestamp("us", tz="UTC")),
        (pa.time64("us"), None),
        (pa.uint32(), pa.int64()),
    ],
)
def test_raw_types_are_those_of_the_join(kind: pa.DataType, raw: pa.DataType | None) -> None:
    assert raw_columns((Seen("x", kind),), key=(), drop=()) == [("x", raw)]


def test_a_decimal_key_is_text_and_a_nested_column_must_be_dropped() -> None:
    nested = Seen("tags", pa.list_(pa.int64()))
    columns = (Seen("k", pa.decimal128(9, 0)), nested)
    assert raw_columns(columns, key=("k",), drop=("tags",)) == [("k", pa.string())]
    with pytest.raises(SchemaError, match="'tags' is list"):
        raw_columns(columns, key=("k",), drop=())
