"""Where workers are put: each has its cores, and a GPU of its own where one is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from arclight.errors import LostWorkerError
from cluster.sizing import Crew
from ray_apps.ray_nodes import check_room, cores_of_gpus
from ray_apps.ray_placed import placed

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.ray


class Looks:
    """Says what its process was given."""

    def gpus(self) -> tuple[list[int], str | None]:
        return [int(one) for one in ray.get_gpu_ids()], os.environ.get("CUDA_VISIBLE_DEVICES")


THREE_NODES = """
import collections, json, ray
from ray.cluster_utils import Cluster
from cluster.sizing import Crew
from ray_apps.ray_placed import placed

class Looks:
    def node(self):
        return ray.get_runtime_context().get_node_id()

cluster = Cluster()
for cores in (4, 4, 8):
    cluster.add_node(num_cpus=cores, object_store_memory=100_000_000)
ray.init(address=cluster.address, log_to_driver=False)
with placed(Looks, Crew(6, 1)) as actors:
    nodes = ray.get([actor.node.remote() for actor in actors])
print("counts", json.dumps(sorted(collections.Counter(nodes).values())))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.fault
@pytest.mark.timeout(200)
def test_more_workers_than_nodes_are_spread_evenly():
    """Ray's own way would be one on each node, and all the rest on the largest."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", THREE_NODES]
    answer = subprocess.run(
        command, cwd=ROOT, env=kept, capture_output=True, text=True, timeout=150, check=True
    )
    assert "counts [2, 2, 2]" in answer.stdout


def test_a_node_that_is_waited_for_is_gone(ray_cluster):
    (node,) = (one["NodeID"] for one in ray.nodes() if one["Alive"])
    check_room(Crew(2, 1), [node, node])
    with pytest.raises(LostWorkerError, match="A node is gone"):
        check_room(Crew(2, 1), [node, "another"])


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
