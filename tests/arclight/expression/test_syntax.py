from __future__ import annotations

import time

import pytest

from arclight.errors import SpecError
from arclight.expression import check_syntax


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a + b * a", ("a", "b")),
        ("hour(sched_dep_time)", ("sched_dep_time",)),
        ("`a b` > 0 AND NOT c", ("a b", "c")),
        ("CASE WHEN x = 1 THEN y ELSE z END", ("x", "y", "z")),
        ("date = '2020-01-01' OR year(date) = 2020", ("date",)),
        ("1 + 1", ()),
        ("s LIKE 'a%' -- a comment", ("s",)),
        ("CAST(a AS int) + TRY_CAST(b AS double) + c::bigint", ("a", "b", "c")),
        ("left(s, 2) = right(s, 2)", ("s",)),
        ("coalesce(b, a) IS NOT NULL", ("b", "a")),
        ("a IN (1, 2) AND b BETWEEN 0.5D AND 3L", ("a", "b")),
    ],
)
def test_columns_come_in_the_order_of_first_use(text: str, columns: tuple[str, ...]) -> None:
    assert check_syntax(text) == columns


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must not be empty"),
        ("a +", "cannot be parsed"),
        ("a b", "cannot be parsed"),
        ("a AS b", "cannot be parsed"),
        ("a, b", "cannot be parsed"),
        ("a; b", "exactly one expression"),
        ("'a", "cannot be read"),
        ("uper(s)", "must not call 'uper'.*Did you mean 'upper'"),
        ("regexp_like(s, '(a+)+$')", "unbounded time"),
        ("s RLIKE '(a+)+$'", "RegexpLike is not supported"),
        ("s ILIKE 'a'", "ILike is not supported"),
        ("sum(a)", "looks at many rows"),
        ("sum(a) OVER ()", "Window is not supported"),
        ("count(*)", "many rows"),
        ("(SELECT 1)", "Subquery is not supported"),
        ("a IN (SELECT 1)", "In is not supported"),
        ("EXISTS (SELECT 1)", "Exists is not supported"),
        ("transform(a, x -> x + 1)", "must not"),
        ("java_method('a', 'b')", "code that is not SQL"),
        ("rand()", "same value"),
        ("now()", "same value"),
        ("current_date", "same row must always"),
        ("f.distance", "plain column name without a qualifier"),
        ("a[0]", "Bracket is not supported"),
        ("a & b", "BitwiseAnd is not supported"),
        ("INTERVAL 1 DAY", "Interval is not supported"),
        (":a", "Placeholder is not supported"),
        ("*", "Star is not supported"),
        ("X'1F'", "HexString is not supported"),
        ("a < b = c", "put one side in parentheses"),
        ("a = b = c", "put one side in parentheses"),
        ("a = b IN (1)", "put one side in parentheses"),
        ("s || a + b", "put one side in parentheses"),
        ("substring(s)", "'substring' must have 2 to 3 arguments, got 1"),
        ("greatest(a)", "2 to any number of arguments"),
        ("sqrt(a, b)", "must have 1 arguments, got 2"),
        ("CAST(a AS decimal(3, 1))", "CAST must go to bigint, boolean"),
        ("CAST(a AS array<int>)", "CAST must go to"),
        ("300Y", "300 must fit a tinyint"),
        ("9223372036854775808", "must fit a bigint"),
        ("1e400", "must fit a double"),
        ("1e39F", "must fit a float"),
        ("1.5BD", "CAST must go to"),
        (r"s = 'a\d'", r"must escape only"),
        ("'a' 'b'", "Concat is not supported"),
        ("IF(a, b)", "must have 3 arguments"),
        ("date_add(a, interval 1 day)", "Interval is not supported"),
    ],
)
def test_what_is_not_listed_is_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        check_syntax(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 4_999 + "a" + ")" * 4_999,
        "abs(" * 1_000 + "a" + ")" * 1_000,
        "NOT " * 2_000 + "a",
        "- " * 4_000 + "a",
        "CASE WHEN " * 60 + "a" + " THEN b END" * 60,
        "date(" * 40 + "a" + ")" * 40,
    ],
)
def test_deep_nesting_is_refused_before_the_parser_sees_it(text: str) -> None:
    start = time.process_time()
    with pytest.raises(SpecError, match=r"nested at most 50 deep|at most 8 calls named as types"):
        check_syntax(text)
    assert time.process_time() - start < 1


def test_a_long_text_is_refused_at_once() -> None:
    with pytest.raises(SpecError, match="at most 10,000 characters, got 20,001"):
        check_syntax("(" * 10_000 + "a" + ")" * 10_000)


def test_nesting_up_to_the_bound_and_long_chains_are_read() -> None:
    assert check_syntax("(" * 50 + "a" + ")" * 50) == ("a",)
    assert check_syntax("abs(" * 50 + "a" + ")" * 50) == ("a",)
    assert check_syntax(" + ".join(["a", "b"] * 1_000)) == ("a", "b")
    assert check_syntax(" AND ".join(["a", "b"] * 500)) == ("a", "b")


def test_operators_inside_one_another_are_bounded() -> None:
    level = "(b > c AND d = e - {})"
    text = "a"
    for _ in range(45):
        text = level.format(text)
    with pytest.raises(SpecError, match="at most 100 operators inside one another, got 136"):
        check_syntax(text)
