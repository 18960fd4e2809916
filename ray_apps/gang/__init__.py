"""The processes that train one model together, and how they come to one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer


class Gang(Protocol):
    """The workers of one training, as one of them sees it; every one makes the same calls.

    Attributes:
        rank: which one this is, from 0.
        world: how many there are.
        host: the address of this one that the others can reach.
    """

    rank: int
    world: int
    host: str

    def agree(
        self, part: bytes, judge: Callable[[Sequence[bytes]], bytes], *, kind: bytes = b"a"
    ) -> bytes:
        """Bring everybody's part to the first worker, and its answer to everybody.

        Args:
            part: what this worker has to say.
            judge: called by the first worker alone, with the parts in the order of ranks.
            kind: one byte; workers that ask different questions must not take each other's.

        Raises:
            LostError: a worker is gone, silent or at another step; it is named. The connections
                are closed then, so that the others come to an end as well.
        """

    def exchange(self, parts: Sequence[Buffer], sizes: Sequence[int] | None = None) -> list[bytes]:
        """Give part i to worker i, and return what each one gave to this one, in ranks' order.

        Args:
            parts: one for each worker.
            sizes: what each one's part must have, where that is known, which is sooner.

        Raises:
            LostError: a worker is gone, silent or at another step, as for `agree`.
        """


class Alone:
    """The gang of one: its own judge, without any connection."""

    rank, world, host = 0, 1, "127.0.0.1"

    def agree(
        self,
        part: bytes,
        judge: Callable[[Sequence[bytes]], bytes],
        *,
        kind: bytes = b"a",  # noqa: ARG002 -- the protocol's
    ) -> bytes:
        """Return the judge's answer to one part."""
        return judge([part])

    def exchange(
        self,
        parts: Sequence[Buffer],
        sizes: Sequence[int] | None = None,  # noqa: ARG002 -- the protocol's
    ) -> list[bytes]:
        """Return the one part."""
        return [bytes(parts[0])]
