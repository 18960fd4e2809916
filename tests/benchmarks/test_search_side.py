"""What our side of the search races tells of a search, on a small one."""

from __future__ import annotations

import pytest

from benchmarks.ours.search import SearchSide
from cluster.profiles import Profile
from tests.ray_apps.make_dataset import make_dataset

SPEC = {
    "name": "demo",
    "task": "binary",
    "sources": {"t": {"path": "t"}},
    "etl": {"key": ["id"], "label": "label"},
    "train": {"trainer": "lightgbm", "rounds": 400, "early_stopping": None},
    "tune": {
        "trials": 40,
        "sampler": "random",
        "scheduler": "asha",
        "space": {"num_leaves": {"int": [3, 15]}},
    },
}


@pytest.mark.ray
def test_the_seconds_to_a_figure_are_those_after_which_a_trial_had_it(ray_cluster, tmp_path):
    made = make_dataset(tmp_path / "store", rows=(6000, 2000, 100))
    params = {
        "store": str(tmp_path / "store"),
        "dataset": made.manifest.ref,
        "scratch": str(tmp_path),
        "spec": SPEC,
        "cores": 2,
    }
    side = SearchSide(params, Profile(name="race", cores=2, memory_gib=2.0))
    facts = side.facts(side.run(1))
    assert (facts["trials"], len(facts["curves"])) == (40, 1)
    seconds, figures = zip(*facts["curves"][0], strict=True)
    assert seconds[-2] > seconds[-1] / 2  # to its end, not at its beginning alone
    assert list(seconds) == sorted(seconds)
    assert max(figures) >= facts["auc"]
