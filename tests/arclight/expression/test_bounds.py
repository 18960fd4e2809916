"""A text that cannot be read is told on one line, in words that are not the parser's own."""

from __future__ import annotations

import pyarrow as pa
import pytest

from arclight.errors import SpecError
from arclight.expression import check_syntax, compile_expression


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mean radius > 1\n", "'mean radius > 1' must be one Spark SQL expression, but it cannot "
         "be parsed (an unexpected word or sign at 'radius'; if 'mean radius' is one name, write "
         "it in backticks: `mean radius`)"),
        ("a >\n", "(a part is missing at '>')"),
        ("hour(a\n", "(a closing bracket was expected at 'a')"),
        ("a\n+ 'x", "'a + 'x' cannot be read (' is not closed)"),
    ],
)  # fmt: skip
def test_what_cannot_be_parsed(text: str, reason: str) -> None:
    with pytest.raises(SpecError) as error:
        check_syntax(text)
    assert reason in error.value.message
    assert "\\n" not in error.value.message


def test_a_text_of_several_lines_is_quoted_on_one() -> None:
    with pytest.raises(SpecError, match="expression 'a > b' must use columns"):
        compile_expression("a\n > b\n", pa.schema([("a", pa.int64())]))
