"""Who trains, first and after a loss: decided from the nodes there are, without a cluster."""

from __future__ import annotations

import itertools

import pytest

from arclight.errors import RefusedError
from arclight.spec import Train
from arclight.workers import WorkerRange
from cluster.profiles import Profile, RayPlace
from cluster.sizing import Crew
from ray_apps import crews
from ray_apps.crews import first_crew, next_crew
from tests.ray_apps.conftest import ONE_CORE

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
def test_who_goes_on_after_a_loss(nodes, workers, before, left, after):
    nodes(left)
    assert next_crew(before, Train(workers=workers), ATTACHED) == after


@pytest.mark.parametrize("workers", [2, WorkerRange(min=2, max=4)])
def test_two_are_not_put_where_one_was_and_a_new_node_is_waited_for(nodes, workers):
    nodes([16], [16], [16, 16])
    assert next_crew(Crew(2, 16), Train(workers=workers), ATTACHED) == Crew(2, 16)
    nodes([16])
    with pytest.raises(RefusedError, match=r"take 1; .* The same command goes on"):
        next_crew(Crew(2, 16), Train(workers=workers), ATTACHED)


def test_one_machine_goes_on_as_it_was():
    for train, profile in ((Train(workers=0), ATTACHED), (Train(workers=2), ONE_CORE)):
        assert next_crew(Crew(2, 1), train, profile) == Crew(2, 1)


def test_memory_is_that_of_the_nodes_that_take_workers(nodes, shared, tmp_path):
    manifest = shared("binary").manifest
    nodes([2, 32, 32])
    assert first_crew(Train(), manifest, ATTACHED, tmp_path) == Crew(2, 32)
    nodes([32, 32], memory=10_000)
    with pytest.raises(RefusedError, match="each of 2 workers needs"):
        first_crew(Train(), manifest, ATTACHED, tmp_path)
