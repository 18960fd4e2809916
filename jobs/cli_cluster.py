"""The commands that send runs to a cluster, follow them, and start and stop its head."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.options import (
    AcceptSchema,
    JsonOption,
    NewStudy,
    ProfileOption,
    SpecFile,
    StoreOption,
)

cluster_app = typer.Typer()

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, as submit gave it.")]


@cluster_app.command()
def submit(
    spec: SpecFile,
    again: Annotated[
        bool, typer.Option("--again", help="A new attempt, though the same was sent before.")
    ] = False,
    store: StoreOption = None,
    profile: ProfileOption = "local",
    accept_schema: AcceptSchema = False,
    new_study: NewStudy = False,
    as_json: JsonOption = False,
) -> None:
    """Send a run to a Ray cluster that runs already."""
    from jobs.submit import submit_command

    submit_command(
        spec,
        store=store,
        profile=profile,
        again=again,
        accept_schema=accept_schema,
        new_study=new_study,
        as_json=as_json,
    )


@cluster_app.command()
def jobs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List submitted jobs."""
    from jobs.watch import jobs_command

    jobs_command(store=store, as_json=as_json)


@cluster_app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
    store: StoreOption = None,
) -> None:
    """Print a job's log."""
    from jobs.watch import logs_command

    logs_command(job, store=store, follow=follow)


@cluster_app.command()
def wait(job: JobId, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Wait for a job and end with its exit status."""
    from jobs.watch import wait_command

    wait_command(job, store=store, as_json=as_json)


@cluster_app.command()
def cancel(job: JobId, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Stop a job; once or many times."""
    from jobs.watch import cancel_command

    cancel_command(job, store=store, as_json=as_json)


@cluster_app.command()
def up(profile: ProfileOption = "local", as_json: JsonOption = False) -> None:
    """Start a profile's Ray head on this machine."""
    from jobs.up import up_command

    up_command(profile=profile, as_json=as_json)


@cluster_app.command()
def down(
    profile: ProfileOption = "local",
    force: Annotated[bool, typer.Option("--force", help="End the jobs that run, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop what 'up' started; refused while jobs run there."""
    from jobs.down import down_command

    down_command(profile=profile, force=force, as_json=as_json)


@cluster_app.command()
def status(profile: ProfileOption = "local", as_json: JsonOption = False) -> None:
    """Say whether a profile's Ray head runs."""
    from jobs.up import status_command

    status_command(profile=profile, as_json=as_json)
