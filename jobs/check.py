"""`arclight check`: everything that can be known of a spec without running it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from arclight.errors import ArclightError, SpecError, printable
from arclight.expression import check_syntax
from arclight.progress import silent_tell
from arclight.spec_file import load_spec
from arclight.sql_guard import check_all_read, check_select
from arclight.workers import bounds_of
from cluster.machine import look_at_machine
from cluster.profiles import load_profile
from cluster.sizing import plan_crew
from jobs.say import answer, say
from ray_apps.crews import check_device
from ray_apps.trainers import load_trainer
from ray_apps.tune import check_space, plain_job
from spark.columns import check_known_columns, located
from spark.etl_plan import plan_etl
from spark.footers import read_footers
from spark.foreseen import joined_columns, raw_columns, source_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from arclight.progress import Tell
    from arclight.spec import Spec
    from arclight.spec_file import LoadedSpec
    from cluster.profiles import Profile
    from spark.foreseen import Columns

MOST_NAMED = 10


def check_command(spec_file: Path, *, profile: str | None, as_json: bool) -> None:
    """Check a spec: its fields, SQL, expressions, parameters, sources and their footers.

    With a profile also whether its workers fit there.
    """
    loaded = load_spec(spec_file)
    check_without_running(loaded, None if profile is None else load_profile(profile))
    rows, unchecked = check_sources(loaded, tell=say)
    for text in unchecked:
        say(f"{spec_file}: {text}.", style="yellow")
    limit = " in what was checked" if unchecked else ""
    say(f"{spec_file}: nothing wrong was found{limit}.")
    body = {"spec": loaded.spec.digest, "rows": rows, "unchecked": unchecked}
    answer(body, as_json=as_json)


def check_sources(
    loaded: LoadedSpec, *, tell: Tell = silent_tell
) -> tuple[dict[str, int], list[str]]:
    """Check the spec's fields against its sources, as far as their footers tell of them.

    Returns:
        Source -> its rows, where they are known; and what could not be checked, a sentence each.

    Raises:
        MissingError: a source is not here.
        DataError: a file of one cannot be read.
        SpecError, SchemaError: as of `check_foreseen`.
    """
    plan = plan_etl(loaded)
    rows = {}
    columns: dict[str, Columns | str] = {}
    for name, source in loaded.spec.sources.items():
        files = plan.files[name]
        footers = read_footers(name, source, files.files)
        if footers is not None:
            rows[name] = footers.rows
            tell(f"source {name}: {rows[name]:,} rows in {len(files.files):,} files.")
        columns[name] = source_columns(source, files, footers)
    return rows, check_foreseen(loaded, columns)


def check_foreseen(loaded: LoadedSpec, sources: Mapping[str, Columns | str]) -> list[str]:
    """Check the spec's fields against the joined table, as far as its columns can be told.

    Args:
        loaded: the spec.
        sources: source -> its columns, or why they are not known.

    Returns:
        What could not be checked, a sentence each.

    Raises:
        SpecError: a field names a column that is not there, or one of a type it cannot have.
        SchemaError: a column of the joined table must be dropped or renamed.
    """
    etl = loaded.spec.etl
    known = {name: None if isinstance(c, str) else c for name, c in sources.items()}
    with located(loaded):
        joined = joined_columns(loaded.sql, known)
    if joined is not None:
        raw = raw_columns(joined, key=etl.key, drop=etl.drop)
        check_known_columns(raw, loaded)
        unknown = [printable(name) for name, kind in raw if kind is None]
        names = ", ".join(unknown[:MOST_NAMED]) + (", …" if len(unknown) > MOST_NAMED else "")
        told = f"the types of {names} are known only to Spark: what uses them was checked by name"
        return [told] if unknown else []
    why = [f"source {name} ({c})" for name, c in sources.items() if isinstance(c, str)]
    whose = f"the columns of {', '.join(why)}" if why else "the columns that etl.sql gives"
    return [f"{whose} are known only to Spark: {_naming_columns(loaded.spec)} were not checked"]


def _naming_columns(spec: Spec) -> str:
    """Return the fields of a spec that name columns."""
    etl, wanted = spec.etl, spec.features
    fields = {
        "label": True,
        "key": etl.key,
        "time": etl.time,
        "drop": etl.drop,
        "group": etl.group,
        "checks": etl.checks,
        "derive": wanted.derive,
        "categorical": wanted.categorical,
        "segments": spec.evaluate.segments,
    }
    return ", ".join([*(name for name, given in fields.items() if given), "features"])


_FIELD = re.compile(r"[a-z_]+(\.\w+)*(?=: )")


def check_without_running(loaded: LoadedSpec, place: Profile | None = None) -> None:
    """Check what needs neither data nor an engine; every run does it first.

    Args:
        loaded: the spec.
        place: where it will run; None when that is not known here.

    Raises:
        RefusedError: more workers than the place has cores.
        SpecError: the SQL, an expression, a library's parameter or the tune section is wrong.
    """
    spec = loaded.spec
    bounds = bounds_of(spec.train.workers)
    if place is not None and place.ray.address is None:  # an attached cluster answers later
        cores = place.cores or look_at_machine(loaded.folder).cores
        plan_crew([cores], bounds, cores_per_worker=place.ray.cores_per_worker)
    check_texts(loaded)
    job = plain_job(spec, spec.train)
    trainer = load_trainer(spec.train.trainer)
    with _at(loaded, "train", "params"):
        trainer.check_params(job)
    with _at(loaded, "train", "device"):
        check_device(spec.train)
    if spec.tune is not None:
        with _at(loaded, "tune"):
            check_space(spec)


def check_texts(loaded: LoadedSpec) -> None:
    """Check the SQL and every expression's syntax.

    Raises:
        SpecError: one of them is wrong; the message names its line and field.
    """
    spec = loaded.spec
    with _at(loaded, "etl", "sql_file" if spec.etl.sql_file is not None else "sql"):
        check_select(loaded.sql, list(spec.sources))
        check_all_read(loaded.sql, list(spec.sources))
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
        told = _FIELD.match(error.message)  # it may be of a field below, or beside
        at = path if told is None or name else told[0].split(".")
        raise SpecError(f"{loaded.where(*at)}: {name}{error.message}") from error
