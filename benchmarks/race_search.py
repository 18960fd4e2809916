"""Races `search`, `search-xgboost` and `search-flights`: a hundred configurations by halving.

The first two over a generated table, LightGBM's and XGBoost's, the third one LightGBM's over real
flights, which are split by time; Ray up and warm.
"""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING

from arclight.spec_file import load_spec
from arclight.tune_section import Tune
from benchmarks import ingest_job
from benchmarks.contender import Contender
from benchmarks.data import INGEST_CATEGORIES, content_digest, prepared, training_table
from benchmarks.harness import Comparison, Facts, Race, Verdict
from benchmarks.packages import installed
from benchmarks.published import publish_spec
from benchmarks.search_job import FIXED, SPACES, reached_s
from benchmarks.setting import Setting, scratch_for, spark_params
from examples.flights.fetch import FOLDER, fetch
from ray_apps.tuning.ask import Asker

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

ROWS = {"full": 250_000, "quick": 60_000, "tiny": 12_500}
BOOST_ROUNDS = {"full": 162, "quick": 81, "tiny": 9}
MOST_ROUNDS = 9
TRIALS = {"full": 100, "quick": 30, "tiny": 6}
FLIGHTS = FOLDER.with_name("flights.yaml")
AUC_GAP = {"full": 2e-3, "quick": 5e-3, "tiny": 5e-2}
"""Which of them are stopped is the scheduler's part, and some of it chance."""
PEERS = {
    "ray-tune": (
        "ray_tune",
        "Tuner with ASHAScheduler, a function, a report a round",
    ),
    "optuna-threads": (
        "optuna_search",
        "n_jobs=2, SuccessiveHalvingPruner, binned once",
    ),
    "optuna-processes": (
        "optuna_search",
        "2 processes, a journal file, binned once in each",
    ),
    "flaml": (
        "flaml_search",
        "tune.run with its own search (CFO) and its own scheduler, one trial at a time with both "
        "cores, binned once",
    ),
}
SLOW = {"lightgbm": {"ray-tune": 2}, "xgboost": {"ray-tune": 1, "flaml": 1}}
"""Rounds of one that takes five or ten times as long as the others."""
TARGETS = {
    "ray-tune": (6.0, 4.0),
    "optuna-threads": (1.3, None),
    "optuna-processes": (1.3, None),
    "flaml": (1.1, None),
}
FLAML = ("flaml==2.6.0",)


def make_race(setting: Setting) -> Race:
    """Generate the table, publish it as a dataset, and return the race."""
    data = prepared(setting.data, training_table, ROWS[setting.size])
    spec = ingest_job.spec_body(data, INGEST_CATEGORIES, "lightgbm", 1)
    return _race(setting, "search", data, spec, None)


def make_xgboost_race(setting: Setting) -> Race:
    """Generate the same table, publish it, and return the race of the other library."""
    data = prepared(setting.data, training_table, ROWS[setting.size])
    spec = ingest_job.spec_body(data, INGEST_CATEGORIES, "xgboost", 1)
    # never early, but it keeps the best round, which is the one that the peers report: the last
    # one of deep trees that learn fast is far from it
    return _race(setting, "search-xgboost", data, spec, BOOST_ROUNDS[setting.size])


def make_flights_race(setting: Setting) -> Race:
    """Fetch the flights, publish them as the example does, and return the race."""
    data = setting.data / "flights"
    fetch(data)
    asked = load_spec(FLIGHTS).spec.model_dump_json(by_alias=True, exclude_unset=True)
    spec = json.loads(asked)
    spec["sources"] = {name: {"path": str(data / name)} for name in spec["sources"]}
    spec["features"].pop("min_count")  # peers know no level that stands for rare ones
    # as above: by the last round the months to come are told worse
    spec["train"]["trainer"] = "lightgbm"
    return _race(setting, "search-flights", data, spec, BOOST_ROUNDS[setting.size])


def _race(
    setting: Setting, name: str, data: Path, spec: dict[str, Any], early_stopping: int | None
) -> Race:
    rounds, trials = BOOST_ROUNDS[setting.size], TRIALS[setting.size]
    library = spec["train"]["trainer"]
    spec["train"] = {
        "trainer": library, "rounds": rounds, "early_stopping": early_stopping,
        "metric": "auc", "params": FIXED[library],
    }  # fmt: skip
    published = publish_spec(setting, name, spec)
    job = published.job(threads=1, rounds=rounds)
    spec["tune"] = {
        "trials": trials, "sampler": "random", "scheduler": "asha", "space": SPACES[library]
    }  # fmt: skip
    tune = Tune.model_validate_json(json.dumps(spec["tune"]))
    asked = [configurations(tune, seed=number) for number in range(MOST_ROUNDS + 1)]

    def scratch(side: str) -> str:
        return str(scratch_for(setting, name, side))

    ours = Contender(
        name="arclight",
        module="benchmarks.ours.search",
        params={
            **spark_params(setting),
            "scratch": scratch("arclight"),
            "store": str(published.store),
            "dataset": published.ref,
            "spec": spec,
        },
        note="tune, sampler random, scheduler asha: two threads in one Ray worker",
    )

    flaml = {"PYTHONPATH": str(installed(setting.data / "packages", FLAML))}

    def peer(side: str, module: str, note: str) -> Contender:
        body: dict[str, Any] = {
            "scratch": scratch(side), "library": library, "job": job, "asked": asked,
            "lane": side.partition("-")[2],
        }  # fmt: skip
        return Contender(
            name=side,
            module=f"benchmarks.peers.{module}",
            params=body,
            note=note,
            rounds=SLOW[library].get(side),
            env=flaml if side == "flaml" else {},
        )

    return Race(
        name=name,
        metric="seconds from call to return, all trials from Parquet on, page cache warm",
        contenders=(ours, *(peer(side, *how) for side, how in PEERS.items())),
        comparisons=tuple(
            Comparison(ours="arclight", peer=side, target=target, floor=floor)
            for side, (target, floor) in TARGETS.items()
        ),
        judge=lambda one, other: judge(one, other, AUC_GAP[setting.size]),
        about={
            "rows": published.rows["train"],
            "boost_rounds": rounds,
            "trials": trials,
            "configurations": "the same on every side",
            "warm_up": "a few trials",
            "data_digest": content_digest(data),
        },
    )


def configurations(tune: Tune, *, seed: int) -> list[dict[str, Any]]:
    """Return the parameters that our search draws with a seed, for every side to try."""
    asker = Asker(tune, seed=seed, higher=True)
    return [asker.ask(number, (), {}) for number in range(tune.trials)]


def judge(ours: Facts, theirs: Facts, allowed: float) -> Verdict:
    """Compare the best AUC on valid, by the median of the searches that both sides made.

    Of one search alone it is chance: which configurations pass a rung depends on which came there
    first. How many rounds each side boosted in its last search is told.
    """
    both = min(len(side["curves"]) for side in (ours, theirs))
    found, wanted = (
        statistics.median(curve[-1][1] for curve in side["curves"][:both])
        for side in (ours, theirs)
    )
    behind = wanted - found
    seen = (
        f"best AUC on valid {found:.5f} against {wanted:.5f}, the median of {both} searches; "
        f"{ours['trials']} trials of {ours['rounds']:,} rounds in all against "
        f"{theirs['trials']} of {theirs['rounds']:,} in the last; "
        f"ours boosted in {ours['boosting_share']:.2f} of the cores' time"
    )
    every = [curve for side in (ours, theirs) for curve in side["curves"]]
    figure = min(curve[-1][1] for curve in every)
    mine, other = (
        statistics.median(reached_s(curve, figure) for curve in side["curves"])
        for side in (ours, theirs)
    )
    seen += (
        f"; to AUC {figure:.4f}, which each of {len(every)} searches reached, {mine:.1f} s "
        f"against {other:.1f} s"
    )
    return Verdict(holds=behind <= allowed and ours["trials"] == theirs["trials"], seen=seen)
