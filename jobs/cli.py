"""The command line: what can be typed; each command's module is loaded when it is used."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from arclight.failpoint import FLAG, POINT, arm
from jobs.cli_cluster import cluster_app
from jobs.cli_keys import keys_app
from jobs.guard import guarded
from jobs.options import (
    MODEL_HELP,
    AcceptSchema,
    JsonOption,
    ModelRef,
    NewStudy,
    ProfileOption,
    SpecFile,
    StoreOption,
)

END_S = 20.0
"""In which a second Ctrl-C does not disturb the end of a command."""
app = typer.Typer(
    help="Raw tables to a served model: ETL on Spark, training and serving on Ray.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AutoOption = Annotated[
    bool,
    typer.Option("--auto", help="Choose among all trainers, by spaces of ours."),
]
NameArgument = Annotated[
    str | None, typer.Argument(help="A name, NAME@N to show one.", show_default=False)
]
RunArgument = Annotated[
    str | None, typer.Argument(help="A name, a run's id to show one.", show_default=False)
]


@app.command()
def run(
    spec: SpecFile,
    store: StoreOption = None,
    profile: ProfileOption = "local",
    accept_schema: AcceptSchema = False,
    new_study: NewStudy = False,
    as_json: JsonOption = False,
) -> None:
    """ETL, train (or tune), evaluate, register; resumes, and skips what is done."""
    from jobs.run import run_command

    run_command(
        spec,
        store=store,
        profile=profile,
        accept_schema=accept_schema,
        new_study=new_study,
        as_json=as_json,
    )


@app.command()
def etl(
    spec: SpecFile,
    store: StoreOption = None,
    profile: ProfileOption = "local",
    accept_schema: AcceptSchema = False,
    as_json: JsonOption = False,
) -> None:
    """Build a dataset from raw tables and write its profile."""
    from jobs.etl import etl_command

    etl_command(spec, store=store, profile=profile, accept_schema=accept_schema, as_json=as_json)


@app.command()
def train(
    spec: SpecFile,
    store: StoreOption = None,
    profile: ProfileOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Train on the newest version of the spec's dataset."""
    from jobs.train import train_command

    train_command(spec, store=store, profile=profile, as_json=as_json)


@app.command()
def tune(
    spec: SpecFile,
    store: StoreOption = None,
    profile: ProfileOption = "local",
    new_study: NewStudy = False,
    auto: AutoOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search the spec's space, then train with the best parameters; goes on where it was."""
    from jobs.tune import Asked, tune_command

    asked = Asked(new_study=new_study, auto=auto)
    tune_command(spec, asked, store=store, profile=profile, as_json=as_json)


@app.command()
def evaluate(
    spec: SpecFile,
    store: StoreOption = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="NAME@N; default: the spec's own, else the newest."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="NAME@N of its features; default: the model's own.")
    ] = None,
    run_id: Annotated[str, typer.Option("--run", hidden=True)] = "",
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on the locked test split; the opening is recorded."""
    from jobs.evaluate import evaluate_command

    evaluate_command(
        spec, store=store, model=model, dataset=dataset, run_id=run_id, as_json=as_json
    )


@app.command()
def rows(
    spec: SpecFile,
    output: Annotated[Path, typer.Argument(help="A folder to make.", show_default=False)],
    where: Annotated[str | None, typer.Option(help="Keep rows for which this is true.")] = None,
    store: StoreOption = None,
    profile: ProfileOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Write the spec's joined rows as Parquet, ready for `score`."""
    from jobs.rows import rows_command

    rows_command(spec, output, where=where, store=store, profile=profile, as_json=as_json)


@app.command()
def score(
    model: ModelRef,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Raw rows in Parquet.")],
    output: Annotated[Path, typer.Argument(help="A folder to make.", show_default=False)],
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A column to keep beside the scores; default: the dataset's key."),
    ] = None,
    store: StoreOption = None,
    profile: ProfileOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Score a folder of raw rows in batch."""
    from jobs.score import score_command

    score_command(model, source, output, keep=keep, store=store, profile=profile, as_json=as_json)


@app.command()
def serve(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=MODEL_HELP)],
    port: Annotated[int, typer.Option(help="Where to listen; 0 takes a free port.")] = 8000,
    replicas: Annotated[
        int | None, typer.Option(help="Copies of the models; default: the spec's, or 1.")
    ] = None,
    spec: Annotated[
        Path | None, typer.Option(help="A spec whose `serve` section says how many copies.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name requests may be for.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="A file made by 'arclight keys'.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="A certificate in PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    store: StoreOption = None,
    profile: ProfileOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Serve models over HTTP until stopped."""
    from jobs.serve import ServeOptions, serve_command

    options = ServeOptions(
        port=port,
        replicas=replicas,
        spec=spec,
        host=host,
        hosts=tuple(allow_host or ()),
        keys=keys,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    serve_command(models, options, store=store, profile=profile, as_json=as_json)


@app.command()
def verify(
    model: ModelRef,
    store: StoreOption = None,
    profile: ProfileOption = "local",
    endpoint: Annotated[
        bool, typer.Option("--endpoint/--no-endpoint", help="Replay through a live server too.")
    ] = True,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Instead, train again from the record and compare.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove that stored features, batch scoring and serving agree."""
    if retrain:
        from jobs.retrain import retrain_command

        retrain_command(model, store=store, profile=profile, as_json=as_json)
        return
    from jobs.verify import verify_command

    verify_command(model, store=store, profile=profile, endpoint=endpoint, as_json=as_json)


@app.command()
def models(
    name: NameArgument = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """List models, their versions and aliases; NAME@N shows one."""
    from jobs.shelves import list_models

    list_models(name, store=store, as_json=as_json)


@app.command()
def datasets(
    name: NameArgument = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """List datasets and their versions; NAME@N shows one."""
    from jobs.shelves import list_datasets

    list_datasets(name, store=store, as_json=as_json)


@app.command()
def studies(
    name: NameArgument = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """List searches and how far they are; NAME@N shows one and writes its page."""
    from jobs.studies import list_studies

    list_studies(name, store=store, as_json=as_json)


@app.command()
def runs(name: RunArgument = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List runs; a run's id shows its journal."""
    from jobs.shelves import list_runs

    list_runs(name, store=store, as_json=as_json)


@app.command()
def promote(
    model: ModelRef,
    alias: Annotated[str, typer.Argument(help="The alias to move.", show_default=False)],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at a model's version."""
    from jobs.aliases import promote_command

    promote_command(model, alias, store=store, as_json=as_json)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="The model's name.", show_default=False)],
    alias: Annotated[str, typer.Option(help="The alias to move back.")] = "champion",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias back at the version it stood on before."""
    from jobs.aliases import rollback_command

    rollback_command(name, alias, store=store, as_json=as_json)


@app.command()
def sweep(
    outputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Also here: where `score` or `rows` wrote."),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove them; without it they are only listed.")
    ] = False,
    older_than: Annotated[
        str, typer.Option("--older-than", help="Leave what changed since, such as 24h.")
    ] = "24h",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what killed commands left in the store, and remove it when told."""
    from jobs.sweep import sweep_command

    sweep_command(
        outputs or [], delete=delete, older_than=older_than, store=store, as_json=as_json
    )


@app.command()
def check(
    spec: SpecFile,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Whether it fits there, too: a profile's name or file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a spec, its SQL, expressions and sources without running anything."""
    from jobs.check import check_command

    check_command(spec, profile=profile, as_json=as_json)


@app.command(name="spec")
def spec_schema(
    what: Annotated[str, typer.Argument(help="Only 'schema' is known.")] = "schema",
) -> None:
    """Print the JSON Schema of a spec, for editors."""
    from jobs.specschema import print_schema

    print_schema(what)


@app.command()
def doctor(
    store: StoreOption = None, profile: ProfileOption = "local", as_json: JsonOption = False
) -> None:
    """Check this machine: Java, Python, wheels, ports, shared memory, disk, clock."""
    from jobs.doctor import doctor_command

    doctor_command(store=store, profile=profile, as_json=as_json)


app.add_typer(cluster_app)
app.add_typer(keys_app, name="keys")


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its status: 0, 1, 2, 3 or 130."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of what a shell runs beside it
        signal.signal(signal.SIGINT, _interrupt)
    if os.environ.get(FLAG) == "1" and POINT in os.environ:
        arm(os.environ[POINT])
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    sys.exit(guarded(lambda: app(words, standalone_mode=False)))


def _interrupt(*_: Any) -> None:
    """Let SIGTERM end a run the way Ctrl-C does; a second one does not disturb its end.

    Only Ctrl-C does after a while, for somebody who would not wait for it.
    """
    waited = time.monotonic() + END_S

    def again(*_: Any) -> None:
        if time.monotonic() > waited:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, lambda *_: None)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, again)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
