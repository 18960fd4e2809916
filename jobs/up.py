"""`arclight up` and `status`: a Ray head with a job server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from arclight.errors import SpecError, printable
from arclight.store import replace_file
from cluster.environment import environment
from cluster.head_record import PROFILE, TOKEN, find_head, head_elsewhere
from cluster.launch import start_head
from cluster.profiles import load_profile
from cluster.submit_client import job_server
from cluster.tokens import private_folder
from jobs.say import answer, say
from jobs.signing import key_variables
from jobs.submissions import as_yaml

if TYPE_CHECKING:
    from cluster.head_record import Head
    from cluster.profiles import Profile


def cluster_folder(profile: Profile) -> Path:
    """Return where a profile's cluster on this machine keeps its record, token and log.

    Raises:
        SpecError: this user has no home folder to write in.
    """
    try:
        home = private_folder(Path.home() / ".arclight")
        return private_folder(home / "clusters") / profile.name
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SpecError(
            f"a cluster's record is kept below the home folder, but '~/.arclight' cannot be made "
            f"({printable(why)}); set HOME to a folder that you may write."
        ) from error


def up_command(*, profile: str, as_json: bool) -> None:
    """Start a cluster and write the profile that leads to it.

    Raises:
        SpecError: the profile leads to one that somebody else runs.
    """
    place = load_profile(profile)
    folder = cluster_folder(place)
    if _is_somebody_else_s(place, folder):
        raise SpecError(
            f"profile '{place.name}' leads to a cluster that is there already, by its ray.address "
            "or ray.jobs_url, and `arclight up` starts one on this machine; leave them out, under "
            "another name."
        )
    _known(place, folder)
    with environment(key_variables()):  # it has a folder of its own
        head = start_head(place, folder, tell=lambda sentence: say(f"up: {sentence}"))
    path = write_attached(place, head, folder)
    say(f"up: jobs at {head.jobs_url}; use it with --profile {path}", style="green")
    answer({"jobs_url": head.jobs_url, "profile": str(path)}, as_json=as_json)


def status_command(*, profile: str, as_json: bool) -> None:
    """Say whether a cluster is up and where; one that somebody else runs is asked.

    Raises:
        EngineError: it cannot be reached.
        RefusedError: it does not take the token.
    """
    place = load_profile(profile)
    folder = cluster_folder(place)
    head, away = _known(place, folder), head_elsewhere(folder)
    if away is not None:
        host = printable(away.host)
        say(f"status: up on '{host}', another machine or container with this home; use it there.")
        answer({"is_up": True, "jobs_url": away.jobs_url, "host": away.host}, as_json=as_json)
        return
    if head is None and _is_somebody_else_s(place, folder):
        server = job_server(place)
        count = len(server.running())
        jobs = "1 job runs" if count == 1 else f"{count} jobs run"
        say(f"status: up at {server.url}, which `arclight up` did not start here; {jobs} there.")
        answer({"is_up": True, "jobs_url": server.url}, as_json=as_json)
        return
    if head is None:
        say(f"status: no cluster of profile '{place.name}' is up; `arclight up` starts one.")
        answer({"is_up": False}, as_json=as_json)
        return
    say(f"status: up at {head.jobs_url}, process {head.pid}; profile {folder / PROFILE}")
    body = {"is_up": True, "jobs_url": head.jobs_url, "profile": str(folder / PROFILE)}
    answer(body, as_json=as_json)


def _is_somebody_else_s(place: Profile, folder: Path) -> bool:
    """Return whether a profile leads to a cluster, and none that `up` started from a folder."""
    ray = place.ray
    leads = ray.address is not None or ray.jobs_url is not None
    return leads and Path(str(ray.token_path)).resolve() != (folder / TOKEN).resolve()


def _known(place: Profile, folder: Path) -> Head | None:
    """Return the head that runs here, led to by a profile: `up` may have been killed before it."""
    head = find_head(folder)
    if head is not None and not (folder / PROFILE).exists():
        write_attached(place, head, folder)
    return head


def write_attached(place: Profile, head: Head, folder: Path) -> Path:
    """Write the profile of a cluster that is up: the given one, with its address and token."""
    ray = place.ray.model_copy(
        update={
            "address": head.address,
            "jobs_url": head.jobs_url,
            "token_path": str(folder / TOKEN),
        }
    )
    body = place.model_copy(update={"ray": ray}).model_dump(mode="json", exclude_none=True)
    path = folder / PROFILE
    replace_file(path, as_yaml(body).encode())
    return path
