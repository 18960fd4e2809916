"""What a CSV header says for sure, and that Spark sees the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arclight.spec import Source
from spark.csv_header import header_names

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

PLAIN = [
    ("a,b c,d.e\n1,2,3\n", {}, ("a", "b c", "d.e")),
    ("a;b\r\n1;2\r\n", {"sep": ";"}, ("a", "b")),
    ("\ufeffa,b\n1,2\n", {}, ("a", "b")),
    (" a , b\n1,2\n", {}, (" a ", " b")),
    (" a , b\n1,2\n", {"ignoreLeadingWhiteSpace": True, "ignoreTrailingWhiteSpace": True},
     ("a", "b")),
    ("größe,b\n1,2\n", {"encoding": "iso-8859-1"}, ("größe", "b")),
    ("a\tb\n1\t2\n", {"delimiter": "\t"}, ("a", "b")),
    ("a\tb\n1\t2\n", {"sep": r"\t"}, ("a", "b")),
    ("a||b\n1||2\n", {"sep": "||"}, ("a", "b")),
]  # fmt: skip


def source(options: dict[str, object]) -> Source:
    return Source(path="t", format="csv", options={"header": True, **options})


def written(folder: Path, text: str, options: dict[str, object], name: str = "a.csv") -> Path:
    (folder / name).write_bytes(text.encode(str(options.get("encoding", "utf-8"))))
    return folder / name


@pytest.mark.parametrize(("text", "options", "names"), PLAIN)
def test_a_plain_header_names_the_columns(tmp_path, text, options, names):
    assert header_names(source(options), [written(tmp_path, text, options)]) == names


@pytest.mark.spark
@pytest.mark.parametrize(("text", "options", "names"), PLAIN)
def test_spark_sees_the_same_names(session: SparkSession, tmp_path, text, options, names):
    file = written(tmp_path, text, options)
    read = session.read.format("csv").options(
        header="true", **{k: str(v) for k, v in options.items()}
    )
    assert tuple(read.load(str(file)).columns) == names


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('"a",b\n1,2\n', {}),
        ("a,,b\n1,2,3\n", {}),
        ("a,A\n1,2\n", {}),
        ("\na,b\n1,2\n", {}),
        ("", {}),
        ("# x\na,b\n", {"comment": "#"}),
        ("a,b\n", {"header": False}),
        ("a,b\n", {"encoding": "no such"}),
        ("a,b\n", {"sep": r"\u0001"}),
    ],
)
def test_what_is_in_doubt_is_left_to_spark(tmp_path, text, options):
    file = tmp_path / "a.csv"
    file.write_text(text)
    assert header_names(source(options), [file]) is None


def test_files_that_differ_or_are_packed_are_left_to_spark(tmp_path):
    first = written(tmp_path, "a,b\n", {})
    same = written(tmp_path, "a,b\n", {}, "b.csv")
    other = written(tmp_path, "a,c\n", {}, "c.csv")
    assert header_names(source({}), [first, same]) == ("a", "b")
    assert header_names(source({}), [first, other]) is None
    assert header_names(source({}), [written(tmp_path, "a,b\n", {}, "d.csv.gz")]) is None
