"""What every race is set up with: its size, its folders, its cores and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cluster.machine import look_at_machine
from cluster.profiles import Profile
from cluster.sizing import plan_sizes

if TYPE_CHECKING:
    from pathlib import Path

Size = Literal["full", "quick", "tiny"]
MEMORY_GIB = 8.0
"""What a contender may plan with; several wait with their engines up while one works."""


@dataclass(frozen=True)
class Setting:
    """How a run is set up.

    Attributes:
        size: `full` measures, `quick` gives a first idea, `tiny` proves that everything runs.
        data: folder of generated tables, kept for the next run.
        work: folder of this run's output.
    """

    size: Size
    data: Path
    work: Path
    cores: int


def race_profile(setting: Setting) -> Profile:
    """Return the profile Arclight runs with: the race's cores, a share of the memory."""
    return Profile(name="race", cores=setting.cores, memory_gib=MEMORY_GIB)


def spark_params(setting: Setting) -> dict[str, Any]:
    """Return cores and heap, the same for Arclight and for every Spark peer."""
    sizes = plan_sizes(race_profile(setting), look_at_machine(setting.work))
    return {
        "cores": setting.cores,
        "memory_gib": MEMORY_GIB,
        "heap_mib": sizes.spark_driver_memory_mib,
    }


def scratch_for(setting: Setting, race: str, contender: str) -> Path:
    """Return a new folder for one contender's output."""
    folder = setting.work / f"{race}-{contender}"
    folder.mkdir(parents=True)
    return folder
