"""Datasets and models that many tests only read: made once a run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from arclight.catalog import Catalog
from arclight.progress import silent, silent_tell
from arclight.store import Store
from cluster.profiles import Profile
from cluster.sizing import Crew
from ray_apps.fit_files import REQUEST
from ray_apps.train import find_origin, fit_request, train_model
from tests.ray_apps.make_dataset import Made, make_dataset, make_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arclight.bundle import ModelBundle, SearchResult
    from arclight.progress import Tell, Tick
    from arclight.spec import Spec

# one thread: with more, OpenMP spins on cores that other tests use
ONE_CORE = Profile(name="one", cores=1, memory_gib=4.0)


def train_here(
    made: Made,
    spec: Spec,
    folder: Path,
    *,
    profile: Profile = ONE_CORE,
    tick: Tick = silent,
    tell: Tell = silent_tell,
    found: SearchResult | None = None,
) -> ModelBundle:
    """Train as a command does; the folder is the run's."""
    return train_model(
        made.catalog,
        made.manifest,
        spec,
        profile=profile,
        run_folder=folder,
        tick=tick,
        tell=tell,
        origin=find_origin(made.catalog, made.manifest, spec),
        found=found,
    )


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Return the dataset of a task; tests must not write into its store."""
    made: dict[str, Made] = {}

    def get(task: str = "binary") -> Made:
        if task not in made:
            made[task] = make_dataset(tmp_path_factory.mktemp(task) / "store", task=task)
        return made[task]

    return get


@pytest.fixture(scope="session")
def trained(
    shared: Callable[[str], Made], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[Made, ModelBundle]]:
    """Return a dataset and the published model of a task and trainer."""
    models: dict[tuple[str, str], ModelBundle] = {}

    def get(task: str, trainer: str) -> tuple[Made, ModelBundle]:
        made = shared(task)
        if (task, trainer) not in models:
            models[task, trainer] = train_model(
                made.catalog,
                made.manifest,
                make_spec(task, trainer=trainer),
                profile=ONE_CORE,
                run_folder=tmp_path_factory.mktemp("run"),
                tick=silent,
            )
        return made, models[task, trainer]

    return get


@pytest.fixture
def fit_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a dataset and the folder of a training's request on it."""

    def make(
        name: str = "lightgbm", *, workers: int = 1, label: object = None, **section: object
    ) -> Path:
        made = make_dataset(tmp_path / "store", rows=(400, 100, 100), label=label)
        folder = tmp_path / "work"
        folder.mkdir()
        spec = make_spec(trainer=name, workers=workers, **section)
        request = fit_request(made.catalog, made.manifest, spec, Crew(workers, 1))
        (folder / REQUEST).write_text(request.to_json())
        return folder

    return make


@pytest.fixture
def own(
    trained: Callable[[str, str], tuple[Made, ModelBundle]], tmp_path: Path
) -> Callable[[str, str], tuple[Made, ModelBundle]]:
    """Return the same, in a copy of the store that the test may damage."""

    def get(task: str, trainer: str) -> tuple[Made, ModelBundle]:
        made, bundle = trained(task, trainer)
        root = tmp_path / "own-store"
        shutil.copytree(made.catalog.store.root, root)
        return replace(made, catalog=Catalog(Store(root))), bundle

    return get
