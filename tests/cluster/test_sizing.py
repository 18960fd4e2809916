from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arclight.errors import RefusedError
from arclight.workers import Bounds, WorkerRange, bounds_of
from cluster.machine import Machine
from cluster.profiles import Profile, SparkPlace
from cluster.sizing import (
    GIB,
    MIB,
    Crew,
    check_memory,
    places_of,
    plan_crew,
    plan_gpu_crew,
    plan_sizes,
    spread_over,
)

BIG = Machine(cores=16, memory_bytes=64 * GIB, shm_bytes=32 * GIB, disk_free_bytes=100 * GIB)


def machine(cores: int = 2, memory_gib: float = 8, shm_mib: int = 4096) -> Machine:
    return Machine(cores, int(memory_gib * GIB), shm_mib * MIB, 100 * GIB)


@pytest.mark.parametrize(
    ("memory_gib", "heap_mib"),
    [(2, 819), (5, 2048), (8, 3276), (24, 9830), (64, 26214), (512, 31 * 1024)],
)
def test_spark_gets_two_fifths_of_the_memory_up_to_a_cap(memory_gib: float, heap_mib: int) -> None:
    sizes = plan_sizes(Profile(name="x"), machine(memory_gib=memory_gib))
    assert sizes.spark_driver_memory_mib == heap_mib


@pytest.mark.parametrize(
    ("memory_gib", "shm_mib", "store_mib"),
    [
        (2, 4096, 96),  # never under what Ray accepts
        (24, 24 * 1024, 491),  # 2%
        (512, 256 * 1024, 1024),  # never over 1 GiB
        (64, 512, 256),  # never over half of shared memory
        (64, 64, 96),  # a container's default /dev/shm: Ray spills to disk rather than refuse
    ],
)
def test_the_object_store_is_small(memory_gib: float, shm_mib: int, store_mib: int) -> None:
    sizes = plan_sizes(Profile(name="x"), machine(memory_gib=memory_gib, shm_mib=shm_mib))
    assert sizes.ray_object_store_bytes // MIB == store_mib


@pytest.mark.parametrize(
    ("nodes", "workers", "each", "crew"),
    [
        ([16], "auto", None, (1, 16)),
        ([16], 1, None, (1, 16)),
        ([16], 2, None, (2, 8)),
        ([16], 3, None, (3, 5)),
        ([16], 2, 3, (2, 3)),
        ([2, 32, 32], "auto", None, (2, 32)),  # the small one would hold the others back
        ([8, 8, 8, 32], "auto", None, (1, 32)),  # as many cores without a word between them
        ([6, 6, 6, 6, 10, 20, 40], "auto", None, (7, 6)),
        ([8, 8, 8, 8, 32], (1, 2), None, (1, 32)),
        ([2, 32, 32], 3, None, (3, 16)),  # the small one would cost seven eighths of the cores
        ([16, 4, 4], 3, None, (3, 4)),  # not all on one node, though that has more cores
        ([16, 4, 4], (2, 3), None, (3, 4)),
        ([64, 16, 16], 3, None, (3, 16)),
        ([8, 8], "auto", 4, (2, 4)),
        ([8] * 6, (1, 4), None, (4, 8)),
        ([8] * 2, (1, 4), None, (2, 8)),
        ([8], (2, 4), None, (2, 4)),
        ([1], "auto", None, (1, 1)),
    ],
)
def test_a_worker_a_node_with_all_its_cores(nodes, workers, each, crew) -> None:
    wanted = WorkerRange(min=workers[0], max=workers[1]) if isinstance(workers, tuple) else workers
    assert plan_crew(nodes, bounds_of(wanted), cores_per_worker=each) == Crew(*crew)


@pytest.mark.parametrize(
    ("nodes", "workers", "each", "crew"),
    [
        ([(16, 1)], "auto", None, (1, 16, 1)),
        ([(64, 4), (64, 4)], "auto", None, (8, 16, 1)),
        ([(64, 4), (64, 0)], "auto", None, (4, 16, 1)),
        ([(64, 4)], 2, None, (2, 16, 1)),
        ([(64, 4)], "auto", 8, (4, 8, 1)),
        ([(8, 1), (64, 4)], 5, None, (5, 8, 1)),
        ([(1, 1), (8, 1)], 2, None, (2, 1, 1)),  # never two beside one GPU
        ([(2, 4)], "auto", None, (2, 1, 1)),  # a worker has a core
        ([(16, 4), (32, 1)], "auto", None, (5, 4, 1)),  # no GPU is left idle for cores
    ],
)
def test_a_worker_a_gpu_with_its_share_of_the_cores(nodes, workers, each, crew) -> None:
    places = [cores for node in nodes for cores in places_of(*node)]
    assert plan_gpu_crew(places, bounds_of(workers), cores_per_worker=each) == Crew(*crew)


@pytest.mark.parametrize(
    ("places", "workers", "each", "rule"),
    [
        ([], 1, None, "1 workers must have a GPU and 1 cores each, but beside the 0 GPUs .* no"),
        ([8, 8], 3, None, "3 workers .* beside the 2 GPUs there are 8, 8 cores; use fewer"),
        ([8, 8], 2, 9, "2 workers must have a GPU and 9 cores each"),
    ],
)
def test_workers_without_a_gpu_are_refused(places, workers, each, rule) -> None:
    with pytest.raises(RefusedError, match=rule):
        plan_gpu_crew(places, bounds_of(workers), cores_per_worker=each)


@given(
    nodes=st.lists(st.integers(1, 64), max_size=8),
    least=st.integers(1, 12),
    more=st.integers(0, 12) | st.none(),
    each=st.integers(1, 64) | st.none(),
)
def test_a_crew_fits_its_nodes_or_is_refused(nodes, least, more, each) -> None:
    bounds = Bounds(least, None if more is None else least + more)
    room = sum(cores // (each or 1) for cores in nodes)
    if room < least:
        with pytest.raises(RefusedError, match=f"which take {room}; use fewer workers"):
            plan_crew(nodes, bounds, cores_per_worker=each)
        return
    crew = plan_crew(nodes, bounds, cores_per_worker=each)
    assert crew.threads == (each or crew.threads)
    assert least <= crew.workers <= (bounds.most or max(least, len(nodes)))
    assert sum(cores // crew.threads for cores in nodes) >= crew.workers
    if crew.workers > least:  # then nobody shares a node
        assert sum(cores >= crew.threads for cores in nodes) >= crew.workers


def test_rows_that_cannot_fit_are_refused_with_the_figures() -> None:
    rows = 1_000_000  # 66 MB, or 33 MB each of two workers
    check_memory(rows, 66, Crew(1, 2), 66_000_000)
    with pytest.raises(RefusedError, match=r"66 bytes each: each of 1 workers needs 0\.1 GiB at"):
        check_memory(rows, 66, Crew(1, 2), 65_999_999)
    check_memory(rows, 66, Crew(2, 2), 33_000_000)
    with pytest.raises(RefusedError, match="each of 2 workers"):
        check_memory(rows, 66, Crew(2, 2), 32_999_999)


@pytest.mark.parametrize(("cores", "partitions"), [(1, 2), (2, 4), (16, 32), (1024, 2000)])
def test_two_shuffle_partitions_a_core(cores: int, partitions: int) -> None:
    sizes = plan_sizes(Profile(name="x", cores=cores), BIG)
    assert sizes.spark_shuffle_partitions == partitions


@pytest.mark.parametrize(
    ("cores", "crew", "counts"),
    [
        ((4, 4, 8), Crew(6, 1), (2, 2, 2)),
        ((4, 4, 8), Crew(4, 2), (1, 1, 2)),
        ((4, 4, 8), Crew(16, 1), (4, 4, 8)),
        ((2, 8), Crew(3, 4), (0, 2)),  # no room for all of them
    ],
)
def test_workers_are_spread_as_evenly_as_there_is_room(
    cores: tuple[int, ...], crew: Crew, counts: tuple[int, ...]
) -> None:
    found = spread_over({f"n{i}": n for i, n in enumerate(cores)}, crew)
    assert tuple(found.count(f"n{i}") for i in range(len(cores))) == counts


def test_a_profile_cannot_plan_with_more_memory_than_there_is() -> None:
    sizes = plan_sizes(Profile(name="x", memory_gib=1000), machine(memory_gib=8))
    assert sizes.memory_bytes == 8 * GIB


def test_an_attached_executor_s_cores_set_the_partitions() -> None:
    place = SparkPlace(master="spark://h:7077", conf_folder="/c", executor_cores=8)
    assert plan_sizes(Profile(name="x", spark=place), machine()).spark_shuffle_partitions == 16


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"at least 2 GiB, got 1\.00 GiB for profile 'x'"):
        plan_sizes(Profile(name="x"), machine(memory_gib=1))
