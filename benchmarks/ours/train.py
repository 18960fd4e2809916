"""Arclight's `train`: a published dataset to a published model, Ray up and warm."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.catalog import Catalog
from arclight.progress import silent
from arclight.spec_file import load_spec
from arclight.store import open_store
from benchmarks.ingest_job import WARM_ROUNDS
from cluster.profiles import Profile
from cluster.ray_session import ray_session
from ray_apps.evaluate import evaluate_model
from ray_apps.train import train_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arclight.bundle import ModelBundle


class TrainSide:
    """Trains with a seed of its own each round, since the same spec gives the same model."""

    def __init__(self, params: dict[str, Any], profile: Profile) -> None:
        self._catalog = Catalog(open_store(params["store"]))
        self._manifest = self._catalog.dataset(params["dataset"])
        self._scratch, self._profile = Path(params["scratch"]), profile
        file = self._scratch / "spec.yaml"
        file.write_text(json.dumps(params["spec"]), encoding="utf-8")
        self._spec = load_spec(file).spec

    def ready(self, number: int) -> None:
        """Remove the last round's work folder."""
        shutil.rmtree(self._run_folder(number - 1), ignore_errors=True)
        self._run_folder(number).mkdir()

    def run(self, number: int) -> ModelBundle:
        """Train in one Ray worker with every core, and publish."""
        rounds = self._spec.train.rounds if number else WARM_ROUNDS
        train = self._spec.train.model_copy(update={"seed": number, "rounds": rounds})
        spec = self._spec.model_copy(update={"train": train})
        return train_model(
            self._catalog,
            self._manifest,
            spec,
            profile=self._profile,
            run_folder=self._run_folder(number),
            tick=silent,
        )

    def facts(self, result: ModelBundle) -> dict[str, Any]:
        """Return the AUC of the stored bundle on the test split."""
        found = evaluate_model(
            self._catalog, result, self._manifest, segments=(), run="race", tick=silent
        )
        figures = {figure.name: figure.value for figure in found.report.figures}
        return {"auc": figures["auc"], "rows": self._manifest.rows["test"]}

    def _run_folder(self, number: int) -> Path:
        return self._scratch / f"run-{number}"


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[TrainSide]:
    """Start Ray with the race's cores."""
    profile = Profile(name="race", cores=params["cores"], memory_gib=params["memory_gib"])
    with ray_session(profile, log_folder=Path(params["scratch"])):
        yield TrainSide(params, profile)
