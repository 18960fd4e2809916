"""Where workers are put: each has its cores, and a GPU of its own where one is asked for."""

from __future__ import annotations

import os

import pytest
import ray

from arclight.errors import LostWorkerError
from cluster.sizing import Crew
from ray_apps.ray_nodes import check_room, cores_of_gpus
from ray_apps.ray_placed import placed

pytestmark = pytest.mark.ray


class Looks:
    """Says what its process was given."""

    def gpus(self) -> tuple[list[int], str | None]:
        return [int(one) for one in ray.get_gpu_ids()], os.environ.get("CUDA_VISIBLE_DEVICES")


def test_every_worker_has_a_gpu_of_its_own(ray_cluster):
    """The cluster is told that it has two; nothing is computed on them."""
    assert cores_of_gpus() == [1, 1]
    with placed(Looks, Crew(2, 1, gpus=1)) as actors:
        seen = ray.get([actor.gpus.remote() for actor in actors])
    assert sorted(seen) == [([0], "0"), ([1], "1")]


def test_a_worker_too_many_for_the_gpus_is_told(ray_cluster):
    check_room(Crew(2, 1, gpus=1))
    with pytest.raises(LostWorkerError, match=r"3 workers .* GPUs beside 1, 1 cores"):
        check_room(Crew(3, 1, gpus=1))
