import numpy as np
import pyarrow as pa
import pytest

from arclight.drift import Shift, measure_shift, stability_index
from arclight.summary import make_builder


def number(values, *, nulls=0):
    builder = make_builder("x", "number")
    array = pa.array([*np.asarray(values, np.float32).tolist(), *[None] * nulls], pa.float32())
    builder.add(array, np.zeros(len(array)))
    return builder.freeze()


def category(values):
    builder = make_builder("x", "category")
    builder.add(pa.array(values, pa.string()), np.zeros(len(values)))
    return builder.freeze()


def test_stability_index_by_hand():
    # (0.2 - 0.5) ln(0.2 / 0.5) + (0.8 - 0.5) ln(0.8 / 0.5)
    found = stability_index(np.array([5.0, 5.0]), np.array([2.0, 8.0]))
    assert found == pytest.approx(0.3 * np.log(2.5) + 0.3 * np.log(1.6))


def test_an_empty_bin_is_far_but_not_infinitely_far():
    found = stability_index(np.array([10.0, 0.0]), np.array([5.0, 5.0]))
    assert 1 < found < 10


@pytest.mark.parametrize(
    ("after", "grade"),
    [(0.0, "none"), (0.4, "moderate"), (1.5, "large")],
)
def test_a_number_that_moves_is_graded(after, grade):
    rng = np.random.default_rng(1)
    before = number(rng.normal(size=20_000))
    assert measure_shift(before, number(rng.normal(after, 1, 20_000))).grade == grade


def test_the_index_of_numbers_is_that_of_their_tenths():
    before = number(np.arange(1000))
    after = number(np.arange(500))
    # five tenths hold twice their share, five are empty and count as half a row of 500
    expected = 5 * (0.1 * np.log(2)) + 5 * (1e-3 - 0.1) * np.log(1e-3 / 0.1)
    assert measure_shift(before, after).psi == pytest.approx(expected, rel=1e-6)


def test_a_flag_that_is_mostly_1_moves_as_far_as_one_that_is_mostly_0():
    ones, half = np.arange(2000) % 20 > 0, np.arange(2000) % 2 > 0
    shift = measure_shift(number(ones), number(half))
    assert shift == measure_shift(number(~ones), number(~half))
    # (0.5 - 0.05) ln(0.5 / 0.05) + (0.5 - 0.95) ln(0.5 / 0.95)
    assert shift.psi == pytest.approx(0.45 * np.log(10) - 0.45 * np.log(0.5 / 0.95))


@pytest.mark.parametrize("constant", [5.0, 0.0, float(np.finfo(np.float32).min)])
def test_a_constant_that_is_another_one_is_a_large_shift_on_either_side(constant):
    before = number([constant] * 500)
    for moved in (-1.0, 4.0, 6.0):
        assert measure_shift(before, number([moved] * 500)).grade == "large"
    assert measure_shift(before, number([constant] * 400)) == Shift(psi=0.0, noise=0.0)


def test_nulls_alone_are_a_shift():
    same = np.arange(1000)
    assert measure_shift(number(same), number(same, nulls=500)).grade == "large"


@pytest.mark.parametrize(
    ("before", "after", "grade"),
    [
        (["a"] * 500 + ["b"] * 500, ["a"] * 510 + ["b"] * 490, "none"),
        (["a"] * 500 + ["b"] * 500, ["a"] * 900 + ["b"] * 100, "large"),
        (["a"] * 1000, ["new"] * 1000, "large"),
    ],
)
def test_a_category_is_compared_by_its_levels(before, after, grade):
    assert measure_shift(category(before), category(after)).grade == grade


def test_a_large_index_of_a_few_rows_is_noise():
    rng = np.random.default_rng(2)
    before = number(rng.normal(size=20_000))
    shifts = [measure_shift(before, number(rng.normal(size=30))) for _ in range(60)]
    assert max(shift.psi for shift in shifts) > 0.25
    assert sum(shift.grade == "none" for shift in shifts) >= 54


def test_the_noise_is_passed_by_one_in_twenty():
    rng = np.random.default_rng(3)
    before = number(rng.normal(size=1000))
    passed = 0
    for _ in range(400):
        shift = measure_shift(before, number(rng.normal(size=1000)))
        passed += shift.psi > shift.noise
    assert passed < 400 * 0.12


def test_no_rows_give_no_shift():
    assert measure_shift(number([]), number([1.0])) is None
    assert measure_shift(number([1.0]), number([])) is None


def test_a_column_of_nulls_has_not_moved():
    assert measure_shift(number([], nulls=9), number([], nulls=5)) == Shift(psi=0.0, noise=0.0)


def test_a_category_of_rare_levels_alone_cannot_be_told_but_for_its_nulls():
    before = category([f"k{i}" for i in range(2000)])
    assert measure_shift(before, category([f"j{i}" for i in range(2000)])) is None
    nulls = category([f"j{i}" for i in range(1000)] + [None] * 1000)
    assert measure_shift(before, nulls).grade == "large"
