from __future__ import annotations

import pytest

from arclight.errors import SpecError
from arclight.sql_guard import check_select

ORDERED = (
    "SELECT a FROM t ORDER BY a LIMIT 5",
    "SELECT a FROM t ORDER BY a LIMIT 5 OFFSET 2",
    "SELECT a FROM t UNION ALL SELECT b FROM t ORDER BY a LIMIT 5",
    "SELECT a FROM (SELECT a FROM t ORDER BY a LIMIT 3)",
    "SELECT first(a) OVER (PARTITION BY b ORDER BY c) FROM t",
    "SELECT last_value(a) IGNORE NULLS OVER (PARTITION BY b ORDER BY c) FROM t",
    "SELECT first(a) FILTER (WHERE a > 1) OVER (ORDER BY c) FROM t",
    "SELECT lag(a) OVER w FROM t WINDOW w AS (PARTITION BY b ORDER BY c)",
    "SELECT lag(a) OVER (w ORDER BY c) FROM t WINDOW w AS (PARTITION BY b)",
    "SELECT sum(a) OVER (PARTITION BY b) FROM t",
    "SELECT sum(a) OVER (ORDER BY c ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
    "SELECT sum(a) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM t",
    "SELECT sort_array(collect_list(a)), size(collect_set(b)) FROM t",
    "SELECT array_join(sort_array(array_agg(a) FILTER (WHERE b)), ',') FROM t",
    "SELECT array_max(collect_list(a)) FROM t",
    "SELECT listagg(a, ',') WITHIN GROUP (ORDER BY a) FROM t",
    "SELECT mode(a, true), mode() WITHIN GROUP (ORDER BY a) FROM t",
    "SELECT max_by(a, b), min(a), median(a), percentile(a, 0.5), approx_count_distinct(a) FROM t",
    "SELECT t.first, last FROM t",
    "SELECT 'first(a) LIMIT 3' AS text FROM t",
)
UNORDERED = (
    ("SELECT a FROM t LIMIT 5", "LIMIT or OFFSET without ORDER BY.*add ORDER BY"),
    ("SELECT a FROM t OFFSET 5", "LIMIT or OFFSET"),
    ("(SELECT a FROM t ORDER BY a) LIMIT 5", "LIMIT or OFFSET"),
    ("SELECT a FROM t SORT BY a LIMIT 5", "LIMIT or OFFSET"),
    ("SELECT a FROM (SELECT a FROM t ORDER BY a) LIMIT 5", "LIMIT or OFFSET"),
    ("SELECT a FROM (SELECT a FROM t LIMIT 5) ORDER BY a", "LIMIT or OFFSET"),
    ("WITH x AS (SELECT a FROM t LIMIT 5) SELECT a FROM x", "LIMIT or OFFSET"),
    ("SELECT a FROM t UNION ALL SELECT b FROM t LIMIT 5", "LIMIT or OFFSET"),
    ("SELECT a FROM t WHERE a IN (SELECT b FROM t LIMIT 1)", "LIMIT or OFFSET"),
    ("SELECT first(a) FROM t", "use first, because .* same rows; use min, max"),
    ("SELECT `first`(a) FROM t", "use first,"),
    ("SELECT system.builtin.first(a) FROM t", "use first,"),
    ("SELECT first(a, true) FROM t", "use first,"),
    ("SELECT first_value(a) FROM t", "use first_value,"),
    ("SELECT last(a) IGNORE NULLS FROM t", "use last,"),
    ("SELECT last_value(a) OVER (PARTITION BY b) FROM t", "use last_value,"),
    ("SELECT any_value(a) FROM t GROUP BY b", "use any_value,"),
    ("SELECT nth_value(a, 2) OVER (PARTITION BY b) FROM t", "nth_value.*add ORDER BY"),
    ("SELECT collect_list(a) FROM t", r"collect_list.*sort_array\(…\) around it"),
    ("SELECT array_agg(a) FROM t", "array_agg"),
    ("SELECT collect_set(a) FROM t", "collect_set"),
    ("SELECT system.builtin.collect_set(a) FROM t", "collect_set"),
    ("SELECT array_join(collect_set(a), ',') FROM t", "collect_set"),
    ("SELECT size(collect_set(first(a))) FROM t", "use first,"),
    ("SELECT listagg(a) FROM t", r"listagg.*WITHIN GROUP \(ORDER BY"),
    ("SELECT string_agg(a, ',') FROM t", "string_agg"),
    ("SELECT mode(a) FROM t", "use mode,"),
    ("SELECT mode(a, false) FROM t", "use mode,"),
    ("SELECT percentile_approx(a, 0.5) FROM t", "percentile_approx.*which are exact"),
    ("SELECT approx_percentile(a, 0.5) FROM t", "approx_percentile"),
    ("SELECT approx_top_k(a) FROM t", "approx_top_k"),
    ("SELECT histogram_numeric(a, 5) FROM t", "histogram_numeric"),
    ("SELECT kll_sketch_agg_double(a) FROM t", "kll_sketch_agg_double"),
    ("SELECT row_number() OVER (PARTITION BY b) FROM t", "row_number.*add ORDER BY"),
    ("SELECT row_number() OVER (ORDER BY 1) FROM t", "row_number"),
    ("SELECT row_number() OVER (ORDER BY (SELECT NULL)) FROM t", "row_number"),
    ("SELECT rank() OVER w FROM t WINDOW w AS (PARTITION BY b)", "use rank,"),
    ("SELECT rank() OVER w FROM t WINDOW w AS (ORDER BY 1), v AS (ORDER BY a)", "use rank,"),
    ("SELECT dense_rank() OVER () FROM t", "dense_rank"),
    ("SELECT percent_rank() OVER () FROM t", "percent_rank"),
    ("SELECT cume_dist() OVER () FROM t", "cume_dist"),
    ("SELECT ntile(4) OVER () FROM t", "ntile"),
    ("SELECT lag(a) OVER (PARTITION BY b) FROM t", "use lag,"),
    ("SELECT lead(a) OVER (PARTITION BY b) FROM t", "use lead,"),
    ("SELECT sum(a) OVER (ROWS UNBOUNDED PRECEDING) FROM t", "window of ROWS or RANGE"),
    (
        "SELECT sum(a) OVER (ROWS BETWEEN 1 PRECEDING AND UNBOUNDED FOLLOWING) FROM t",
        "window of ROWS or RANGE",
    ),
    ("SELECT * FROM t PIVOT (first(a) FOR b IN (1, 2))", "use first,"),
)


@pytest.mark.parametrize("sql", ORDERED)
def test_what_has_an_order_is_accepted(sql: str) -> None:
    check_select(sql, ("t",))


@pytest.mark.parametrize(("sql", "reason"), UNORDERED)
def test_what_hangs_on_the_order_of_rows_is_refused(sql: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        check_select(sql, ("t",))
    assert "the same command must always give the same rows" in caught.value.message
