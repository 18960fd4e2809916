"""Which workers train: chosen before the first attempt, and again after each loss."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from arclight.contract import Contract
from arclight.errors import RefusedError, SpecError
from arclight.study import candidates_of
from arclight.workers import Bounds, bounds_of
from cluster.machine import look_at_machine
from cluster.sizing import (
    GIB,
    Crew,
    check_memory,
    need_bytes,
    places_of,
    plan_crew,
    plan_gpu_crew,
    plan_sizes,
)
from ray_apps.trainers import Values, load_trainer

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.manifest import DatasetManifest
    from arclight.train_section import Device, Train
    from arclight.tune_section import Tune
    from cluster.profiles import Profile

LABEL_BYTES = 8
TRIAL_BYTES, OUTPUT_BYTES = 28, 16
"""Of each row of train, what another trial at the same time holds: its place among the leaves, and
score, gradient and curvature of each number that is predicted."""
SPARE = 1.3
"""What is held, over the least that it can be: of what need not be held there is not so much."""
NODES_S = 60.0
"""How long a training that lost a node waits for enough others."""


def first_crew(train: Train, manifest: DatasetManifest, profile: Profile, folder: Path) -> Crew:
    """Return how many workers train, and with how many cores each, on the nodes there are.

    With `device: auto` each has a GPU where the fewest workers can have one and their library can
    use it.

    Args:
        train: what the spec asks for; `workers: 0` is one process without Ray.
        manifest: the dataset, which must fit.
        profile: how many cores; with an address Ray must be connected.
        folder: where the machine is looked at.

    Raises:
        RefusedError: they do not fit, or the rows do not, with the figures; or there is no GPU.
        SpecError: their library cannot use a GPU that is asked for.
    """
    check_device(train)
    device: Device = "cpu" if train.bins == "disk" else train.device
    crew, memory = _planned(train, bounds_of(train.workers), profile, folder, device)
    return _with_room(crew, train, manifest, memory)


def check_device(train: Train) -> None:
    """Refuse a GPU for a library that cannot use one.

    Raises:
        SpecError: with the reason.
    """
    reason = load_trainer(train.trainer).why_no_gpu() if train.device == "cuda" else None
    if reason is not None:
        raise SpecError(f"train.device must not be 'cuda': {reason}.")


class Room(Contract):
    """What of a search is held at the same time on each node.

    Attributes:
        at_once: trials.
        row_bytes: trainer -> what of a row of train its bins take at the very least.
        bins_bytes: bins of another way beside the first are kept up to so much of all of them.
    """

    at_once: int
    row_bytes: dict[str, int]
    bins_bytes: int


def search_crew(
    train: Train, tune: Tune, manifest: DatasetManifest, profile: Profile, folder: Path
) -> tuple[Crew, Room]:
    """Return on how many nodes trials are made, with how many cores each, and how many at once.

    Trials run on no GPU: one a core, each with one thread, or as many as memory has room for
    beside the rows that are binned. Networks one after another, and with all threads where there
    is nothing else: they draw from one generator in a process.

    Args:
        train: what every trial has; `workers: 0` is one process without Ray.
        tune: how many nodes at most, and how many folds, each of which is binned by itself.
        manifest: the dataset, which must fit into each node.
        profile: how many cores; with an address Ray must be connected.
        folder: where the machine is looked at.

    Raises:
        RefusedError: the rows do not fit, or not so many trials beside them, with the figures.
    """
    crew, memory = _planned(train, Bounds(1, tune.nodes), profile, folder, "cpu")
    tried, rows = _tried(train, tune), manifest.rows["train"]
    copies, is_even = _copies(tune, manifest), train.imbalance == "downsample"
    most = int(max(_least_row_bytes(one, manifest) for one in tried) * copies)
    check_memory(rows, most, Crew(1, crew.threads), memory)
    # of evened-out rows nobody knows yet how many there are
    outputs = max(1, len(manifest.plan.classes))
    # a trial may have a copy of LightGBM's bins by rows; `most` has the first one's
    copied = [_least_row_bytes(one, manifest) // 2 for one in tried if one.trainer == "lightgbm"]
    taken = TRIAL_BYTES + OUTPUT_BYTES * outputs + max(copied, default=0)
    each = 0 if is_even else rows * taken
    at_once = min(tune.at_once or crew.threads, crew.threads)
    if {one.trainer for one in tried} == {"torch"}:
        at_once = 1
    elif each and tune.at_once:
        _check_at_once(at_once, rows * most, each, memory)
    elif each:
        at_once = max(1, min(at_once, 1 + int((memory / SPARE - rows * most) // each)))
    full = [one.model_copy(update={"imbalance": "none"}) for one in tried]
    return crew, Room(
        at_once=at_once,
        row_bytes={one.trainer: _least_row_bytes(one, manifest) for one in full},
        bins_bytes=max(0, int(memory / SPARE - (at_once - 1) * each)),
    )


def next_crew(before: Crew, train: Train, manifest: DatasetManifest, profile: Profile) -> Crew:
    """Return who goes on after a loss: workers of as many cores, on the nodes that are left.

    Two workers are not put where one was, since its memory is full already. When too few nodes
    are left, for the workers or for the rows, others get a minute to come; then `auto` takes what
    there is. Bins that were on disk stay there.

    Raises:
        RefusedError: too few nodes, or the rows do not fit into them, with the figures.
    """
    if train.workers == 0 or profile.ray.address is None:
        return before  # one machine, which is still there
    bounds, deadline = bounds_of(train.workers), time.monotonic() + NODES_S
    seen, plan = (_gpus, plan_gpu_crew) if before.gpus else (_nodes, plan_crew)

    def planned(each: int | None) -> Crew:
        crew = replace(plan(seen(), bounds, cores_per_worker=each), bins=before.bins)
        return _with_room(crew, train, manifest, _memory_bytes(crew))

    while time.monotonic() < deadline:
        with suppress(RefusedError):
            return planned(before.threads)
        time.sleep(1.0)
    try:
        is_any = train.workers == "auto"
        return planned(profile.ray.cores_per_worker if is_any else before.threads)
    except RefusedError as error:
        again = "The same command goes on from the checkpoint."
        raise RefusedError(f"{error.message} {again}") from error


def _with_room(crew: Crew, train: Train, manifest: DatasetManifest, memory: float) -> Crew:
    """Return a crew with its bins where there is room for them.

    Raises:
        RefusedError: the rows do not fit, with the figures.
    """
    rows, each = manifest.rows["train"], _least_row_bytes(train, manifest)
    can_spill = load_trainer(train.trainer).bins_on_disk and not crew.gpus and train.bins == "auto"
    is_asked = "disk" in (crew.bins, train.bins)
    if is_asked or (can_spill and need_bytes(rows, each, crew) > memory):
        crew = replace(crew, bins="disk")
        each = _least_row_bytes(train, manifest, on_disk=True)
    check_memory(rows, each, crew, memory)
    return crew


def _planned(
    train: Train, bounds: Bounds, profile: Profile, folder: Path, device: Device
) -> tuple[Crew, float]:
    """Return who works, and the memory that the least node has for one of them."""
    machine = look_at_machine(folder)
    sizes, each = plan_sizes(profile, machine), profile.ray.cores_per_worker
    is_own = train.workers == 0 or profile.ray.address is None
    gpus: list[int] = []
    if device != "cpu" and load_trainer(train.trainer).why_no_gpu() is None:
        gpus = places_of(sizes.cores, machine.gpus) if is_own else _gpus()
    if device == "cuda" and not gpus:
        raise RefusedError(
            "train.device: a worker must have a GPU for 'cuda', but none is seen here; use `auto` "
            "or `cpu`, or a profile of a cluster with GPUs."
        )
    if train.workers == 0:
        crew = Crew(1, each or sizes.cores, min(1, len(gpus)))
    else:
        nodes = [sizes.cores] if is_own else _nodes()
        crew = _on_gpus(gpus, bounds, each, device) or plan_crew(
            nodes, bounds, cores_per_worker=each
        )
    return crew, sizes.memory_bytes / crew.workers if is_own else _memory_bytes(crew)


def _on_gpus(gpus: list[int], bounds: Bounds, each: int | None, device: Device) -> Crew | None:
    """Return the workers that have a GPU each; None: cores are to do it.

    Raises:
        RefusedError: too few have one, where one was asked for.
    """
    if not gpus:
        return None
    try:
        return plan_gpu_crew(gpus, bounds, cores_per_worker=each)
    except RefusedError:
        if device == "cuda":
            raise
        return None


def _check_at_once(at_once: int, bins: float, each: float, memory: float) -> None:
    """Refuse more trials at the same time than memory has room for.

    Raises:
        RefusedError: with the figures.
    """
    need = bins + (at_once - 1) * each
    if need > memory:
        raise RefusedError(
            f"tune.at_once: {at_once:,} trials must fit into memory beside the rows that are "
            f"binned: they need {need / GIB:.1f} GiB at least, and a node has "
            f"{memory / GIB:.1f} GiB; leave it out, or use at most "
            f"{1 + int((memory - bins) // each):,}."
        )


def _copies(tune: Tune, manifest: DatasetManifest) -> float:
    """Return how often a search holds each row of train on the average: folds leave some out."""
    if tune.folds is None:
        return 1.0
    return tune.folds / 2 if manifest.proof.bounds else tune.folds - 1


def _tried(train: Train, tune: Tune) -> list[Train]:
    """Return the train section with each trainer that a search tries."""
    return [train.model_copy(update={"trainer": name}) for name in candidates_of(train, tune)]


def _least_row_bytes(train: Train, manifest: DatasetManifest, *, on_disk: bool = False) -> int:
    """Return what a worker holds of a row of train on the average, at the very least."""
    if train.imbalance == "downsample":
        return LABEL_BYTES  # most rows are left out
    rows = max(1, manifest.rows["train"])
    found = [s for s in manifest.summaries["train"] if s.name in manifest.plan.names]
    values = Values(
        all=len(manifest.plan.names),
        known=sum(1 - s.nulls / rows for s in found),
        told=sum(1 - (s.nulls + s.zeros) / rows for s in found if not s.is_constant),
    )
    return int(load_trainer(train.trainer).least_row_bytes(values, on_disk=on_disk))


def _nodes() -> list[int]:
    from ray_apps.ray_nodes import cores_of_nodes  # noqa: PLC0415 -- workers=0 needs no Ray

    return cores_of_nodes()


def _gpus() -> list[int]:
    from ray_apps.ray_nodes import cores_of_gpus  # noqa: PLC0415

    return cores_of_gpus()


def _memory_bytes(crew: Crew) -> float:
    from ray_apps.ray_nodes import least_memory_bytes  # noqa: PLC0415

    return least_memory_bytes(crew)
