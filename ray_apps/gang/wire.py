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
    from collections.abc import Sequence

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
        trade(kind, [(self, content)], [])

    def receive(self, kind: bytes, *, patience: int = 1) -> bytes:
        """Wait for one message of a kind.

        Args:
            kind: what it must be about.
            patience: how many times the deadline to wait, for an answer that has to wait itself.

        Raises:
            LostError: the other end is gone, says nothing for too long, or something else.
        """
        (found,) = trade(kind, [], [self], patience=patience)
        return found

    def close(self) -> None:
        """Close the connection; the other end sees it at once."""
        self._link.close()

    def lost(self, why: str) -> LostError:
        """Return the error that names the other end."""
        return LostError(f"training worker {self.peer + 1} {why}; see the run's log.", self.peer)


def trade(
    kind: bytes,
    parts: Sequence[tuple[Wire, Buffer]],
    sources: Sequence[Wire],
    *,
    patience: int = 1,
) -> list[bytes]:
    """Send a message on some connections while one each is received on others, or the same ones.

    All at once: two workers that both send first would wait for each other as soon as a message
    is larger than the buffers between them; and who waits for a slow one keeps nobody waiting.

    Returns:
        What was received, in the order of the sources.

    Raises:
        LostError: one of them is gone, or all that are waited for are silent past the deadline.
    """
    outs = [_Sending(wire, kind, content) for wire, content in parts]
    ins = [_Receiving(wire, kind) for wire in sources]
    both: list[_Sending | _Receiving] = [*outs, *ins]
    while True:
        # as long as it goes on, without asking the kernel who is ready
        moved = sum(one.step() for one in both)
        if all(one.is_done for one in both):
            return [bytes(one.content) for one in ins]
        if not moved:
            _wait(outs, ins, patience)


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


def _wait(outs: Sequence[_Sending], ins: Sequence[_Receiving], patience: int) -> None:
    """Wait until one of all can go on."""
    writing = [one.wire for one in outs if not one.is_done]
    reading = [one.wire for one in ins if not one.is_done]
    events: dict[int, int] = {}
    for wires, event in ((writing, select.POLLOUT), (reading, select.POLLIN)):
        for wire in wires:
            place = wire._link.fileno()
            events[place] = events.get(place, 0) | event
    poll = select.poll()
    for place, event in events.items():
        poll.register(place, event)
    slow = (reading or writing)[0]
    seconds = slow._deadline_s * patience
    if not poll.poll(seconds * 1000):
        verb = "sent" if reading else "took"
        raise slow.lost(f"{verb} nothing for {seconds:.0f} s")
