"""Numbers of all workers put together: sums and maxima for everybody, rows for the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray_apps.gang import Gang

Doubles = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]


def total(gang: Gang, mine: Whole) -> Whole:
    """Return the sum over all workers, place by place."""
    return _folded(gang, mine, lambda all_: all_.sum(axis=0))


def highest(gang: Gang, mine: Numbers) -> Numbers:
    """Return the largest of all workers, place by place; of truths whole numbers."""
    return _folded(gang, mine, lambda all_: all_.max(axis=0))


def added(gang: Gang, mine: Doubles) -> Doubles:
    """Return the sum over all workers, place by place, added in the order of ranks."""
    found = gang.exchange([np.ascontiguousarray(mine, np.float64).tobytes()] * gang.world)
    return np.sum([np.frombuffer(part) for part in found], axis=0)  # type: ignore[no-any-return]


def to_first(gang: Gang, mine: Doubles) -> Doubles:
    """Return the rows of all workers to the first one, and no rows to the others."""
    kept: list[Doubles] = []

    def keep(parts: Sequence[bytes]) -> bytes:
        kept.extend(_rows(part, mine) for part in parts)
        return b""

    gang.agree(_bytes(mine), keep)
    return np.concatenate(kept) if kept else mine[:0]


def from_first(gang: Gang, mine: Doubles, judge: Callable[[Doubles], float]) -> float:
    """Return the first worker's one number about the rows of all; the same number everywhere."""
    if gang.world == 1:
        return judge(mine)

    def answer(parts: Sequence[bytes]) -> bytes:
        value = judge(np.concatenate([_rows(part, mine) for part in parts]))
        return np.float64(value).tobytes()

    return float(np.frombuffer(gang.agree(_bytes(mine), answer), np.float64)[0])


def _folded(gang: Gang, mine: Numbers, fold: Callable[[Numbers], Numbers]) -> Numbers:
    kind = np.float64 if mine.dtype.kind == "f" else np.int64

    def answer(parts: Sequence[bytes]) -> bytes:
        return fold(np.stack([np.frombuffer(part, kind) for part in parts])).tobytes()

    return np.frombuffer(gang.agree(mine.astype(kind).tobytes(), answer), kind)


def _bytes(rows: Doubles) -> bytes:
    return np.ascontiguousarray(rows, np.float64).tobytes()


def _rows(part: bytes, like: Doubles) -> Doubles:
    return np.frombuffer(part, np.float64).reshape(-1, *like.shape[1:])
