"""Workers meet, come to one answer, and name the one that is missing, gone or a stranger."""

from __future__ import annotations

import contextlib
import pickle
import secrets
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from ray_apps.gang import Alone
from ray_apps.gang.mesh import Door, Mesh, _knock, meet
from ray_apps.gang.wire import LostError

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
DEADLINE_S = 20.0


def gang_of(world: int, work: Callable[[Mesh], object], deadline_s: float = DEADLINE_S) -> list:
    """Run the work of every rank in a thread of its own; return results in ranks' order."""
    key, doors = secrets.token_bytes(32), [Door(HOST) for _ in range(world)]
    places = [(door.host, door.port) for door in doors]

    def one(rank: int) -> object:
        mesh = meet(doors[rank], rank, places, key, deadline_s=deadline_s)
        try:
            return work(mesh)
        finally:
            mesh.close()

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(one, range(world)))


@pytest.mark.parametrize("world", [2, 3, 5])
def test_everybody_gets_the_answer_of_the_first(world):
    def work(mesh: Mesh) -> list[bytes]:
        return [mesh.agree(b"%d.%d" % (mesh.rank, i), b",".join) for i in range(3)]

    answers = gang_of(world, work)
    wanted = [b",".join(b"%d.%d" % (r, i) for r in range(world)) for i in range(3)]
    assert answers == [wanted] * world


def test_one_alone_is_its_own_judge():
    assert Alone().agree(b"a", b"".join) == b"a"
    assert Alone().exchange([b"x"]) == [b"x"]


@pytest.mark.parametrize(("world", "size"), [(2, 0), (3, 10), (4, 5_000_000)])
def test_parts_reach_their_worker_however_large(world, size):
    def part(source: int, target: int) -> bytes:
        return bytes([source, target]) * size

    found = gang_of(world, lambda m: m.exchange([part(m.rank, to) for to in range(world)]))
    assert found == [[part(s, r) for s in range(world)] for r in range(world)]


@pytest.mark.parametrize(("world", "size"), [(2, 0), (3, 10), (4, 5_000_000)])
def test_parts_of_a_size_that_is_known_reach_their_worker(world, size):
    def work(mesh: Mesh) -> list[list[bytes]]:
        parts = [bytes([mesh.rank, to]) * size for to in range(world)]
        return [mesh.exchange(parts, [2 * size] * world) for _ in range(3)]

    found = gang_of(world, work)
    wanted = [[bytes([s, r]) * size for s in range(world)] for r in range(world)]
    assert found == [[one] * 3 for one in wanted]


@pytest.mark.parametrize("sent", [b"", b"123", b"12345", b"1" * 3_000_000])
def test_a_part_of_another_size_than_known_is_another_step(sent):
    def work(mesh: Mesh) -> str | None:
        if mesh.rank:
            with contextlib.suppress(LostError):
                mesh.exchange([sent, sent])
            return None
        with pytest.raises(LostError) as caught:
            mesh.exchange([b"1234", b"1234"], [4, 4])
        return str(caught.value)

    assert gang_of(2, work)[0].startswith("training worker 2 is at another step")


def test_a_worker_that_is_gone_in_the_middle_of_a_message_is_named():
    def work(mesh: Mesh) -> str | None:
        link = mesh._wires[1 - mesh.rank].link
        if mesh.rank:
            link.sendall(struct.pack("!cQ", b"x", 1_000_000) + b"half")
            return None
        with pytest.raises(LostError) as caught:
            mesh.exchange([b""] * 2)
        return str(caught.value)

    told = gang_of(2, work)[0]
    assert told.startswith(("training worker 2 has left", "training worker 2 is gone"))


@pytest.mark.parametrize("sizes", [None, [1, 1]])
def test_a_silent_worker_is_waited_for_once(sizes):
    heard, waits = threading.Event(), []

    def work(mesh: Mesh) -> None:
        if mesh.rank:
            heard.wait(DEADLINE_S)
            return
        begun = time.monotonic()
        with pytest.raises(LostError, match="sent nothing for 2 s"):
            mesh.exchange([b"x"] * 2, sizes)
        waits.append(time.monotonic() - begun)
        heard.set()

    gang_of(2, work, deadline_s=2)
    assert 1.9 < waits[0] < 3.9


def test_a_worker_that_sends_half_a_message_is_silent_after_its_deadline():
    heard = threading.Event()

    def work(mesh: Mesh) -> str | None:
        if mesh.rank:
            mesh._wires[0].link.sendall(struct.pack("!cQ", b"x", 1_000_000) + b"half")
            heard.wait(DEADLINE_S)
            return None
        with pytest.raises(LostError) as caught:
            mesh.exchange([b""] * 2, [1_000_000] * 2)
        heard.set()
        return str(caught.value)

    told = gang_of(2, work, deadline_s=0.5)[0]
    assert told.startswith("training worker 2 sent nothing for")


def test_a_worker_that_takes_nothing_is_named_after_its_deadline():
    heard = threading.Event()

    def work(mesh: Mesh) -> str | None:
        if mesh.rank:
            heard.wait(DEADLINE_S)
            return None
        with pytest.raises(LostError) as caught:
            mesh._wires[1].send(b"x", bytes(100_000_000))
        heard.set()
        return str(caught.value)

    told = gang_of(2, work, deadline_s=0.5)[0]
    assert told.startswith("training worker 2 took nothing for")


def test_a_worker_that_leaves_is_named():
    left = threading.Event()

    def work(mesh: Mesh) -> str:
        if mesh.rank == 2:
            left.set()
            return "left"
        left.wait(DEADLINE_S)
        with pytest.raises(LostError) as caught:
            mesh.agree(b"", b"".join)
        return str(caught.value)

    first, second, third = gang_of(3, work)
    assert first == "training worker 3 has left; see the run's log."
    assert second == "training worker 1 has left; see the run's log."  # it could not go on
    assert third == "left"


def test_a_silent_worker_is_named_after_its_deadline():
    heard = threading.Event()

    def work(mesh: Mesh) -> str | None:
        if mesh.rank == 1:
            heard.wait(DEADLINE_S)
            return None
        with pytest.raises(LostError) as caught:
            mesh.agree(b"", b"".join)
        heard.set()
        return str(caught.value)

    told, _ = gang_of(2, work, deadline_s=0.5)
    assert told.startswith("training worker 2 sent nothing for")


def test_workers_at_different_steps_end_instead_of_taking_each_others_numbers():
    def work(mesh: Mesh) -> str:
        ask = (lambda: mesh.exchange([b"", b""])) if mesh.rank else (lambda: mesh.agree(b"", max))
        with pytest.raises(LostError) as caught:
            ask()
        return str(caught.value)

    assert gang_of(2, work)[0].startswith("training worker 2 is at another step")


def test_a_lost_worker_stays_known_across_processes():
    lost = pickle.loads(pickle.dumps(LostError("worker 3 is gone.", 2)))
    assert (lost.message, lost.peer) == ("worker 3 is gone.", 2)


def test_a_worker_that_never_comes_is_named():
    door, place = Door(HOST), ("127.0.0.1", 1)
    with pytest.raises(LostError, match=r"^training worker 2 did not come within 0 s;"):
        meet(door, 0, [(door.host, door.port), place], b"k" * 32, deadline_s=0.3)


def test_a_door_that_nobody_opens_is_named():
    door = Door(HOST)
    closed = Door(HOST)
    closed.close()
    places = [(closed.host, closed.port), (door.host, door.port)]
    with pytest.raises(LostError, match=r"^training worker 1 cannot be reached on 127\.0\.0\.1"):
        meet(door, 1, places, b"k" * 32, deadline_s=2)


def strangers(place: tuple[str, int]) -> None:
    """Knock as those who do not have the key: with a wrong one, with noise, and gone at once."""
    with socket.create_connection(place) as link:
        link.recv(32)
        link.sendall(struct.pack("!I32s32s", 1, b"n" * 32, b"wrong" * 6 + b"xx"))
        assert link.recv(32) == b""
    with socket.create_connection(place) as link:
        link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 4)
    socket.create_connection(place).close()


def test_strangers_are_turned_away_and_the_gang_meets_all_the_same():
    key, doors = secrets.token_bytes(32), [Door(HOST), Door(HOST)]
    places = [(door.host, door.port) for door in doors]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, doors[0], 0, places, key, deadline_s=DEADLINE_S)
        strangers(places[0])
        second = meet(doors[1], 1, places, key, deadline_s=DEADLINE_S)
        mesh = first.result()
    mesh.close()
    second.close()


def test_a_place_that_is_not_awaited_is_not_given():
    key, doors = secrets.token_bytes(32), [Door(HOST), Door(HOST)]
    places = [(door.host, door.port) for door in doors]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, doors[0], 0, places, key, deadline_s=DEADLINE_S)
        _knock(places[0], (7, 0), key, time.monotonic() + DEADLINE_S).close()
        second = meet(doors[1], 1, places, key, deadline_s=DEADLINE_S)
        mesh = first.result()
    assert mesh.world == second.world == 2
    mesh.close()
    second.close()


def test_a_door_with_another_key_is_not_entered():
    doors = [Door(HOST), Door(HOST)]
    places = [(door.host, door.port) for door in doors]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, doors[0], 0, places, b"a" * 32, deadline_s=2)
        with pytest.raises(LostError, match="training worker 1 cannot be reached"):
            meet(doors[1], 1, places, b"b" * 32, deadline_s=2)
        with pytest.raises(LostError, match="training worker 2 did not come within 2 s"):
            first.result()
