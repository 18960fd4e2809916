"""`arclight check`: everything that can be known of a spec without running it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from arclight.errors import ArclightError, SpecError
from arclight.expression import check_syntax
from arclight.spec_file import load_spec
from arclight.sql_guard import check_select
from jobs.say import answer, say
from ray_apps.trainers import TrainJob, load_trainer
from spark.columns import check_known_columns, located
from spark.etl_plan import plan_etl
from spark.footers import read_footers
from spark.foreseen import joined_columns, raw_columns, source_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from arclight.spec_file import LoadedSpec
    from spark.foreseen import Columns


def check_command(spec_file: Path, *, as_json: bool) -> None:
    """Check a spec: its fields, SQL, expressions, parameters, sources and their footers."""
    loaded = load_spec(spec_file)
    check_without_running(loaded)
    plan = plan_etl(loaded)
    rows = {}
    columns: dict[str, Columns | None] = dict.fromkeys(loaded.spec.sources)
    for name, source in loaded.spec.sources.items():
        files = plan.files[name].files
        if source.format == "parquet" and files:
            may_differ = str(source.options.get("mergeSchema", "")).lower() == "true"
            footers = read_footers(name, files, may_differ=may_differ)
            rows[name] = footers.rows
            columns[name] = source_columns(source, plan.files[name], footers)
            say(f"source {name}: {rows[name]:,} rows in {len(files):,} files.")
    check_foreseen(loaded, columns)
    say(f"{spec_file}: nothing wrong was found.")
    answer({"spec": loaded.spec.digest, "rows": rows}, as_json=as_json)


def check_foreseen(loaded: LoadedSpec, sources: Mapping[str, Columns | None]) -> None:
    """Check the spec's fields against the joined table, as far as its columns can be told.

    Raises:
        SpecError: a field names a column that is not there, or one of a type it cannot have.
        SchemaError: a column of the joined table must be dropped or renamed.
    """
    etl = loaded.spec.etl
    with located(loaded):
        joined = joined_columns(loaded.sql, sources)
    if joined is not None:
        check_known_columns(raw_columns(joined, key=etl.key, drop=etl.drop), loaded)


def check_without_running(loaded: LoadedSpec) -> None:
    """Check what needs neither data nor an engine; every run does it first.

    Raises:
        SpecError: the SQL, an expression, a library's parameter or the tune section is wrong.
    """
    spec = loaded.spec
    if spec.tune is not None:
        raise SpecError(
            f"{loaded.where('tune')}: 'tune' is not built yet in this release; remove the "
            "section to train with train.params."
        )
    check_texts(loaded)
    job = TrainJob(
        task=spec.task,
        categorical=(),
        metric=spec.metric,
        classes=2,
        params=dict(spec.train.params),
        imbalance=spec.train.imbalance,
        seed=spec.train.seed,
    )
    trainer = load_trainer(spec.train.trainer)
    with _at(loaded, "train", "params"):
        trainer.check_params(job)


def check_texts(loaded: LoadedSpec) -> None:
    """Check the SQL and every expression's syntax.

    Raises:
        SpecError: one of them is wrong; the message names its line and field.
    """
    spec = loaded.spec
    with _at(loaded, "etl", "sql_file" if spec.etl.sql_file is not None else "sql"):
        check_select(loaded.sql, list(spec.sources))
    for name, text in spec.features.derive.items():
        with _at(loaded, "features", "derive", name):
            check_syntax(text)
    for number, check in enumerate(spec.etl.checks):
        with _at(loaded, "etl", "checks", str(number), "expect"):
            check_syntax(check.expect)


@contextmanager
def _at(loaded: LoadedSpec, *path: str) -> Iterator[None]:
    """Let what is wrong with a field's text say where the field stands."""
    try:
        yield
    except ArclightError as error:
        field = ".".join(path)
        name = "" if error.message.startswith(field) else f"{field}: "
        raise SpecError(f"{loaded.where(*path)}: {name}{error.message}") from error
