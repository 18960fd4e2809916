from __future__ import annotations

import pytest

from arclight.errors import SpecError
from arclight.sql_guard import LONGEST, check_select

SOURCES = ("flights", "weather")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM flights",
        "select f.*, w.wind from Flights f left join weather w using (origin, time_hour);",
        "WITH a AS (SELECT * FROM flights), b AS (SELECT * FROM a) SELECT * FROM b",
        "WITH flights AS (SELECT * FROM flights) SELECT * FROM flights",
        "SELECT a FROM flights UNION ALL SELECT a FROM weather",
        "(SELECT a FROM flights) EXCEPT (SELECT a FROM weather)",
        "SELECT * FROM (SELECT a FROM flights) x WHERE a IN (SELECT a FROM weather)",
        "SELECT a, row_number() OVER (PARTITION BY b ORDER BY c) AS n FROM flights",
        "SELECT b, sum(a) FILTER (WHERE c > 1) FROM flights GROUP BY b HAVING count(*) > 1",
        "SELECT /*+ BROADCAST(w) */ f.a FROM flights f JOIN weather w ON f.a = w.a",
        "SELECT e FROM flights LATERAL VIEW explode(array(1, 2)) t AS e",
        "SELECT explode(split(a, ',')) FROM flights",
        "SELECT transform(a, x -> x + 1) FROM flights",
        "SELECT a AS now, f.current_date, `current_user` FROM flights f",
        "SELECT 'ADD JAR rand()' AS text -- rand is only named\nFROM flights",
        "SELECT * FROM VALUES (1, 2) AS v(a, b)",
        "FROM flights SELECT a",
        "WITH RECURSIVE a AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM a) SELECT * FROM a",
        "SELECT unix_timestamp(t), date '2020-01-01' FROM flights",
        "SELECT timestamp '2020-01-01 12:30', timestamp 'epoch', time '12:30' FROM flights",
        "SELECT * FROM flights WHERE due = 'today' AND at = '12:30'",
    ],
)
def test_one_select_over_the_sources_is_accepted(sql: str) -> None:
    check_select(sql, SOURCES)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT java_method('java.lang.System', 'exit') FROM flights", "java_method, because"),
        ("SELECT reflect('a', 'b') FROM flights", "code that is not SQL"),
        ("SELECT `reflect`('a', 'b') FROM flights", "code that is not SQL"),
        ("SELECT system.builtin.try_reflect('a', 'b') FROM flights", "code that is not SQL"),
        ("SELECT call_function('reflect', 'a') FROM flights", "code that is not SQL"),
        ("SELECT 1 /* reflect ('a') */ FROM flights", "code that is not SQL"),
        ("SELECT TRANSFORM(a) USING 'cat' AS (b) FROM flights", "TRANSFORM"),
        ("FROM flights MAP a USING 'cat' AS b", "cannot be parsed|must be"),
        ("SELECT * FROM parquet.`/etc/x`", r"plain names, got 'parquet./etc/x'"),
        ("SELECT * FROM `parquet`.`/etc/x`", "plain names"),
        ("SELECT * FROM `/etc/x`", "only its sources"),
        ("SELECT a FROM flights WHERE a IN (SELECT b FROM csv.`s3://x`)", "plain names"),
        ("SELECT * FROM default.flights", "plain names"),
        ("ADD JAR '/tmp/x.jar'", "must be a SELECT, got 'ADD JAR'"),
        ("CREATE TABLE t AS SELECT 1", "must be a SELECT, got 'CREATE'"),
        ("CREATE VIEW v USING parquet OPTIONS (path '/etc')", "must be a SELECT"),
        ("SET spark.sql.runSQLOnFiles=true", "must be a SELECT, got 'SET'"),
        ("INSERT INTO t SELECT * FROM flights", "must be a SELECT"),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", "must"),
        ("DROP TABLE flights", "must be a SELECT"),
        ("DESCRIBE flights", "must be a SELECT"),
        ("EXPLAIN SELECT * FROM flights", "must be a SELECT"),
        ("VALUES (1)", "must be a SELECT"),
        ("SELECT 1; SELECT 2", "exactly one statement"),
        ("SELECT 1; DROP TABLE flights", "exactly one statement"),
        (";", "must be a SELECT"),
        ("", "must not be empty"),
        ("  -- nothing", "must not be empty"),
        ("SELECT * FROM flight", "Did you mean 'flights'"),
        ("SELECT (WITH z AS (SELECT 1) SELECT * FROM z), * FROM z", "only its sources"),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", "only its sources"),
        ("WITH RECURSIVE a AS (SELECT 1 FROM b), b AS (SELECT 1) SELECT 1 FROM a", "only its"),
        ("SELECT * FROM range(10)", "table function 'range'"),
        ("SELECT * FROM read_files('/etc')", "not one of the sources"),
        ("SELECT * FROM identifier('x')", "computed text"),
        ("SELECT rand() FROM flights", "same command must always give the same rows"),
        ("SELECT rand(7) FROM flights", "same rows"),
        ("SELECT uuid() FROM flights", "same rows"),
        ("SELECT now() FROM flights", "same rows"),
        ("SELECT current_date FROM flights", "same rows"),
        ("SELECT CURRENT_TIMESTAMP() FROM flights", "same rows"),
        ("SELECT unix_timestamp() FROM flights", "same rows"),
        ("SELECT date 'today' FROM flights", "'today' as a date or a time"),
        ("SELECT CAST(' Now ' AS timestamp) FROM flights", "same rows"),
        ("SELECT CAST('today CET' AS date) FROM flights", "same rows"),
        ("SELECT timestamp '12:30' FROM flights", "'12:30' as a date or a time.* which day"),
        ("SELECT 'T1:2:3.4 Europe/Berlin'::timestamp FROM flights", "same rows"),
        ("SELECT shuffle(array(1, 2)) FROM flights", "same rows"),
        ("SELECT monotonically_increasing_id() FROM flights", "same rows"),
        ("SELECT spark_partition_id(), input_file_name() FROM flights", "same rows"),
        ("SELECT aes_encrypt(a, 'k'), version() FROM flights", "same rows"),
        ("SELECT version() FROM flights", "same rows"),
        ("SELECT * FROM flights TABLESAMPLE (10 PERCENT)", "same rows"),
        ("SELECT a INTO b FROM flights", "writes a table"),
        ("SELECT :a FROM flights", "parameter"),
        ("SELECT * FROM flights VERSION AS OF 1", "table version"),
        ("SELECT r'a\\' FROM flights", "raw string"),
        ("SELECT * FRM flights WHERE (", "cannot be parsed"),
        ("SELECT * FROM flights |> LIMIT 3", r"cannot be parsed \(it is no SQL that the parser"),
        ("SELECT * FROM flights |> LIMIT a", "cannot be parsed"),
        ("SELECT map(year FROM flights", "cannot be parsed"),
        ("SELECT 'a FROM flights", "cannot be read"),
    ],
)
def test_everything_else_is_refused_with_the_reason(sql: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        check_select(sql, SOURCES)


def test_a_text_is_bounded_before_it_is_parsed() -> None:
    with pytest.raises(SpecError, match="at most 100,000 characters"):
        check_select("SELECT 1" + " " * LONGEST, SOURCES)
    with pytest.raises(SpecError, match="nested at most 50 deep, got 10,000"):
        check_select("SELECT " + "(" * 10_000 + "1" + ")" * 10_000, SOURCES)
    check_select("SELECT " + "(" * 49 + "1" + ")" * 49 + " FROM flights", SOURCES)
    check_select("SELECT " + " + ".join(["a"] * 5_000) + " FROM flights", SOURCES)


def test_calls_that_the_parser_reads_twice_are_bounded() -> None:
    """Each of them doubles its time, also where other brackets stand between."""
    check_select(f"SELECT {'date(' * 8} a {')' * 8}, int(string(a)) FROM flights", SOURCES)
    for name in ("date(", "string (", "decimal(1 + ", "date(CASE WHEN a THEN ((1)) END, "):
        for deep in (9, 24):
            sql = f"SELECT (1), {name * deep} a {')' * deep} FROM flights"
            with pytest.raises(SpecError, match=f"inside one another, got {deep}; write CAST"):
                check_select(sql, SOURCES)


def test_a_message_hides_control_characters() -> None:
    with pytest.raises(SpecError) as caught:
        check_select("SELECT * FROM `x\x1b[31m`", SOURCES)
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT CAST(mean radius AS STRING) AS x FROM t\n",
         "(AS and a type were expected inside CAST at 'radius'; if 'mean radius' is one name, "
         "write it in backticks: `mean radius`)"),
        ("SELECT\n a,\n b c d\nFROM t", "(an unexpected word or sign at 'd' in line 3; if 'c d'"),
        ("SELECT a, FROM", "(a table's name was expected at 'FROM')"),
        ("SELECT CASE WHEN FROM t", "(a part is missing at 'FROM')"),
        ("SELECT a\nFROM t WHERE 'x", "'SELECT a FROM t WHERE 'x' cannot be read (' is not"),
    ],
)  # fmt: skip
def test_what_cannot_be_parsed_is_told_in_plain_words(sql: str, reason: str) -> None:
    with pytest.raises(SpecError) as error:
        check_select(sql, ["t"])
    assert reason in error.value.message
    assert "\\n" not in error.value.message
