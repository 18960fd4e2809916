from __future__ import annotations

import re

import pytest

from arclight.ddl import check_ddl, parse_ddl


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("x double, Y INT", [("x", "double"), ("Y", "int")]),
        ("x: double NOT NULL COMMENT 'a, b', 2B long", [("x", "double"), ("2B", "long")]),
        ("`mean radius` decimal(10, 2), `a``b` date", [("mean radius", "decimal"),
                                                       ("a`b", "date")]),
        ("s struct<a: int, b: array<string>>, t timestamp", [("s", "struct"), ("t", "timestamp")]),
        ("time string, date date\n", [("time", "string"), ("date", "date")]),
        ("t timestamp without time zone, i interval day to second, c string collate UTF8_LCASE",
         [("t", "timestamp"), ("i", "interval"), ("c", "string")]),
    ],
)  # fmt: skip
def test_columns_and_their_types_are_read(text: str, columns: list[tuple[str, str]]) -> None:
    assert list(parse_ddl(text) or ()) == columns


def test_a_struct_is_left_to_spark() -> None:
    assert parse_ddl("struct<a: int>") is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x dbl", "'dbl' in 'x dbl' is no type of Spark. Did you mean 'double'?"),
        ("x, y int", "'x' must be a column's name and its type, as in x double."),
        ("x int,", "'' must be a column's name and its type"),
        ("x double y int", "'x double y int' must be one column, but 'y' follows its type; put a"),
        ("mean radius double", "A name that holds a blank stands in backticks: `mean radius`."),
        ("x int, X int", "the column 'x' stands twice; name it once."),
    ],
)
def test_what_spark_would_not_take_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        check_ddl(text)
