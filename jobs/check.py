"""`arclight check`: everything that can be known of a spec without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.errors import ArclightError, SpecError
from arclight.expression import check_syntax
from arclight.spec_file import load_spec
from arclight.sql_guard import check_select
from jobs.say import answer, say
from ray_apps.trainers import load_trainer
from spark.etl import plan_etl
from spark.footers import read_footers

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.spec_file import LoadedSpec


def check_command(spec_file: Path, *, as_json: bool) -> None:
    """Check a spec: its fields, SQL, expressions, parameters, sources and their footers."""
    loaded = load_spec(spec_file)
    check_texts(loaded)
    load_trainer(loaded.spec.train.trainer).check_params(
        loaded.spec.task, loaded.spec.train.params
    )
    plan = plan_etl(loaded)
    rows = {}
    for name, source in loaded.spec.sources.items():
        files = plan.files[name].files
        if source.format == "parquet" and files:
            may_differ = str(source.options.get("mergeSchema", "")).lower() == "true"
            rows[name] = read_footers(name, files, may_differ=may_differ).rows
            say(f"source {name}: {rows[name]:,} rows in {len(files):,} files.")
    say(f"{spec_file}: nothing wrong was found.")
    answer({"spec": loaded.spec.digest, "rows": rows}, as_json=as_json)


def check_texts(loaded: LoadedSpec) -> None:
    """Check the SQL and every expression's syntax.

    Raises:
        SpecError: one of them is wrong; the message names its field.
    """
    spec = loaded.spec
    check_select(loaded.sql, list(spec.sources))
    texts = {f"features.derive.{name}": text for name, text in spec.features.derive.items()}
    texts |= {f"etl.checks.{check.name}": check.expect for check in spec.etl.checks}
    for field, text in texts.items():
        try:
            check_syntax(text)
        except ArclightError as error:
            raise SpecError(f"{loaded.file}: {field}: {error.message}") from error
