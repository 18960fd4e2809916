from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arclight.schema import TIMESTAMP
from arclight.spec import HashSplit, TimeSplit
from arclight.split import GAP, TEST, TRAIN, UNKNOWN, VALID, split_by_hash, split_by_time

DAY = 86_400_000_000
VALID_FROM, TEST_FROM = (
    int(dt.datetime(2013, month, 1, tzinfo=dt.UTC).timestamp()) * 1_000_000 for month in (11, 12)
)


def by_time(**changes: str) -> TimeSplit:
    fields = {"by": "time", "valid_from": "2013-11-01", "test_from": "2013-12-01"} | changes
    return TimeSplit.model_validate(fields)


def times(*micros: int | None) -> pa.Array:
    return pa.array(micros, pa.int64()).cast(TIMESTAMP)


BOUNDARIES = {
    "before valid": (VALID_FROM - 1, TRAIN, GAP),
    "valid begins": (VALID_FROM, VALID, VALID),
    "before test": (TEST_FROM - 1, VALID, GAP),
    "test begins": (TEST_FROM, TEST, TEST),
    "last of train before the gap": (VALID_FROM - DAY - 1, TRAIN, TRAIN),
    "first of the first gap": (VALID_FROM - DAY, TRAIN, GAP),
    "last of valid before the gap": (TEST_FROM - DAY - 1, VALID, VALID),
    "first of the second gap": (TEST_FROM - DAY, VALID, GAP),
    "before 1970": (-1, TRAIN, TRAIN),
    "long ago": (-(2**62), TRAIN, TRAIN),
    "far ahead": (2**62, TEST, TEST),
    "null": (None, UNKNOWN, UNKNOWN),
}


@pytest.mark.parametrize("case", BOUNDARIES)
def test_boundaries_to_the_microsecond(case: str):
    micros, without_gap, with_gap = BOUNDARIES[case]
    assert split_by_time(by_time(), times(micros)).tolist() == [without_gap]
    assert split_by_time(by_time(gap="1d"), times(micros)).tolist() == [with_gap]


@pytest.mark.parametrize(
    ("valid_from", "micros"),
    [
        ("2013-11-01T00:00:00+02:00", VALID_FROM - 2 * 3_600_000_000),
        ("2013-11-01T00:00:00.000001Z", VALID_FROM + 1),
        ("2013-10-31T20:00:00-04:00", VALID_FROM),
    ],
)
def test_a_boundary_may_have_a_zone_and_a_fraction(valid_from: str, micros: int):
    found = split_by_time(by_time(valid_from=valid_from), times(micros - 1, micros))
    assert found.tolist() == [TRAIN, VALID]


def test_dates_begin_at_midnight():
    days = pa.array([dt.date(2013, 10, 31), dt.date(2013, 11, 1), dt.date(2013, 12, 1), None])
    assert split_by_time(by_time(), days).tolist() == [TRAIN, VALID, TEST, UNKNOWN]


def test_a_slice_and_no_rows():
    assert split_by_time(by_time(), times(0, None, TEST_FROM).slice(1)).tolist() == [UNKNOWN, TEST]
    assert split_by_time(by_time(), times()).tolist() == []
    assert split_by_hash(HashSplit(by="hash"), [pa.array([], pa.string())]).tolist() == []


@settings(max_examples=50)
@given(
    st.lists(st.integers(VALID_FROM - 3 * DAY, TEST_FROM + 3 * DAY), min_size=2),
    st.integers(0, 3 * 24),
)
def test_no_two_splits_are_closer_than_the_gap(micros: list[int], hours: int):
    codes = split_by_time(by_time(gap=f"{hours}h"), times(*micros))
    at = np.array(micros)
    for before, after in ((TRAIN, VALID), (VALID, TEST), (TRAIN, TEST)):
        early, late = at[codes == before], at[codes == after]
        if len(early) and len(late):
            assert late.min() - early.max() > hours * 3_600_000_000


ROWS = 100_000
KEYS = pa.array(np.arange(ROWS)).cast(pa.string())


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (0.998, 0.001, 0.001)])
def test_shares_are_those_of_the_spec(shares: tuple[float, float, float]):
    train, valid, test = shares
    split = HashSplit(by="hash", train=train, valid=valid, test=test)
    found = np.bincount(split_by_hash(split, [KEYS]), minlength=3) / ROWS
    deviation = np.sqrt(np.array(shares) * (1 - np.array(shares)) / ROWS)
    assert (np.abs(found - shares) < 4.5 * deviation).all()


def test_e8_a_row_keeps_its_split_whatever_the_order_and_the_batches():
    split = HashSplit(by="hash", seed=7)
    whole = split_by_hash(split, [KEYS])
    order = np.random.default_rng(1).permutation(ROWS)
    assert (split_by_hash(split, [KEYS.take(pa.array(order))]) == whole[order]).all()
    parts = [split_by_hash(split, [KEYS.slice(i, 7_919)]) for i in range(0, ROWS, 7_919)]
    assert (np.concatenate(parts) == whole).all()
    assert (split_by_hash(split, [KEYS.dictionary_encode()]) == whole).all()


def test_e8_a_group_stays_in_one_split():
    groups = pa.array(np.arange(ROWS) % 100)
    codes = split_by_hash(HashSplit(by="hash", group=("g",)), [groups])
    assert all(len(set(codes[g::100].tolist())) == 1 for g in range(100))
    assert set(codes.tolist()) == {TRAIN, VALID, TEST}


def test_a_larger_share_of_train_only_takes_from_the_others():
    small = split_by_hash(HashSplit(by="hash", train=0.6, valid=0.2, test=0.2), [KEYS])
    large = split_by_hash(HashSplit(by="hash", train=0.7, valid=0.1, test=0.2), [KEYS])
    assert (large[small == TRAIN] == TRAIN).all()
    assert ((small == TEST) == (large == TEST)).mean() > 0.9999


def test_another_seed_is_another_split():
    one, other = (split_by_hash(HashSplit(by="hash", seed=s), [KEYS]) for s in (0, 1))
    both = np.mean((one == TEST) & (other == TEST))
    assert abs(both - 0.01) < 0.002


def test_a_null_is_a_group_of_its_own():
    codes = split_by_hash(HashSplit(by="hash"), [pa.nulls(50, pa.string())])
    assert len(set(codes.tolist())) == 1


def test_the_golden_splits_never_change():
    codes = split_by_hash(
        HashSplit(by="hash", train=0.4, valid=0.3, test=0.3, seed=7), [KEYS[:24]]
    )
    assert "".join(map(str, codes.tolist())) == "111202200011110112002001"
