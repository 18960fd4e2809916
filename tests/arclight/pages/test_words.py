import pytest

from arclight.pages import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, words.UNKNOWN), (float("nan"), words.UNKNOWN), (0.0, "0"),
        (12.0, "12"), (1234567.0, "1,234,567"),
        (0.000012345, "1.234e-05"), (0.5, "0.5"), (3.14159, "3.142"), (-2.5, "-2.5"),
        (1e20, "1.000e+20"), (99.996, "100"),
    ],
)  # fmt: skip
def test_number(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 100, "0 %"), (1, 3, "33.3 %"), (1, 10**6, "< 0.01 %"), (999_999, 10**6, "> 99.99 %"),
        (5, 1000, "0.50 %"), (1, 0, words.UNKNOWN), (None, 1, words.UNKNOWN), (4, 4, "100.0 %"),
    ],
)  # fmt: skip
def test_share(part, whole, text):
    assert words.share(part, whole) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_910_000, "1.91 MB"), (10**18, "1e+03 PB")],
)
def test_size(size_bytes, text):
    assert words.size(size_bytes) == text


def test_moment():
    assert words.moment("2013-01-01T10:15:00Z") == "2013-01-01 10:15 UTC"
    assert words.moment("2013-01-01") == "2013-01-01"


def test_cut():
    assert words.cut("abcdef", 4) == "abc…"
    assert words.cut("abcd", 4) == "abcd"


def test_readable_writes_out_what_hides():
    assert words.readable("a\x1b[0m\u202eb") == "a\\x1b[0m\\u202eb"
