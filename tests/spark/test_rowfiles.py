"""Rows as files: a folder that appears once, whole, and what is left of it when it does not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from arclight.errors import ConflictError
from arclight.progress import silent
from arclight.spec_file import load_spec
from arclight.sweep import find_leftovers
from spark import rowfiles
from spark.etl import joined_rows
from spark.etl_plan import plan_etl
from tests.spark.etl_case import make_case, rows

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from arclight.sweep import Leftover

pytestmark = pytest.mark.spark


def test_of_two_that_write_one_output_one_is_told(session: SparkSession, tmp_path: Path) -> None:
    case = make_case(tmp_path, rows(300))
    plan = plan_etl(load_spec(case.spec_file()))
    table, schema = joined_rows(session, plan, case.catalog)
    output = tmp_path / "out"
    output.mkdir()
    (output / "theirs").write_text("rows")
    with pytest.raises(ConflictError, match=r"somebody else wrote it; give another"):
        rowfiles.write_rows(table, schema, output, plan=plan, where=None, tick=silent)
    assert [path.name for path in output.iterdir()] == ["theirs"]
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_command_leaves_is_found_by_a_sweep(
    session: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(tmp_path, rows(300))
    plan = plan_etl(load_spec(case.spec_file()))
    table, schema = joined_rows(session, plan, case.catalog)
    found: list[Leftover] = []

    def look(*_: object) -> None:
        leftovers = find_leftovers(
            case.catalog.store, clock=time.time(), grace_s=0, outputs=[tmp_path]
        ).leftovers
        found.extend(leftovers)

    monkeypatch.setattr(rowfiles, "refuse_changed", look)
    rowfiles.write_rows(table, schema, tmp_path / "out", plan=plan, where=None, tick=silent)
    assert [(left.path.parent, left.kept) for left in found] == [(tmp_path, "in use")]
    assert found[0].size_bytes > 0
