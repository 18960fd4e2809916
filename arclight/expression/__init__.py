"""Row expressions in SQL: one parser (sqlglot), one evaluator over Arrow, Spark's meaning."""

from __future__ import annotations

from arclight.expression.row_expression import Evaluated, Expression, compile_expression
from arclight.expression.syntax import check_syntax

__all__ = ["Evaluated", "Expression", "check_syntax", "compile_expression"]
