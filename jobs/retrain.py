"""`arclight verify --retrain`: a model trained again from its record must be the same."""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.errors import RefusedError
from arclight.store import held
from arclight.sweep import RETRAINED
from cluster.profiles import load_profile
from cluster.ray_session import ray_session
from jobs.runs import known_store
from jobs.say import answer, progress, say, say_table
from ray_apps.retrain import NEAR, retrain_model, settings_of

if TYPE_CHECKING:
    from cluster.profiles import Profile
    from ray_apps.retrain import RetrainReport


def retrain_command(ref: str, *, store: str | None, profile: str, as_json: bool) -> None:
    """Train again, compare digest and metrics, publish nothing.

    Raises:
        RefusedError: it is not the same, or an older release made the record.
    """
    catalog = known_store(store, Path.cwd())
    bundle = catalog.model(ref)
    workers = settings_of(bundle).workers or 1
    place = load_profile(profile)
    # several workers see nothing but the store; one needs no right to write there
    root = catalog.store.root if workers > 1 else None
    with (
        tempfile.TemporaryDirectory(prefix=RETRAINED, dir=root) as scratch,
        held(Path(scratch), alone=True),  # which tells a sweep that somebody is at work here
        progress("retrain") as tick,
        _ray(place, workers, Path(scratch)),
    ):
        report = retrain_model(catalog, bundle, folder=Path(scratch), tick=tick)
    _say(report)
    answer({"ok": report.ok, **report.model_dump(mode="json")}, as_json=as_json)
    if not report.ok:
        rule = f"metrics within {NEAR:g}" if report.changed else "the same bytes"
        raise RefusedError(
            f"model {bundle.ref} must come out of its record again with {rule}, but did not; "
            "its data, code or settings are not what the record says: find out before you use it."
        )
    same = "the same bytes" if report.same_bytes else f"metrics within {NEAR:g}"
    say(f"retrain: the record of {bundle.ref} gives {same} again.")


def _ray(place: Profile, workers: int, folder: Path) -> AbstractContextManager[object]:
    """Return Ray for several workers; one trains in this process."""
    return nullcontext() if workers == 1 else ray_session(place, log_folder=folder)


def _say(report: RetrainReport) -> None:
    lines: list[tuple[object, object, object]] = [
        (f"metric on {split}", f"{value:.6g}", f"{report.found.get(split, float('nan')):.6g}")
        for split, value in report.recorded.items()
    ]
    lines.append(("model file", "", "the same bytes" if report.same_bytes else "other bytes"))
    lines += [("what may make other bytes", "", reason) for reason in report.changed]
    say_table(f"retrain {report.model}", ("what", "recorded", "found"), lines)
