"""A program: search on three nodes, lose one, and leave in FOLDER/told.json what happened."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from arclight.study import open_study, trial_lines
from arclight.trials import Trials
from ray_apps.tune import search
from tests.ray_apps.losing_nodes import PLACE, STORE_BYTES
from tests.ray_apps.make_dataset import make_dataset
from tests.ray_apps.test_tune import spec_of

TUNE = {"trials": 40, "sampler": "random", "scheduler": "none"}


def main(folder: Path) -> None:
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES) for _ in range(3)]
    ray.init(address=cluster.address, log_to_driver=False)
    made = make_dataset(folder / "store", rows=(1200, 400, 100))
    spec = spec_of("lightgbm", TUNE, rounds=400, workers="auto")
    study, _ = open_study(made.catalog.store, made.manifest, spec)
    told: dict[str, Any] = {"notes": [], "lost": 0}

    def tick(done: int, _total: int | None, _note: str) -> None:
        if done >= 6 and not told["lost"]:
            parents = _parents_of_hosts()
            told["nodes"] = len(parents)
            told["lost"] = done
            busy = next(n for n in nodes if _raylet(n) in parents)
            cluster.remove_node(busy, allow_graceful=False)

    search(
        made.catalog, made.manifest, spec, study,
        profile=PLACE, run_folder=folder, tick=tick, tell=told["notes"].append,
    )  # fmt: skip
    ended = Trials.read(trial_lines(made.catalog.store, study)).ended.values()
    told["ended"] = len(ended)
    told["states"] = sorted({trial.state for trial in ended})
    told["hosts"] = sorted({trial.host for trial in ended})
    (folder / "told.json").write_text(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _parents_of_hosts() -> set[int]:
    seen = (one.info for one in psutil.process_iter(["ppid", "cmdline"]))  # a zombie has no line
    return {one["ppid"] for one in seen if "HostProcess" in " ".join(one["cmdline"] or ())}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
