"""Messages between two workers over one authenticated connection.

Nothing that arrives is ever unpickled: a message is its kind, a length and that many bytes.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import TYPE_CHECKING

from arclight.errors import LostWorkerError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_HEAD = struct.Struct("!cQ")


class LostError(LostWorkerError):
    """A worker cannot go on because another one did not answer; `peer` is that one's rank."""

    def __init__(self, message: str, peer: int = -1) -> None:
        super().__init__(message)
        self.peer = peer

    def __reduce__(self) -> tuple[type[LostError], tuple[str, int]]:  # type: ignore[override]
        return type(self), (self.message, self.peer)


class Wire:
    """One connection to one other worker.

    Args:
        link: a connected socket.
        peer: the rank at the other end, for messages.
        deadline_s: how long the other may stay silent before it counts as lost.
    """

    def __init__(self, link: socket.socket, peer: int, deadline_s: float) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(False)
        self._link, self.peer, self._deadline_s = link, peer, deadline_s

    def send(self, kind: bytes, content: Buffer) -> None:
        """Send one message.

        Args:
            kind: one byte that says what it is about.
            content: what it says.

        Raises:
            LostError: the other end is gone or takes nothing for too long.
        """
        swap(kind, self, content, None)

    def receive(self, kind: bytes, *, patience: int = 1) -> bytes:
        """Wait for one message of a kind.

        Args:
            kind: what it must be about.
            patience: how many times the deadline to wait, for an answer that has to wait itself.

        Raises:
            LostError: the other end is gone, says nothing for too long, or something else.
        """
        return swap(kind, None, b"", self, patience=patience)

    def close(self) -> None:
        """Close the connection; the other end sees it at once."""
        self._link.close()

    def lost(self, why: str) -> LostError:
        """Return the error that names the other end."""
        return LostError(f"training worker {self.peer + 1} {why}; see the run's log.", self.peer)


def swap(
    kind: bytes, to: Wire | None, content: Buffer, source: Wire | None, *, patience: int = 1
) -> bytes:
    """Send a message on one connection while one is received on another, or only one of both.

    Both at once, because two workers that both send first would wait for each other as soon as
    a message is larger than the buffers between them.

    Returns:
        The message received; empty without a source.

    Raises:
        LostError: one of both is gone, or silent past its deadline.
    """
    out = _Sending(to, kind, content) if to is not None else None
    into = _Receiving(source, kind) if source is not None else None
    while True:
        # as long as it goes on, without asking the kernel who is ready
        is_moving = (out is not None and out.step()) | (into is not None and into.step())
        if (out is None or out.is_done) and (into is None or into.is_done):
            return b"" if into is None else bytes(into.content)
        if not is_moving:
            _wait(out, into, patience)


class _Sending:
    def __init__(self, wire: Wire, kind: bytes, content: Buffer) -> None:
        self.wire = wire
        body = memoryview(content).cast("B")
        self._parts = [memoryview(_HEAD.pack(kind, len(body))), body]

    @property
    def is_done(self) -> bool:
        return not self._parts

    def step(self) -> bool:
        """Send what the kernel takes; say whether it took something."""
        if not self._parts:
            return False
        try:
            sent = self.wire._link.sendmsg(self._parts)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self.wire.lost("is gone") from error
        while self._parts and sent >= len(self._parts[0]):
            sent -= len(self._parts.pop(0))
        if self._parts:
            self._parts[0] = self._parts[0][sent:]
        return True


class _Receiving:
    def __init__(self, wire: Wire, kind: bytes) -> None:
        self.wire, self._kind = wire, kind
        self._head = bytearray(_HEAD.size)
        self.content = bytearray()
        self._open = memoryview(self._head)
        self._has_head = False

    @property
    def is_done(self) -> bool:
        return self._has_head and not self._open

    def step(self) -> bool:
        """Take what is there; say whether something was."""
        if self.is_done:
            return False
        try:
            count = self.wire._link.recv_into(self._open)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self.wire.lost("is gone") from error
        if count == 0:
            raise self.wire.lost("has left")
        self._open = self._open[count:]
        if not self._open and not self._has_head:
            kind, size = _HEAD.unpack(self._head)
            if kind != self._kind:
                raise self.wire.lost("is at another step than this one")
            self._has_head = True
            self.content = bytearray(size)
            self._open = memoryview(self.content)
        return True


def _wait(out: _Sending | None, into: _Receiving | None, patience: int) -> None:
    """Wait until one of both can go on."""
    writing = [out.wire] if out is not None and not out.is_done else []
    reading = [into.wire] if into is not None and not into.is_done else []
    poll = select.poll()
    for wire in writing:
        poll.register(wire._link, select.POLLOUT)
    for wire in reading:
        poll.register(wire._link, select.POLLIN)
    slow = (reading or writing)[0]
    seconds = slow._deadline_s * patience
    if not poll.poll(seconds * 1000):
        verb = "sent" if reading else "took"
        raise slow.lost(f"{verb} nothing for {seconds:.0f} s")
