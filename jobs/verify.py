"""`arclight verify`: the same rows through every path must give the same numbers."""

from __future__ import annotations

from pathlib import Path

from arclight.errors import RefusedError
from cluster.profiles import load_profile
from jobs.runs import store_for
from jobs.say import answer, progress, say, say_table
from ray_apps.serving.client import predict_over_http
from ray_apps.serving.deploy import served
from ray_apps.verify import verify_model


def verify_command(
    ref: str, *, store: str | None, profile: str, endpoint: bool, as_json: bool
) -> None:
    """Replay stored rows through the stored features, the batch path and a live endpoint."""
    catalog = store_for(store, Path.cwd())
    bundle = catalog.model(ref)
    place = load_profile(profile)
    with progress("verify") as tick:
        if endpoint:
            with served(catalog, [bundle.ref], profile=place, port=0) as url:
                report = verify_model(
                    catalog, bundle, endpoint=predict_over_http(url, bundle.name), tick=tick
                )
        else:
            report = verify_model(catalog, bundle, endpoint=None, tick=tick)
    say_table(f"verify {bundle.ref}", ("path", "rows", "largest difference"), report.table())
    answer(report.to_dict(), as_json=as_json)
    if not report.ok:
        raise RefusedError(
            f"model {bundle.ref} must give the same numbers on every path, but {report.worst}; "
            "do not serve it: train again, and report it if it stays."
        )
    say(f"verify: {bundle.ref} gives the same numbers on every path.")
