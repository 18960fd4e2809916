"""`arclight rows`: the rows of `etl.sql` as a scorer takes them, written as Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.errors import RefusedError, SpecError
from arclight.expression import compile_expression
from arclight.spec_file import load_spec
from arclight.store import make_folder
from cluster.profiles import load_profile
from cluster.spark_session import spark_session
from jobs.runs import open_run, store_for
from jobs.say import answer, progress, say
from spark.etl import joined_rows
from spark.etl_plan import plan_etl
from spark.rowfiles import write_rows

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


def rows_command(
    spec_file: Path,
    output: Path,
    *,
    where: str | None,
    store: str | None,
    profile: str,
    as_json: bool,
) -> None:
    """Join the sources and write the rows that keep a condition."""
    loaded = load_spec(spec_file)
    place = load_profile(profile)
    catalog = store_for(store, loaded.folder)
    if output.exists():
        raise RefusedError(f"output '{output}' exists; nothing is overwritten: name a new folder.")
    plan = plan_etl(loaded)
    with open_run(catalog, loaded) as run, run.step("rows") as note, progress("rows") as tick:
        scratch = run.folder / "spark"
        make_folder(scratch)
        with spark_session(place, log_folder=run.logs, local_folder=scratch) as session:
            table, schema = joined_rows(session, plan, catalog)
            if where is not None:
                _check_condition(where, schema)
            count = write_rows(session, table, schema, output, where=where, tick=tick)
        note.result = str(output)
    say(f"rows: {count:,} rows in {output}.")
    answer({"rows": count, "output": str(output)}, as_json=as_json)


def _check_condition(where: str, schema: pa.Schema) -> None:
    condition = compile_expression(where, schema)
    if str(condition.type) != "bool":
        raise SpecError(f"--where must be true or false for a row, got {condition.type}.")
