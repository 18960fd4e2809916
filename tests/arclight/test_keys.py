from __future__ import annotations

import math
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arclight import keys
from arclight.errors import DataError
from arclight.keys import hash_rows, row_digests

MASK = 2**64 - 1
UTC = pa.timestamp("us", tz="UTC")


# the same hash written slowly from its description


def slow_mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def slow_value(value: object, seed: int) -> int:
    if value is None:
        return 0xA5A5_1E5F_00D0_0B1E
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        base = (0x2F72_B421_5A35_93D5, 0xD6E8_FEB8_6659_FD93)[seed % 2]
        total = sum((byte + 1) * pow(base, i, 2**64) for i, byte in enumerate(value)) & MASK
        return slow_mix(total ^ slow_mix(len(value)))
    if isinstance(value, float):
        value = math.nan if math.isnan(value) else value + 0.0
        return slow_mix(struct.unpack("<Q", struct.pack("<d", value))[0])
    assert isinstance(value, int)
    return slow_mix(value & MASK)


def slow_hash(row: tuple[object, ...], seed: int) -> int:
    state = (seed ^ 0x6A09_E667_F3BC_C909) & MASK
    for value in row:
        state = slow_mix(slow_mix(state) ^ slow_value(value, seed))
    return state


SCALARS = {
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "float64": (pa.float64(), st.floats()),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), st.text("ab\0é🚀", max_size=40)),
    "binary": (pa.binary(), st.binary(max_size=40)),
}


@pytest.mark.parametrize("name", SCALARS)
@settings(max_examples=25)
@given(data=st.data())
def test_the_hash_is_what_its_description_says(name: str, data: st.DataObject):
    kind, values = SCALARS[name]
    column = data.draw(st.lists(st.one_of(st.none(), values), max_size=20))
    seed = data.draw(st.integers(0, 2**63))
    found = hash_rows([pa.array(column, kind)], seed=seed).tolist()
    assert found == [slow_hash((value,), seed) for value in column]


def test_columns_are_mixed_in_order():
    a, b = pa.array(["x", "y", None]), pa.array([1, None, 1])
    assert hash_rows([a, b], seed=5).tolist() == [
        slow_hash(row, 5) for row in (("x", 1), ("y", None), (None, 1))
    ]
    assert not set(hash_rows([a, b]).tolist()) & set(hash_rows([b, a]).tolist())


# A release must never change these: every split, row key and count of levels hangs on them.
GOLDEN = {
    "strings": (
        pa.array(["", "a", "ab", "ba", "\0", "é", "e\u0301", "🚀", None]),
        [
            "b196cfa239b1a103",
            "fb35a7d6f72fbba8",
            "fd72f6d5a1e632a5",
            "c5a91f71e801fa3b",
            "dff0f239ed642199",
            "172a5869d27be58b",
            "ef70102bca0392dc",
            "85ac7671bb14341e",
            "00d2f04e8584e0ce",
        ],
    ),
    "integers": (
        pa.array([0, 1, -1, 2**63 - 1, -(2**63), None]),
        [
            "9e8a4f87cde22471",
            "6bcd4ba07f7b6911",
            "7d6c11e4a7118842",
            "7800077ad2da2e70",
            "48f02cdd3d96fe2d",
            "00d2f04e8584e0ce",
        ],
    ),
    "floats": (
        pa.array([0.0, 1.0, -1.5, 1e308, 5e-324, float("inf"), float("nan"), None]),
        [
            "9e8a4f87cde22471",
            "936ae15da25315e9",
            "4de2ad3f13659778",
            "d0038d7f72581f5b",
            "6bcd4ba07f7b6911",
            "a514fe1e22ea3355",
            "e0f2744adca33a3e",
            "00d2f04e8584e0ce",
        ],
    ),
    "instants": (
        pa.array([0, 1, -1, 1_600_000_000_000_000, None], UTC),
        [
            "9e8a4f87cde22471",
            "6bcd4ba07f7b6911",
            "7d6c11e4a7118842",
            "ddb57dd08fb2d81a",
            "00d2f04e8584e0ce",
        ],
    ),
    "booleans": (
        pa.array([False, True, None]),
        ["9e8a4f87cde22471", "6bcd4ba07f7b6911", "00d2f04e8584e0ce"],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_values_never_change(name: str):
    column, expected = GOLDEN[name]
    assert [f"{h:016x}" for h in hash_rows([column], seed=2).tolist()] == expected


def test_the_golden_digests_never_change():
    columns = [pa.array(["", "🚀", None]), pa.array([0, -1, None])]
    assert row_digests(columns).to_pylist() == [
        "5419d9337bfa06e27c004682f5b0a248",
        "e8385bb92465a3ff9f56fa57afd6a72e",
        "e500c40acec26704bd5ebcf794b90b71",
    ]


# the same value, the same hash, whatever carries it

SAME = {
    "int widths": [
        pa.array([0, 1, 100, None], kind)
        for kind in (
            pa.int8(),
            pa.int16(),
            pa.int32(),
            pa.int64(),
            pa.uint8(),
            pa.uint16(),
            pa.uint32(),
            pa.uint64(),
        )
    ],
    "negative int widths": [
        pa.array([-1, -128, None], kind)
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())
    ],
    "float widths": [
        pa.array([0.5, -2.0, None], k) for k in (pa.float16(), pa.float32(), pa.float64())
    ],
    "zeros": [pa.array([0.0]), pa.array([-0.0]), pa.array([-0.0], pa.float32())],
    "NaN payloads": [
        pa.array(np.array([bits], np.uint64).view(np.float64))
        for bits in (
            0x7FF8000000000000,
            0xFFF8000000000000,
            0x7FF0000000000001,
            0x7FFFFFFFFFFFFFFF,
        )
    ],
    "strings": [
        pa.array(["", "a", "🚀", None, "x" * 300], kind)
        for kind in (
            pa.string(),
            pa.large_string(),
            pa.string_view(),
            pa.binary(),
            pa.large_binary(),
        )
    ],
    "dictionaries": [
        pa.array(["b", "a", None, "b"]),
        pa.array(["b", "a", None, "b"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(
            pa.array([2, 1, 0, 2], pa.int8()), pa.array([None, "a", "b"])
        ),
        pa.DictionaryArray.from_arrays(
            pa.array([0, 1, None, 2], pa.uint8()), pa.array(["b", "a", "b"])
        ),
        pa.chunked_array([pa.array(["b", "a"]), pa.array([None, "b"])]),
        pa.chunked_array(
            [pa.array(["b", "a"]).dictionary_encode(), pa.array([None, "b"]).dictionary_encode()]
        ),
        pa.chunked_array([["b"], [], ["a", None, "b"]], pa.string()),
    ],
    "slices": [
        pa.array(["b", None, "a"]),
        pa.array(["x", "b", None, "a", "y"]).slice(1, 3),
        pa.array(["x", "b", None, "a", "y"], pa.large_string()).slice(1, 3),
        pa.array(["x", "b", None, "a", "y"]).dictionary_encode().slice(1, 3),
        pa.array([None, None, "b", None, "a"]).slice(2),
    ],
    "sliced integers": [pa.array([5, None]), pa.array([9, 5, None, 7]).slice(1, 2)],
    "sliced booleans": [pa.array([True, None]), pa.array([False, True, None, True]).slice(1, 2)],
    "units and zones": [
        pa.array([86_400_000_000, None], UTC),
        pa.array([86_400_000_000, None], pa.timestamp("us")),
        pa.array([86_400_000_000, None], pa.timestamp("us", tz="Asia/Tokyo")),
        pa.array([86_400_000_000_000, None], pa.timestamp("ns")),
        pa.array([86_400_000, None], pa.timestamp("ms", tz="America/New_York")),
        pa.array([86_400, None], pa.timestamp("s")),
    ],
    "dates": [pa.array([3, None], pa.date32()), pa.array([3 * 86_400_000, None], pa.date64())],
    "nulls": [pa.nulls(2), pa.nulls(2, pa.string()), pa.nulls(2, pa.int8()), pa.nulls(2, UTC)],
    "nothing": [pa.array([], k) for k in (pa.string(), pa.int64(), pa.float64(), pa.bool_())]
    + [
        pa.array([], pa.string()).dictionary_encode(),
        pa.chunked_array([], pa.string()),
        pa.nulls(0),
    ],
}


@pytest.mark.parametrize("case", SAME)
def test_one_value_hashes_alike(case: str):
    first, *others = (hash_rows([column], seed=3).tolist() for column in SAME[case])
    assert all(other == first for other in others)


def test_a_dictionary_as_large_as_its_index_type():
    levels = [f"level {i}" for i in range(128)]
    codes = pa.array([*range(128), None], pa.int8())
    coded = pa.DictionaryArray.from_arrays(codes, pa.array(levels))
    assert hash_rows([coded]).tolist() == hash_rows([pa.array([*levels, None])]).tolist()


def test_what_differs_hashes_apart():
    values = [None, "", "\0", "\0\0", "a", "a\0", "é", "e\u0301", "A", "null", "None"]
    assert len(set(hash_rows([pa.array(values)]).tolist())) == len(values)
    pair = [pa.array(["ab", "a", "", None]), pa.array(["", "b", "ab", "ab"])]
    assert len(set(hash_rows(pair).tolist())) == 4


def test_strings_longer_than_a_slice(monkeypatch: pytest.MonkeyPatch):
    column = pa.array(["a" * 7, "", "b" * 64, None, "🚀" * 50, "c", "d" * 65, "e" * 128])
    whole = hash_rows([column], seed=1).tolist()
    monkeypatch.setattr(keys, "_SLICE_BYTES", 64)
    assert hash_rows([column], seed=1).tolist() == whole
    assert whole == [slow_hash((value,), 1) for value in column.to_pylist()]


def test_e10_a_string_of_ten_megabytes():
    long = "ä" * 5_000_000
    first, second, third = hash_rows([pa.array([long, long + "x", long])]).tolist()
    assert first == third != second
    assert sum(len(kept) * 8 for kept in keys._CACHE.values()) < 300e6


def test_no_collisions_in_a_million_strings_and_an_even_spread():
    numbers = pa.array(np.arange(1_000_000)).cast(pa.string())
    hashes = hash_rows([numbers])
    assert len(np.unique(hashes)) == 1_000_000
    for bits in (hashes >> np.uint64(56), hashes & np.uint64(255)):
        counts = np.bincount(bits.astype(np.int64), minlength=256)
        chi_squared = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
        assert chi_squared < 360  # 99.9 % of a chi-squared with 255 degrees of freedom is 330


@pytest.mark.parametrize(
    "column", [pa.array(np.arange(100_000)), pa.array(np.arange(100_000)).cast(pa.string())]
)
def test_seeds_are_independent(column: pa.Array):
    shares = [hash_rows([column], seed=s).astype(np.float64) / 2**64 for s in (0, 1, 2, 4, 2**40)]
    found = np.corrcoef(shares)
    assert np.abs(found - np.eye(len(shares))).max() < 0.015  # about 4.7 deviations
    low = [share < 0.1 for share in shares]
    assert abs(np.mean(low[0] & low[2]) - 0.01) < 0.002


def test_a_seed_does_not_trade_places_with_a_value():
    values = pa.array(np.arange(100))
    table = np.array([hash_rows([values], seed=seed) for seed in range(100)])
    assert len(np.unique(table)) == 10_000


def test_digests_are_of_both_seeds():
    columns = [pa.array(["a", "b", None]), pa.array([1, 1, None])]
    high, low = hash_rows(columns, seed=0), hash_rows(columns, seed=1)
    assert row_digests(columns).to_pylist() == [
        f"{h:016x}{lo:016x}" for h, lo in zip(high.tolist(), low.tolist(), strict=True)
    ]
    assert row_digests([pa.array([], pa.string())]).to_pylist() == []


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([1], pa.duration("s")),
        pa.array([1], pa.time32("s")),
        pa.nulls(1, pa.decimal128(20, 2)),
    ],
)
def test_other_types_are_refused(column: pa.Array):
    with pytest.raises(DataError, match=r"a column of type .* cannot be part of a key"):
        hash_rows([column])
