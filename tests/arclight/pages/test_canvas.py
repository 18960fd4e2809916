import re
import xml.etree.ElementTree as ET

import pytest

from arclight.pages.canvas import Canvas, nice_ticks
from tests.arclight.pages.made_up import HOSTILE


def drawn(text="name", alt="a chart"):
    canvas = Canvas(60)
    canvas.bar(1.23456, 2, 30, 4, fill="train", alpha=0.5)
    canvas.line([(0, 0), (10, 10)], ink="valid", dashes=(3, 2))
    canvas.dot(5, 5, 2, fill="bad")
    canvas.text(4, 5, text)
    return canvas.svg(alt)


@pytest.mark.parametrize(
    "text",
    [
        "</text><script>alert(1)</script>", "a & b", "$\\frac{1}$", "漢字 emoji 🛫", "]]> -->",
        'd="1.23456" style="fill: #0a0105"', "#0a0105",
    ],
)  # fmt: skip
def test_a_text_is_shown_as_it_is(text):
    shapes = ET.fromstring(drawn(text))
    assert [shape.text for shape in shapes.iter("text")] == [text]


def test_control_characters_are_written_out():
    assert "\\x1b[31m\\u202e" in drawn(HOSTILE)


def test_the_alt_cannot_leave_its_attribute():
    svg = drawn(alt='"><script>x</script>')
    assert "<script" not in svg
    assert ET.fromstring(svg).attrib["aria-label"] == '"><script>x</script>'


def test_colours_are_the_pages_and_nothing_meets_on_a_page():
    svg = drawn()
    for ink in ("train", "valid", "bad", "soft"):
        assert f"var(--{ink})" in svg
    assert not re.search(r"#[0-9a-f]{6}|\bid=|<style|font-family|clip-path", svg)


def test_numbers_are_short():
    assert "1.2 " in drawn()
    assert "1.23" not in drawn()


def test_the_same_chart_is_the_same_text():
    assert drawn() == drawn()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (1e6, 3e6), (0, 1e-5)])
def test_ticks_lie_within(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert min(ticks) >= low
    assert max(ticks) <= high
