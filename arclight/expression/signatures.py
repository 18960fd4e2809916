"""The functions a row expression may call, with how many arguments, and why others are refused."""

from __future__ import annotations

# name: (fewest, most); most = None has no bound
ARITIES: dict[str, tuple[int, int | None]] = {
    "mod": (2, 2),
    "isnull": (1, 1),
    "isnotnull": (1, 1),
    "isnan": (1, 1),
    "nanvl": (2, 2),
    "if": (3, 3),
    "coalesce": (1, None),
    "ifnull": (2, 2),
    "nvl": (2, 2),
    "nullif": (2, 2),
    "greatest": (2, None),
    "least": (2, None),
    "abs": (1, 1),
    "negative": (1, 1),
    "ceil": (1, 1),
    "ceiling": (1, 1),
    "floor": (1, 1),
    "round": (1, 2),
    "sqrt": (1, 1),
    "exp": (1, 1),
    "expm1": (1, 1),
    "ln": (1, 1),
    "log": (1, 2),
    "log10": (1, 1),
    "log2": (1, 1),
    "log1p": (1, 1),
    "pow": (2, 2),
    "power": (2, 2),
    "sign": (1, 1),
    "signum": (1, 1),
    "sin": (1, 1),
    "cos": (1, 1),
    "tan": (1, 1),
    "atan2": (2, 2),
    "lower": (1, 1),
    "lcase": (1, 1),
    "upper": (1, 1),
    "ucase": (1, 1),
    "trim": (1, 1),
    "ltrim": (1, 1),
    "rtrim": (1, 1),
    "length": (1, 1),
    "len": (1, 1),
    "char_length": (1, 1),
    "character_length": (1, 1),
    "substring": (2, 3),
    "substr": (2, 3),
    "left": (2, 2),
    "right": (2, 2),
    "concat": (1, None),
    "replace": (2, 3),
    "contains": (2, 2),
    "startswith": (2, 2),
    "endswith": (2, 2),
    "instr": (2, 2),
    "locate": (2, 2),
    "year": (1, 1),
    "quarter": (1, 1),
    "month": (1, 1),
    "day": (1, 1),
    "dayofmonth": (1, 1),
    "dayofweek": (1, 1),
    "weekday": (1, 1),
    "dayofyear": (1, 1),
    "weekofyear": (1, 1),
    "hour": (1, 1),
    "minute": (1, 1),
    "second": (1, 1),
    "date_trunc": (2, 2),
    "to_date": (1, 1),
    "datediff": (2, 2),
    "date_diff": (2, 2),
    "date_add": (2, 2),
    "dateadd": (2, 2),
    "date_sub": (2, 2),
    "unix_timestamp": (1, 1),
    "unix_seconds": (1, 1),
}

_AGGREGATE = "it looks at many rows, and a row expression sees one"
_REGULAR = (
    "regular expressions can take unbounded time; use LIKE, contains, startswith or endswith"
)
_CODE = "it runs code that is not SQL"
_CHANGING = "the same row must always give the same value"
_NESTED = "arrays, maps, structs and lambdas are not supported"

_REASONS = {
    _AGGREGATE: """
        sum avg mean count min max stddev variance first last any_value collect_list collect_set
        median mode percentile percentile_approx approx_percentile count_if bool_and bool_or
        row_number rank dense_rank lag lead ntile
    """,
    _REGULAR: """
        rlike regexp regexp_like regexp_replace regexp_extract regexp_extract_all regexp_count
        regexp_instr regexp_substr split
    """,
    _CODE: "reflect java_method try_reflect call_function",
    _CHANGING: """
        rand random randn uuid shuffle now current_date current_timestamp curdate localtimestamp
        current_user user session_user current_timezone monotonically_increasing_id
        spark_partition_id input_file_name
    """,
    _NESTED: "array map struct named_struct transform filter aggregate exists explode",
}
REFUSED_FUNCTIONS: dict[str, str] = {
    name: reason for reason, listed in _REASONS.items() for name in listed.split()
}

# Spark reads these as functions even without brackets
REFUSED_NAMES = frozenset(
    {
        "current_catalog",
        "current_database",
        "current_date",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "localtimestamp",
        "session_user",
        "user",
    }
)
