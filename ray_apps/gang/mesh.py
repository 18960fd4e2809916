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
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ray_apps.gang.wire import LostError, Wire, trade

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

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

    def accept(
        self, awaited: Collection[int], key: bytes, deadline: float
    ) -> tuple[int, socket.socket] | None:
        """Return the next awaited worker that proves it has the key, None at the deadline."""
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                link, _ = self._socket.accept()
            except TimeoutError:
                return None
            try:
                rank = _answer(link, key, min(deadline, time.monotonic() + HANDSHAKE_S))
                if rank in awaited:
                    return rank, link
            except (OSError, ValueError):
                pass  # a stranger: no reason to stop waiting for the others
            link.close()
        return None

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


class Mesh:
    """One worker's connections to all others."""

    def __init__(self, rank: int, host: str, wires: dict[int, Wire]) -> None:
        self.rank, self.world, self.host = rank, len(wires) + 1, host
        self._wires = wires

    def agree(
        self, part: bytes, judge: Callable[[Sequence[bytes]], bytes], *, kind: bytes = b"a"
    ) -> bytes:
        """Bring everybody's part to the first worker, and its answer to everybody."""
        with self._or_closed():
            if self.rank:
                self._wires[0].send(kind, part)
                # the first one may itself wait for another: it shall be the one to say so
                return self._wires[0].receive(kind, patience=2)
            others = range(1, self.world)
            answer = judge([part, *(self._wires[rank].receive(kind) for rank in others)])
            for rank in others:
                self._wires[rank].send(kind, answer)
            return answer

    def exchange(self, parts: Sequence[Buffer], sizes: Sequence[int] | None = None) -> list[bytes]:
        """Give part i to worker i, and return what each one gave to this one, in ranks' order."""
        # everybody begins with the next one above, so that not all write to the same one
        others = [(self.rank + step) % self.world for step in range(1, self.world)]
        with self._or_closed():
            mine = [(self._wires[rank], parts[rank]) for rank in others]
            theirs = None if sizes is None else [sizes[rank] for rank in others]
            got = trade(b"x", mine, [self._wires[rank] for rank in others], sizes=theirs)
        found = dict(zip(others, got, strict=True)) | {self.rank: bytes(parts[self.rank])}
        return [found[rank] for rank in range(self.world)]

    def close(self) -> None:
        """Close every connection; the others see it at once."""
        for wire in self._wires.values():
            wire.close()

    @contextmanager
    def _or_closed(self) -> Iterator[None]:
        """Close every connection when one is lost: what is half said must not be gone on with."""
        try:
            yield
        except LostError:
            self.close()
            raise


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
        while awaited := sorted(set(range(len(doors))) - links.keys() - {rank}):
            found = door.accept(awaited, key, deadline)
            if found is None:
                raise _absent(awaited[0], deadline_s)
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
    link: socket.socket | None = None
    try:
        link = socket.create_connection(door, timeout=max(0.1, deadline - time.monotonic()))
        _prove(link, rank, key, deadline)
    except (OSError, ValueError) as error:
        if link is not None:
            link.close()
        raise LostError(
            f"training worker {other + 1} cannot be reached on {door[0]}:{door[1]} ({error}); see "
            "the run's log.",
            other,
        ) from error
    return link


def _absent(rank: int, seconds: float) -> LostError:
    return LostError(
        f"training worker {rank + 1} did not come within {seconds:.0f} s; see the run's log.", rank
    )


def _prove(link: socket.socket, rank: int, key: bytes, deadline: float) -> None:
    """Prove that this side has the key, and let the other side prove it."""
    theirs, mine = _take(link, _NONCE, deadline), secrets.token_bytes(_NONCE)
    link.sendall(_HELLO.pack(rank, mine, _seal(key, b"comes", theirs + struct.pack("!I", rank))))
    if not hmac.compare_digest(_take(link, _NONCE, deadline), _seal(key, b"opens", mine)):
        raise ValueError("it has another key")


def _answer(link: socket.socket, key: bytes, deadline: float) -> int:
    """Let the other side prove that it has the key and which rank it is, then prove it too."""
    mine = secrets.token_bytes(_NONCE)
    link.sendall(mine)
    rank, theirs, seal = _HELLO.unpack(_take(link, _HELLO.size, deadline))
    if not hmac.compare_digest(seal, _seal(key, b"comes", mine + struct.pack("!I", rank))):
        raise ValueError("it has another key")
    link.sendall(_seal(key, b"opens", theirs))
    return int(rank)


def _seal(key: bytes, purpose: bytes, content: bytes) -> bytes:
    return hmac.digest(key, purpose + content, "sha256")


def _take(link: socket.socket, size: int, deadline: float) -> bytes:
    """Read so many bytes until a time, however slowly they come."""
    found = b""
    while len(found) < size:
        link.settimeout(max(0.01, deadline - time.monotonic()))
        more = link.recv(size - len(found))
        if not more:
            raise ValueError("it has left")
        found += more
    return found
