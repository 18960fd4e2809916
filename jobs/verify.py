"""`arclight verify`: the same rows through every path must give the same numbers."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.errors import RefusedError
from cluster.profiles import load_profile
from jobs.runs import known_store
from jobs.say import answer, progress, say, say_table
from ray_apps.serving.client import predict_over_http
from ray_apps.serving.deploy import served
from ray_apps.verify import verify_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arclight.bundle import ModelBundle
    from arclight.catalog import Catalog
    from cluster.profiles import Profile


def verify_command(
    ref: str, *, store: str | None, profile: str, endpoint: bool, as_json: bool
) -> None:
    """Replay stored rows through the stored features, the batch path and a live endpoint."""
    catalog = known_store(store, Path.cwd())
    bundle = catalog.model(ref)
    place = load_profile(profile)
    with progress("verify") as tick, _endpoint(catalog, bundle, place, wanted=endpoint) as ask:
        report = verify_model(catalog, bundle, endpoint=ask, tick=tick)
    say_table(
        f"verify {bundle.ref}",
        ("comparison", "rows", "differing", "largest difference"),
        [(c.name, f"{c.rows:,}", f"{c.differing:,}", f"{c.worst:.3g}") for c in report.checks],
    )
    answer({"ok": report.ok, **report.model_dump(mode="json")}, as_json=as_json)
    if not report.ok:
        worst = max(report.checks, key=lambda c: c.worst)
        column = f", column '{worst.worst_column}'" if worst.worst_column else ""
        raise RefusedError(
            f"model {bundle.ref} must give the same numbers on every path within "
            f"{report.tolerance:g}, but {worst.name} differ by {worst.worst:.3g} for "
            f"{worst.differing:,} of {worst.rows:,} rows (row {worst.worst_row}{column}); do not "
            "serve it: train again, and report it if it stays."
        )
    say(f"verify: {bundle.ref} gives the same numbers on every path.")


@contextmanager
def _endpoint(
    catalog: Catalog, bundle: ModelBundle, profile: Profile, *, wanted: bool
) -> Iterator[Callable[[list[dict[str, Any]]], list[Any]] | None]:
    """Serve the model for the length of a block and give a function that asks it for scores."""
    if not wanted:
        yield None
        return
    with served(catalog, [bundle.ref], profile=profile, port=0) as url:
        predict = predict_over_http(url, bundle.name)

        def scores(rows: list[dict[str, Any]]) -> list[Any]:
            return [_scores(bundle, prediction) for prediction in predict(rows)]

        yield scores


def _scores(bundle: ModelBundle, prediction: dict[str, Any]) -> Any:
    """Return a prediction's score, or of several classes their scores in the model's order."""
    if bundle.task == "multiclass":
        return [prediction["scores"][name] for name in bundle.plan.classes]
    return prediction["score"]
