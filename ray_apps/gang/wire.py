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

    Part = bytes | bytearray | memoryview

_HEAD = struct.Struct("!cQ")
_TIME = struct.Struct("@ll")
"""The kernel's `timeval`: seconds and millionths."""


class LostError(LostWorkerError):
    """A worker cannot go on because another one did not answer; `peer` is that one's rank."""

    def __init__(self, message: str, peer: int = -1) -> None:
        super().__init__(message)
        self.peer = peer

    def __reduce__(self) -> tuple[type[LostError], tuple[str, int]]:  # type: ignore[override]
        return type(self), (self.message, self.peer)


class StepError(LostError):
    """A worker is at another step than this one: a bug, which the next attempt meets again."""


class Wire:
    """One connection to one other worker.

    Args:
        link: a connected socket.
        peer: the rank at the other end, for messages.
        deadline_s: how long the other may stay silent before it counts as lost.
    """

    def __init__(self, link: socket.socket, peer: int, deadline_s: float) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(True)
        # the kernel keeps the time of who waits for a message: no call asks it what is there
        seconds, rest = divmod(max(1, round(deadline_s * 1e6)), 1_000_000)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(seconds, rest))
        self.link, self.peer, self._deadline_s = link, peer, deadline_s

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
        self.link.close()

    def lost(self, why: str) -> LostError:
        """Return the error that names the other end."""
        return LostError(f"training worker {self.peer + 1} {why}; see the run's log.", self.peer)

    def silent(self, verb: str, patience: int) -> LostError:
        """Return the error of one that did nothing for the deadline, so many times."""
        return self.lost(f"{verb} nothing for {self._deadline_s * patience:.0f} s")


def trade(
    kind: bytes,
    parts: Sequence[tuple[Wire, Buffer]],
    sources: Sequence[Wire],
    *,
    sizes: Sequence[int] | None = None,
    patience: int = 1,
) -> list[bytes]:
    """Send a message on some connections while one each is received on others, or the same ones.

    Nothing is waited for before all is sent: two workers that both send first would wait for each
    other as soon as a message is larger than the buffers between them.

    Args:
        kind: what all the messages are about.
        parts: what is sent, and where.
        sources: where is received.
        sizes: of what is received, where that is known: a message is one call then.
        patience: how many times the deadline to wait.

    Returns:
        What was received, in the order of the sources.

    Raises:
        LostError: one of them is gone, is at another step, or is silent past the deadline.
    """
    outs = [
        _Sending(wire, left) for wire, content in parts if (left := _offer(wire, kind, content))
    ]
    if not outs and sizes is not None:
        return [_take(*one, kind, patience) for one in zip(sources, sizes, strict=True)]
    told: Sequence[int | None] = sizes or [None] * len(sources)
    ins = [_Receiving(wire, kind, size) for wire, size in zip(sources, told, strict=True)]
    while any(one.open for one in outs):
        moved = [one.step() for one in outs] + [one.step() for one in ins]
        if not any(moved):
            _wait(outs, ins, patience)
    # all is said here: what others wait for is what this one waits for as well
    for each in ins:
        each.wait(patience)
    return [bytes(each.content) for each in ins]


def _offer(wire: Wire, kind: bytes, content: Buffer) -> list[Part]:
    """Send what the kernel takes of a message now; return what is left."""
    body = memoryview(content).cast("B")
    message: list[Part] = [_HEAD.pack(kind, len(body)), body]
    sent = _send(wire, message)
    return [] if sent == _HEAD.size + len(body) else _after(message, sent)


def _take(wire: Wire, size: int, kind: bytes, patience: int) -> bytes:
    """Wait for a message of a size that is known."""
    head, content = bytearray(_HEAD.size), bytearray(size)
    count = _receive(wire, [head, content], socket.MSG_WAITALL)
    if count == _HEAD.size + size and head == _HEAD.pack(kind, size):
        return bytes(content)
    one = _Receiving(wire, kind, size, head, content)
    one.took(count)
    one.wait(patience, silent=0 if count else 1)
    return bytes(one.content)


def _send(wire: Wire, parts: list[Part]) -> int:
    """Send what the kernel takes now; return how many bytes."""
    try:
        return wire.link.sendmsg(parts, (), socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0
    except OSError as error:
        raise wire.lost("is gone") from error


def _receive(wire: Wire, parts: list[Part], how: int) -> int:
    """Take what is there, or wait for all; return how many bytes, 0 where none came in time."""
    try:
        count = wire.link.recvmsg_into(parts, 0, how)[0]
    except BlockingIOError:
        return 0
    except OSError as error:
        raise wire.lost("is gone") from error
    if count == 0:
        raise wire.lost("has left")
    return count


class _Sending:
    """A message on its way; nothing of it is open when the kernel has it all."""

    def __init__(self, wire: Wire, left: list[Part]) -> None:
        self.wire, self.open = wire, left

    def step(self) -> bool:
        """Send what the kernel takes now; say whether it took something."""
        sent = _send(self.wire, self.open) if self.open else 0
        self.open = _after(self.open, sent)
        return sent > 0


class _Receiving:
    """A message that is awaited; nothing of it is open when it is here."""

    def __init__(
        self,
        wire: Wire,
        kind: bytes,
        size: int | None,
        head: bytearray | None = None,
        content: bytearray | None = None,
    ) -> None:
        self.wire, self._kind, self._size = wire, kind, size
        self._head = bytearray(_HEAD.size) if head is None else head
        self._head_left = _HEAD.size
        self.content = bytearray(size or 0) if content is None else content
        self.open: list[Part] = [self._head, self.content]

    def wait(self, patience: int, silent: int = 0) -> None:
        """Wait for all of it.

        Args:
            patience: how many times the deadline; once more after a part of a message.
            silent: how many times it was waited in vain.

        Raises:
            LostError: the other end is gone, at another step, or silent past the deadline.
        """
        while self.open:
            if silent == patience:
                raise self.wire.silent("sent", patience)
            silent = 0 if self.step(socket.MSG_WAITALL) else silent + 1

    def step(self, how: int = socket.MSG_DONTWAIT) -> bool:
        """Take what is there, or wait for the rest; say whether something came."""
        count = _receive(self.wire, self.open, how) if self.open else 0
        self.took(count)
        return count > 0

    def took(self, count: int) -> None:
        """Note that so many bytes came."""
        self.open = _after(self.open, count)
        if self._head_left and count:
            self._head_left = max(0, self._head_left - count)
            if not self._head_left:
                self._read_head()

    def _read_head(self) -> None:
        kind, size = _HEAD.unpack(self._head)
        if kind != self._kind or self._size not in (None, size):
            lost = self.wire.lost("is at another step than this one")
            raise StepError(lost.message, lost.peer)
        if self._size is None and size:
            self.content = bytearray(size)
            self.open = [self.content]


def _after(parts: list[Part], count: int) -> list[Part]:
    """Return what is left of parts after so many bytes."""
    for place, part in enumerate(parts):
        if count < len(part):
            return [memoryview(part)[count:], *parts[place + 1 :]]
        count -= len(part)
    return []


def _wait(outs: Sequence[_Sending], ins: Sequence[_Receiving], patience: int) -> None:
    """Wait until one of all can go on."""
    writing = [one.wire for one in outs if one.open]
    reading = [one.wire for one in ins if one.open]
    events: dict[int, int] = {}
    for wires, event in ((writing, select.POLLOUT), (reading, select.POLLIN)):
        for wire in wires:
            place = wire.link.fileno()
            events[place] = events.get(place, 0) | event
    poll = select.poll()
    for place, event in events.items():
        poll.register(place, event)
    slow = (reading or writing)[0]
    if not poll.poll(slow._deadline_s * patience * 1000):
        raise slow.silent("sent" if reading else "took", patience)
