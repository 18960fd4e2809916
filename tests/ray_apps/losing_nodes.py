"""A program: train on some nodes, lose one, and leave in FOLDER/told.json what happened.

Usage: python losing_nodes.py FOLDER TRAINER NODES WORKERS(JSON) BACK(0 or 1) CORES
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from arclight.errors import ArclightError
from arclight.train_section import Train
from cluster.profiles import Profile, RayPlace
from ray_apps.train import train_model
from tests.ray_apps.make_dataset import make_dataset, make_spec

STORE_BYTES = 100_000_000
PLACE = Profile(name="attached", ray=RayPlace(address="127.0.0.1:1", token_path="unused"))


def main(folder: Path, trainer: str, count: int, workers: str, *, back: bool, cores: int) -> None:
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [_node(cluster, cores) for _ in range(count)]
    ray.init(address=cluster.address, log_to_driver=False)
    made = make_dataset(folder / "store", rows=(1200, 400, 100))
    train = Train.model_validate({"workers": json.loads(workers)}, strict=False)
    section = {"rounds": 200, "early_stopping": None, "checkpoint_every": "0s"}
    spec = make_spec(trainer=trainer, workers=train.workers, **section)
    told: dict[str, Any] = {"notes": [], "lost": 0, "refused": ""}

    def tick(done: int, _total: int | None, note: str) -> None:
        if note.startswith("valid") and done > 20 and not told["lost"]:
            told["lost"] = done
            busy = next(node for node in nodes if _raylet(node) in _parents_of_workers())
            cluster.remove_node(busy, allow_graceful=False)

    def run() -> None:
        bundle = train_model(
            made.catalog,
            made.manifest,
            spec,
            profile=PLACE,
            run_folder=folder,
            tick=tick,
            tell=told["notes"].append,
        )
        told["resumed"] = [one.model_dump() for one in bundle.resumed]
        told["rounds"], told["valid"] = bundle.rounds, bundle.train_metrics["valid"]

    try:
        run()
    except ArclightError as error:
        told["refused"] = error.message
        if back:
            _node(cluster, cores)
            run()
    # Ray itself prints to standard output
    (folder / "told.json").write_text(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()


def _node(cluster: Cluster, cores: int) -> Any:
    return cluster.add_node(num_cpus=cores, object_store_memory=STORE_BYTES)


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _parents_of_workers() -> set[int]:
    seen = (one.info for one in psutil.process_iter(["ppid", "cmdline"]))  # a zombie has no line
    return {one["ppid"] for one in seen if "GangWorker" in " ".join(one["cmdline"] or ())}


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        sys.argv[2],
        int(sys.argv[3]),
        sys.argv[4],
        back=sys.argv[5] == "1",
        cores=int(sys.argv[6]),
    )
