"""Which split a row belongs to: by its time, or by a stable hash of its key or group."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arclight.keys import hash_rows, null_rows
from arclight.schema import TIMESTAMP
from arclight.spec_field import parse_duration_s, parse_instant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.spec import HashSplit, TimeSplit

TRAIN, VALID, TEST, GAP, UNKNOWN = 0, 1, 2, -1, -2
Codes = npt.NDArray[np.int8]


def split_by_time(split: TimeSplit, times: pa.Array) -> Codes:
    """Return each row's split from its time.

    Train ends a gap before valid begins, and valid a gap before test begins; what lies in a gap is
    GAP, a null time is UNKNOWN.
    """
    micros = times.cast(TIMESTAMP).view(pa.int64())
    at = micros.fill_null(0).to_numpy(zero_copy_only=False)
    gap = parse_duration_s(split.gap) * 1_000_000
    valid, test = _micros(split.valid_from), _micros(split.test_from)
    codes = np.full(len(at), GAP, dtype=np.int8)
    codes[at < valid - gap] = TRAIN
    codes[(at >= valid) & (at < test - gap)] = VALID
    codes[at >= test] = TEST
    if micros.null_count:
        codes[micros.is_null().to_numpy(zero_copy_only=False)] = UNKNOWN
    return codes


def split_by_hash(
    split: HashSplit, key: Sequence[pa.Array], group: Sequence[pa.Array] = ()
) -> Codes:
    """Return each row's split from the hash of its group, or of its key.

    The hash, as a share of 2**64, falls below train, below train + valid, or above: the same row
    lands in the same split whatever the order, the partitions or the engine.
    """
    share = hash_shares(key, group, seed=2 * split.seed + 2)
    codes = np.full(len(share), TEST, dtype=np.int8)
    codes[share < split.train + split.valid] = VALID
    codes[share < split.train] = TRAIN
    return codes


def hash_shares(
    key: Sequence[pa.Array], group: Sequence[pa.Array], *, seed: int
) -> npt.NDArray[np.float64]:
    """Return the hash of each row's group as a share of 2**64; without groups, of its key.

    A row of no group is a group by itself: else all of them would stay together.
    """
    found = hash_rows(group or key, seed=seed)
    alone = null_rows(group, len(found))
    if alone.any():
        found = np.where(alone, hash_rows(key, seed=seed), found)
    return found.astype(np.float64) / 2.0**64


def _micros(text: str) -> int:
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (parse_instant(text) - epoch) // dt.timedelta(microseconds=1)
