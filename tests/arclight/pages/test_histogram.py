import numpy as np
import pyarrow as pa
import pytest

from arclight.pages.histogram import make_histogram
from arclight.summary import make_builder


def summary(values):
    builder = make_builder("x", "number")
    builder.add(pa.array(np.asarray(values, np.float32)), np.zeros(len(values)))
    return builder.freeze().trim()


def test_shares_are_those_of_the_rows():
    values = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    found = make_histogram({"train": summary(values)})
    exact = np.histogram(values, found.edges)[0] / len(values)
    assert np.abs(found.shares["train"] - exact).max() < 0.002


def test_every_split_has_the_same_bins():
    found = make_histogram({"train": summary(np.arange(50.5)), "test": summary(np.arange(90.5))})
    assert found.edges[0] <= 0
    assert found.edges[-1] >= 90
    assert set(found.shares) == {"train", "test"}
    assert found.shares["test"].sum() == pytest.approx(1)


@pytest.mark.parametrize("top", [2, 12, 24, 61, 365, 100_000])
def test_whole_numbers_have_bins_of_whole_width(top):
    found = make_histogram({"train": summary(np.arange(top) % top)})
    widths = np.diff(found.edges)
    assert np.all(widths == np.round(widths))
    assert found.shares["train"].sum() == pytest.approx(1)
    assert len(widths) <= 38


def test_a_long_tail_is_cut_and_said_so():
    values = np.concatenate([np.random.default_rng(0).normal(size=5000), [1e6]])
    found = make_histogram({"train": summary(values)})
    assert found.is_cut
    assert found.edges[-1] < 10


@pytest.mark.parametrize("value", [0.0, 7.0, -2.5, 1e30, 3.4028234e38])
def test_one_value_fills_one_bin(value):
    found = make_histogram({"train": summary(np.full(10, value))})
    assert found.peak == 1
    assert np.all(np.diff(found.edges) > 0)


def test_no_value_gives_no_histogram():
    assert make_histogram({"train": summary([])}) is None
