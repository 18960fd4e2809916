"""`arclight rows`: the rows of `etl.sql` as a scorer takes them, written as Parquet."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from arclight.catalog import Catalog
from arclight.disk import making
from arclight.errors import DataError, MissingError, RefusedError, SpecError
from arclight.expression import compile_expression
from arclight.output import private_beside
from arclight.spec_file import load_spec
from arclight.store import Store, held, make_folder
from cluster.profiles import load_profile
from cluster.spark_session import spark_session
from jobs.runs import store_root
from jobs.say import answer, progress, say
from spark.etl import joined_rows
from spark.etl_plan import plan_etl
from spark.rowfiles import write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    # read at most: whose columns are held, where a dataset of this name was published
    catalog = Catalog(Store(store_root(store, loaded.folder)))
    with making(output):
        is_there = output.exists() or output.is_symlink()
    if is_there:
        raise RefusedError(f"output '{output}' exists; nothing is overwritten: name a new folder.")
    plan = plan_etl(loaded)
    with (
        _scratch(output) as (logs, files),
        spark_session(place, log_folder=logs, local_folder=files) as session,
        progress("rows") as tick,
    ):
        table, schema = joined_rows(session, plan, catalog)
        if where is not None:
            _check_condition(where, schema)
        count = write_rows(table, schema, output, plan=plan, where=where, tick=tick)
    say(f"rows: {count:,} rows in {output}.")
    answer({"rows": count, "output": str(output)}, as_json=as_json)


@contextlib.contextmanager
def _scratch(output: Path) -> Iterator[tuple[Path, Path]]:
    """Give a folder for Spark's log and one for its files, on the disk that the rows go to.

    The log stays where something failed that nobody foresaw.
    """
    with making(output):
        folder = private_beside(output)
        logs, files = folder / "logs", folder / "files"
        for one in (logs, files):
            make_folder(one)
    taken_away = folder
    try:
        with held(folder):  # `arclight sweep` leaves it alone
            yield logs, files
    except (SpecError, DataError, RefusedError, MissingError):
        raise
    except Exception:
        taken_away = files
        say(f"rows: Spark's log stays in '{logs}'.")
        raise
    finally:
        shutil.rmtree(taken_away, ignore_errors=True)


def _check_condition(where: str, schema: pa.Schema) -> None:
    condition = compile_expression(where, schema)
    if str(condition.type) != "bool":
        raise SpecError(f"--where must be true or false for a row, got {condition.type}.")
