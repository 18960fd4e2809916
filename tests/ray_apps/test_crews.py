"""Who trains, first and after a loss: decided from the nodes there are, without a cluster."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from arclight.errors import LostWorkerError, RefusedError, SpecError
from arclight.train_section import Train
from arclight.tune_section import Tune
from arclight.workers import WorkerRange
from cluster.machine import Machine
from cluster.profiles import Profile, RayPlace
from cluster.sizing import Crew
from ray_apps import crews, ray_nodes
from ray_apps.crews import Room, first_crew, next_crew, search_crew
from ray_apps.train import check_training
from ray_apps.trainers import load_trainer
from tests.ray_apps.conftest import ONE_CORE
from tests.ray_apps.make_dataset import make_spec

ATTACHED = Profile(name="x", ray=RayPlace(address="10.0.0.1:1", token_path="t"))


@pytest.fixture
def nodes(monkeypatch):
    """Return a function that says which nodes are seen, look by look; a look takes a second."""
    clock = itertools.count()

    def see(*looks: list[int], memory: float = 1e12) -> None:
        left = itertools.chain(looks[:-1], itertools.repeat(looks[-1]))
        monkeypatch.setattr(crews, "_nodes", lambda: next(left))
        monkeypatch.setattr(crews, "_memory_bytes", lambda _cores: memory)
        monkeypatch.setattr(crews.time, "monotonic", lambda: float(next(clock)))
        monkeypatch.setattr(crews.time, "sleep", lambda _s: None)

    return see


@pytest.mark.parametrize(
    ("workers", "before", "left", "after"),
    [
        ("auto", Crew(3, 8), [8, 8], Crew(2, 8)),
        (WorkerRange(min=1, max=4), Crew(3, 8), [8], Crew(1, 8)),
        (2, Crew(2, 8), [8, 8], Crew(2, 8)),
        ("auto", Crew(2, 32), [2], Crew(1, 2)),  # after a minute, what there is
    ],
)
def test_who_goes_on_after_a_loss(nodes, shared, workers, before, left, after):
    nodes(left)
    manifest = shared("binary").manifest
    assert next_crew(before, Train(workers=workers), manifest, ATTACHED) == after


@pytest.mark.parametrize("workers", [2, WorkerRange(min=2, max=4)])
def test_two_are_not_put_where_one_was_and_a_new_node_is_waited_for(nodes, shared, workers):
    manifest = shared("binary").manifest
    nodes([16], [16], [16, 16])
    assert next_crew(Crew(2, 16), Train(workers=workers), manifest, ATTACHED) == Crew(2, 16)
    nodes([16])
    with pytest.raises(RefusedError, match=r"take 1; .* The same command goes on"):
        next_crew(Crew(2, 16), Train(workers=workers), manifest, ATTACHED)


@pytest.mark.parametrize(
    ("section", "spare", "bins"),
    [({}, 0, "disk"), ({"bins": "memory"}, 0, None), ({"bins": "memory"}, 1, "memory"),
     ({"trainer": "lightgbm"}, 0, None), ({"trainer": "lightgbm"}, 1, "memory")],
)  # fmt: skip
def test_fewer_that_go_on_must_have_room_for_the_rows(nodes, shared, section, spare, bins):
    """Four workers have it, the two that are left have not, unless a node comes to them."""
    manifest, train = shared("binary").manifest, Train(**section)
    whole = manifest.rows["train"] * crews._least_row_bytes(train, manifest)
    nodes([8] * 4, memory=whole / 3)
    before = first_crew(train, manifest, ATTACHED, Path())
    assert before == Crew(4, 8)
    nodes([8] * 2, [8] * (2 + spare), memory=whole / 3 + 99)
    if bins is None:
        with pytest.raises(RefusedError, match=r"each of 2 workers .* The same command"):
            next_crew(before, train, manifest, ATTACHED)
        return
    assert next_crew(before, train, manifest, ATTACHED) == Crew(2 + spare, 8, bins=bins)


@pytest.mark.parametrize(
    ("section", "bins"),
    [({}, "disk"), ({"bins": "disk"}, "disk"), ({"bins": "memory"}, None),
     ({"trainer": "lightgbm"}, None)],
)  # fmt: skip
def test_bins_go_to_disk_where_memory_has_no_room_for_them(nodes, shared, section, bins):
    """16 bytes a row are held whatever the features are."""
    manifest = shared("binary").manifest
    rows = manifest.rows["train"]
    nodes([32], memory=rows * 17.0)
    if bins is None:
        with pytest.raises(RefusedError, match="must fit into memory"):
            first_crew(Train(**section), manifest, ATTACHED, Path())
        return
    crew = first_crew(Train(**section), manifest, ATTACHED, Path())
    assert crew == Crew(1, 32, bins="disk")
    assert next_crew(crew, Train(**section), manifest, ATTACHED) == crew
    nodes([32], memory=rows * 15.0)
    with pytest.raises(RefusedError, match="16 bytes each"):
        first_crew(Train(**section), manifest, ATTACHED, Path())


@pytest.mark.parametrize(
    ("how", "times"),
    [
        ({"space": {"max_depth": {"int": [2, 4]}}}, 1),
        ({"space": {"max_depth": {"int": [2, 4]}}, "folds": 5}, 4),
    ],
)
def test_a_search_with_folds_needs_the_memory_of_as_many_trainings(nodes, shared, how, times):
    manifest, tune = shared("binary").manifest, Tune.model_validate_json(json.dumps(how))
    each = crews._least_row_bytes(Train(), manifest)
    whole = float(manifest.rows["train"] * each * times)
    nodes([32, 32], memory=whole)
    assert search_crew(Train(), tune, manifest, ATTACHED, Path())[0] == Crew(2, 32)
    nodes([32], memory=whole - 1)
    with pytest.raises(RefusedError, match="must fit into memory"):
        search_crew(Train(), tune, manifest, ATTACHED, Path())


def test_a_search_among_trainers_needs_what_the_largest_of_them_does(nodes, shared):
    manifest = shared("binary").manifest
    tune = Tune.model_validate({"trainers": "auto"})
    small, large = (
        manifest.rows["train"] * crews._least_row_bytes(Train(trainer=name), manifest)
        for name in ("lightgbm", "torch")
    )
    assert small < large
    nodes([32], memory=float(large))
    assert search_crew(Train(trainer="lightgbm"), tune, manifest, ATTACHED, Path())
    nodes([32], memory=float(large - 1))
    with pytest.raises(RefusedError, match="must fit into memory"):
        search_crew(Train(trainer="lightgbm"), tune, manifest, ATTACHED, Path())


@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm"])
def test_as_many_trials_run_at_once_as_memory_has_room_for(nodes, shared, trainer):
    manifest, train = shared("binary").manifest, Train(trainer=trainer)
    rows, each = manifest.rows["train"], crews._least_row_bytes(train, manifest)
    copied = each // 2 if trainer == "lightgbm" else 0  # of its bins, by rows
    trial = crews.TRIAL_BYTES + crews.OUTPUT_BYTES + copied

    def room(trials: float, **section: object) -> Room:
        nodes([32], memory=rows * (each + (trials - 1) * trial) * crews.SPARE + 1)
        given = {"space": {"max_depth": {"int": [2, 4]}}, **section}
        tune = Tune.model_validate_json(json.dumps(given))
        return search_crew(train, tune, manifest, ATTACHED, Path())[1]

    assert [room(n).at_once for n in (1, 1.9, 2, 7.5, 32, 99)] == [1, 1, 2, 7, 32, 32]
    assert room(99, at_once=4).at_once == 4
    with pytest.raises(
        RefusedError, match=r"tune\.at_once: 16 trials must fit .* at most [3-9]\."
    ):
        room(4, at_once=16)
    # what trials have of their own is no room for bins
    assert room(1).bins_bytes == pytest.approx(rows * each, rel=0.01)
    assert room(7.5).bins_bytes == pytest.approx(rows * (each + trial / 2), rel=0.01)


class WithGpus:
    """A trainer whose library could train on a GPU."""

    def __getattr__(self, name: str) -> object:
        return getattr(load_trainer("xgboost"), name)

    def why_no_gpu(self) -> None:
        return None


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that says beside how many cores each GPU stands."""
    monkeypatch.setattr(crews, "load_trainer", lambda _name: WithGpus())
    return lambda found: monkeypatch.setattr(crews, "_gpus", lambda: found)


@pytest.mark.parametrize(
    ("section", "found", "crew"),
    [
        ({}, [], Crew(2, 32)),
        ({}, [8, 8, 8, 8], Crew(4, 8, gpus=1)),
        ({"workers": 2}, [8, 8, 8, 8], Crew(2, 8, gpus=1)),
        ({"workers": 2}, [8], Crew(2, 32)),  # auto: not one with, one without
        ({"device": "cpu"}, [8], Crew(2, 32)),
        ({"device": "cuda"}, [8], Crew(1, 8, gpus=1)),
        ({"bins": "disk"}, [8, 8], Crew(2, 32, bins="disk")),  # of cores alone
    ],
)
def test_gpus_are_used_where_every_worker_can_have_one(nodes, gpus, shared, section, found, crew):
    nodes([32, 32])
    gpus(found)
    manifest = shared("binary").manifest
    assert first_crew(Train(**section), manifest, ATTACHED, Path()) == crew
    if crew.gpus:
        assert next_crew(crew, Train(**section), manifest, ATTACHED) == crew


@pytest.mark.parametrize("workers", ["auto", 0, 1])
def test_a_gpu_that_is_not_there_is_refused(nodes, gpus, shared, monkeypatch, workers):
    nodes([32, 32])
    gpus([])
    monkeypatch.setattr(crews, "look_at_machine", lambda _folder: Machine(2, 2**34, 2**30, 2**34))
    train = Train(device="cuda", workers=workers)
    with pytest.raises(RefusedError, match=r"train\.device: .* GPU for 'cuda', but none is seen"):
        first_crew(train, shared("binary").manifest, ATTACHED, Path())


@pytest.mark.parametrize(
    ("trainer", "reason"),
    [
        ("lightgbm", "LightGBM's published packages train on cores"),
        ("xgboost", "install `xgboost` for `xgboost-cpu`"),
        ("torch", "the installed torch is built for cores"),
    ],
)
def test_a_gpu_for_a_library_that_has_none_is_refused(shared, trainer, reason):
    if trainer != "lightgbm" and load_trainer(trainer).why_no_gpu() is None:
        pytest.skip("this build has kernels for a GPU")
    made = shared("binary")
    spec = make_spec(trainer=trainer, device="cuda")
    with pytest.raises(SpecError, match=rf"train\.device must not be 'cuda': .*{reason}"):
        check_training(made.catalog, made.manifest, spec, None)


def test_one_machine_goes_on_as_it_was(shared):
    manifest = shared("binary").manifest
    for train, profile in ((Train(workers=0), ATTACHED), (Train(workers=2), ONE_CORE)):
        assert next_crew(Crew(2, 1), train, manifest, profile) == Crew(2, 1)


def test_memory_is_that_of_the_nodes_that_take_workers(nodes, shared, tmp_path):
    manifest = shared("binary").manifest
    nodes([2, 32, 32])
    assert first_crew(Train(), manifest, ATTACHED, tmp_path) == Crew(2, 32)
    nodes([32, 32], memory=10_000)
    with pytest.raises(RefusedError, match="each of 2 workers needs"):
        first_crew(Train(), manifest, ATTACHED, tmp_path)


def test_auto_takes_cores_where_too_few_stand_beside_a_gpu(nodes, gpus, shared):
    nodes([16])
    gpus([4, 4, 4, 4])
    each = ATTACHED.ray.model_copy(update={"cores_per_worker": 8})
    profile = ATTACHED.model_copy(update={"ray": each})
    assert first_crew(Train(), shared("binary").manifest, profile, Path()) == Crew(1, 8)
    with pytest.raises(RefusedError, match="must have a GPU and 8 cores each"):
        first_crew(Train(device="cuda"), shared("binary").manifest, profile, Path())


NODES = {
    "a": {"CPU": 8.0, "GPU": 1.0, "memory": 80.0},
    "b": {"CPU": 64.0, "GPU": 4.0, "memory": 640.0},
    "c": {"CPU": 64.0, "memory": 10.0},
}


@pytest.mark.parametrize(
    ("crew", "memory"),
    [
        (Crew(1, 8, gpus=1), 80.0),
        (Crew(5, 8, gpus=1), 80.0),
        (Crew(2, 16, gpus=1), 320.0),  # two of them on the larger node
        (Crew(4, 16, gpus=1), 160.0),
        (Crew(2, 8), 10.0),
        (Crew(3, 8), 10.0),
        (Crew(4, 8), 10.0),  # the other large node takes two of them
        (Crew(5, 8), 5.0),
        (Crew(17, 8), 1.25),  # where there is room for eight
    ],
)
def test_workers_of_one_node_share_its_memory(monkeypatch, crew, memory):
    def alive(cores):
        return {node: has for node, has in NODES.items() if has["CPU"] >= cores}

    monkeypatch.setattr(ray_nodes, "_alive", alive)
    assert ray_nodes.least_memory_bytes(crew) == memory


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_workers_of_ones_own_machine_share_its_memory(shared, monkeypatch, workers):
    monkeypatch.setattr(crews, "look_at_machine", lambda _folder: Machine(4, 2**33, 2**30, 2**34))
    train, four = Train(trainer="lightgbm", workers=workers), Profile(name="four", memory_gib=4.0)
    manifest = shared("binary").manifest
    each = crews._least_row_bytes(train, manifest)

    def plan(gib: int) -> Crew:
        rows = {**manifest.rows, "train": gib * 2**30 // each}
        monkeypatch.setattr(crews, "_least_row_bytes", lambda *_a, **_k: each)
        return first_crew(train, manifest.model_copy(update={"rows": rows}), four, Path())

    assert plan(3).workers == max(1, workers)
    with pytest.raises(RefusedError, match=f"each of {max(1, workers)} workers needs"):
        plan(6)


def test_one_gpu_is_not_room_for_two(monkeypatch):
    monkeypatch.setattr(ray_nodes, "_alive", lambda _: {"a": {"CPU": 16.0, "GPU": 1.0}})
    ray_nodes.check_room(Crew(1, 8, gpus=1))
    ray_nodes.check_room(Crew(2, 8))
    with pytest.raises(LostWorkerError, match=r"2 workers .* GPUs beside 16 cores"):
        ray_nodes.check_room(Crew(2, 8, gpus=1))
