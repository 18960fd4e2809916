"""A gang over TCP: every worker is connected with every other one, each proven by a shared key.

Why not the libraries' own networks alone: LightGBM's has no proof of who connects, listens on all
interfaces, and cannot say which worker is missing; its metrics are those of one worker's rows.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
import time
from typing import TYPE_CHECKING

from ray_apps.gang.wire import LostError, Wire, swap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

KEY_BYTES = 32
HANDSHAKE_S = 5.0
_HELLO = struct.Struct("!I32s32s")
_NONCE = 32


class Door:
    """Where a worker is met by those of a higher rank: a port on one address."""

    def __init__(self, host: str) -> None:
        self._socket = socket.create_server((host, 0), backlog=128)
        self.host: str = host
        self.port: int = self._socket.getsockname()[1]

    def accept(self, key: bytes, deadline: float) -> tuple[int, socket.socket] | None:
        """Return the next worker that proves that it has the key, None at the deadline."""
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                link, _ = self._socket.accept()
            except TimeoutError:
                return None
            link.settimeout(HANDSHAKE_S)
            try:
                return _answer(link, key), link
            except (OSError, ValueError):
                link.close()  # a stranger: no reason to stop waiting for the others
        return None

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


class Mesh:
    """One worker's connections to all others."""

    def __init__(self, rank: int, host: str, wires: dict[int, Wire]) -> None:
        self.rank, self.world, self.host = rank, len(wires) + 1, host
        self._wires = wires

    def agree(self, part: bytes, judge: Callable[[Sequence[bytes]], bytes]) -> bytes:
        """Bring everybody's part to the first worker, and its answer to everybody."""
        if self.rank:
            self._wires[0].send(part)
            return self._wires[0].receive()
        parts = [part, *(self._wires[rank].receive() for rank in range(1, self.world))]
        answer = judge(parts)
        for rank in range(1, self.world):
            self._wires[rank].send(answer)
        return answer

    def exchange(self, parts: Sequence[Buffer]) -> list[bytes]:
        """Give part i to worker i, and return what each one gave to this one, in ranks' order.

        In step s everybody gives to the worker s places above and takes from the one s below.
        """
        found = [b""] * self.world
        found[self.rank] = bytes(parts[self.rank])
        for step in range(1, self.world):
            above, below = (self.rank + step) % self.world, (self.rank - step) % self.world
            found[below] = swap(self._wires[above], parts[above], self._wires[below])
        return found

    def close(self) -> None:
        """Close every connection; the others see it at once."""
        for wire in self._wires.values():
            wire.close()


def meet(
    door: Door,
    rank: int,
    doors: Sequence[tuple[str, int]],
    key: bytes,
    *,
    deadline_s: float,
) -> Mesh:
    """Connect this worker with all others and return the mesh; the door is closed.

    Args:
        door: this worker's own.
        rank: its place in `doors`.
        doors: host and port of every worker's door.
        key: the secret of this gang.
        deadline_s: for the meeting, and for every silence after it.

    Raises:
        LostError: somebody did not come in time; the first one is named.
    """
    deadline = time.monotonic() + deadline_s
    links: dict[int, socket.socket] = {}
    try:
        for other in range(rank):
            links[other] = _knock(doors[other], (rank, other), key, deadline)
        while len(links) < len(doors) - 1:
            found = door.accept(key, deadline)
            if found is None:
                missing = next(r for r in range(rank + 1, len(doors)) if r not in links)
                raise _absent(missing, deadline_s)
            links[found[0]] = found[1]
    except BaseException:
        for link in links.values():
            link.close()
        raise
    finally:
        door.close()
    wires = {other: Wire(link, other, deadline_s) for other, link in links.items()}
    return Mesh(rank, door.host, wires)


def _knock(
    door: tuple[str, int], ranks: tuple[int, int], key: bytes, deadline: float
) -> socket.socket:
    rank, other = ranks
    try:
        link = socket.create_connection(door, timeout=max(0.1, deadline - time.monotonic()))
        link.settimeout(max(HANDSHAKE_S, deadline - time.monotonic()))
        _prove(link, rank, key)
    except (OSError, ValueError) as error:
        raise LostError(
            f"training worker {other + 1} cannot be reached on {door[0]}:{door[1]} ({error}); see "
            "the run's log."
        ) from error
    return link


def _absent(rank: int, seconds: float) -> LostError:
    return LostError(
        f"training worker {rank + 1} did not come within {seconds:.0f} s; see the run's log."
    )


def _prove(link: socket.socket, rank: int, key: bytes) -> None:
    """Prove that this side has the key, and let the other side prove it."""
    theirs, mine = _take(link, _NONCE), secrets.token_bytes(_NONCE)
    link.sendall(_HELLO.pack(rank, mine, _seal(key, b"comes", theirs + struct.pack("!I", rank))))
    if not hmac.compare_digest(_take(link, _NONCE), _seal(key, b"opens", mine)):
        raise ValueError("it has another key")


def _answer(link: socket.socket, key: bytes) -> int:
    """Let the other side prove that it has the key and which rank it is, then prove it too."""
    mine = secrets.token_bytes(_NONCE)
    link.sendall(mine)
    rank, theirs, seal = _HELLO.unpack(_take(link, _HELLO.size))
    if not hmac.compare_digest(seal, _seal(key, b"comes", mine + struct.pack("!I", rank))):
        raise ValueError("it has another key")
    link.sendall(_seal(key, b"opens", theirs))
    return int(rank)


def _seal(key: bytes, purpose: bytes, content: bytes) -> bytes:
    return hmac.digest(key, purpose + content, "sha256")


def _take(link: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = link.recv(size - len(found))
        if not more:
            raise ValueError("it has left")
        found += more
    return found
