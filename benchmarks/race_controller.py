"""Race `controller`: a search whose trials cost nothing, so that what is left is deciding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contender import Contender
from benchmarks.harness import Comparison, Facts, Race, Verdict
from benchmarks.search_job import SPACES
from benchmarks.setting import Setting, scratch_for

if TYPE_CHECKING:
    from typing import Any

TRIALS = {"full": 1000, "quick": 300, "tiny": 20}
SLOTS = {"full": 64, "quick": 64, "tiny": 4}
ROUNDS = 81


def make_race(setting: Setting) -> Race:
    """Return the race; there are no data."""
    trials = TRIALS[setting.size]
    body = {
        "trials": trials,
        "slots": SLOTS[setting.size],
        "rounds": ROUNDS,
        "space": SPACES["lightgbm"],
    }

    def side(name: str, module: str, note: str, **more: Any) -> Contender:
        scratch = str(scratch_for(setting, "controller", name))
        return Contender(
            name=name, module=module, params={**body, **more, "scratch": scratch}, note=note
        )

    peers = ("random", "tpe")
    sides = []
    for sampler in peers:
        asked = {"sampler": sampler}
        ours = "ray_apps.tuning.controller over the file of trials, an end forced to the disk"
        theirs = "a study in a journal file, SuccessiveHalvingPruner, report and should_prune"
        sides.append(side(f"arclight-{sampler}", "benchmarks.ours.controller", ours, **asked))
        sides.append(
            side(f"optuna-{sampler}", "benchmarks.peers.optuna_controller", theirs, **asked)
        )
    return Race(
        name="controller",
        metric=f"seconds from the first trial to the last, {SLOTS[setting.size]} threads, a trial "
        "that trains nothing and is looked at at most four times",
        contenders=tuple(sides),
        comparisons=tuple(
            Comparison(ours=f"arclight-{name}", peer=f"optuna-{name}", target=1.0)
            for name in peers
        ),
        judge=judge,
        about={"trials": trials, "warm_up": "a few trials"},
    )


def judge(ours: Facts, theirs: Facts) -> Verdict:
    """Both must have made every trial; what one of ours costs is told."""
    cost = (
        f"{ours['trials']:,} trials on both sides; ours: {ours['trial_ms']:.2f} ms a trial and "
        f"{ours['report_ms']:.3f} ms a report, of processor time"
    )
    return Verdict(holds=ours["trials"] == theirs["trials"], seen=cost)
