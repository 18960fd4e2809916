"""Our search in the `search` race: `ray_apps.tune.search` in one Ray worker, Ray up and warm."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.catalog import Catalog
from arclight.progress import silent_tell
from arclight.spec_file import load_spec
from arclight.store import open_store
from arclight.study import open_study, trial_lines
from arclight.trials import Trials
from cluster.profiles import Profile
from cluster.ray_session import ray_session
from ray_apps.tune import search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arclight.study import Study
    from benchmarks.search_job import Curve

WARM_TRIALS = 4


class SearchSide:
    """Makes a study of its own each round."""

    def __init__(self, params: dict[str, Any], profile: Profile) -> None:
        self._catalog = Catalog(open_store(params["store"]))
        self._manifest = self._catalog.dataset(params["dataset"])
        self._scratch, self._profile = Path(params["scratch"]), profile
        file = self._scratch / "spec.yaml"
        file.write_text(json.dumps(params["spec"]), encoding="utf-8")
        self._spec = load_spec(file).spec
        self._curves: list[Curve] = []
        self._cores = int(params["cores"])

    def ready(self, number: int) -> None:
        """Every round has a seed, and so a study, of its own."""

    def run(self, number: int) -> Study:
        """Search from the first trial to the last."""
        train = self._spec.train.model_copy(update={"seed": number})
        assert self._spec.tune is not None
        count = self._spec.tune.trials if number else WARM_TRIALS
        tune = self._spec.tune.model_copy(update={"trials": count})
        spec = self._spec.model_copy(update={"train": train, "tune": tune})
        study, trials = open_study(self._catalog.store, self._manifest, spec, new=True)
        begun, curve = time.monotonic(), []

        def tick(_done: int, _all: int, _told: str) -> None:
            trials.read_on()
            seen = [trial.value for trial in trials.with_figure if trial.value is not None]
            if seen:  # of stopped ones too, as the peers' curves are
                curve.append((time.monotonic() - begun, max(seen)))

        found = search(
            self._catalog,
            self._manifest,
            spec,
            study,
            profile=self._profile,
            run_folder=self._scratch,
            tick=tick,
            tell=silent_tell,
        )
        curve.append((time.monotonic() - begun, found.value))  # whatever was seen before
        self._curves += [curve] if number else []
        self._core_s = self._cores * (time.monotonic() - begun)
        return study

    def facts(self, result: Study) -> dict[str, Any]:
        """Return the best AUC on valid, and how many rounds all trials took."""
        trials = Trials.read(trial_lines(self._catalog.store, result))
        best = result.best(trials)
        ended = trials.ended.values()
        return {
            "auc": best.value if best else None,
            "rows": self._manifest.rows["valid"],
            "trials": len(ended),
            "rounds": sum(trial.rounds for trial in ended),
            "boosting_share": sum(trial.train_s - trial.judge_s for trial in ended) / self._core_s,
            "curves": self._curves,
        }


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[SearchSide]:
    """Start Ray with the race's cores."""
    profile = Profile(name="race", cores=params["cores"], memory_gib=params["memory_gib"])
    with ray_session(profile, log_folder=Path(params["scratch"])):
        yield SearchSide(params, profile)
