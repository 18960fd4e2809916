"""A sheet to draw a small chart on, and its way into a page.

Charts are Matplotlib figures without axes: a column's chart is a dozen artists and takes a few
milliseconds, where axes with ticks take forty. What leaves is inline SVG that follows the page:
its colours are the page's variables (so it turns dark with it) and its text is text.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D

from arclight.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

Ink = Literal["ink", "soft", "line", "card", "train", "valid", "test", "mark", "flow", "bad"]
Anchor = Literal["left", "center", "right"]

WIDTH = 360.0
"""Points; drawn for a phone's width, where a point is a pixel."""

# Stand-ins for the page's variables: colours that mean nothing to Matplotlib but their name.
_STAND_INS: dict[Ink, str] = {
    "ink": "#0a0101", "soft": "#0a0102", "line": "#0a0103", "card": "#0a0104", "train": "#0a0105",
    "valid": "#0a0106", "test": "#0a0107", "mark": "#0a0108", "flow": "#0a0109", "bad": "#0a010a",
}  # fmt: skip
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "arclight"}
_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


class Canvas:
    """A sheet whose coordinates are points from the top left corner."""

    def __init__(self, height: float, width: float = WIDTH) -> None:
        self.width, self.height = width, height
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=72, frameon=False)
        FigureCanvasSVG(self._figure)
        self._place = Affine2D().scale(1, -1).translate(0, height)

    def bar(
        self, x: float, y: float, width: float, height: float, *, fill: Ink, alpha: float = 1
    ) -> None:
        """Fill a rectangle."""
        self.area(
            [(x, y), (x + width, y), (x + width, y + height), (x, y + height)],
            fill=fill,
            alpha=alpha,
        )

    def area(self, corners: Sequence[tuple[float, float]], *, fill: Ink, alpha: float = 1) -> None:
        """Fill a polygon."""
        self._add(Polygon(corners, closed=True, **_fill(fill, alpha)))

    def line(
        self,
        points: Sequence[tuple[float, float]],
        *,
        ink: Ink,
        width: float = 1,
        dashes: tuple[float, ...] = (),
    ) -> None:
        """Draw a line through points."""
        xs, ys = [x for x, _ in points], [y for _, y in points]
        line = Line2D(
            xs, ys, color=_STAND_INS[ink], linewidth=width, solid_capstyle="butt", clip_on=False
        )
        if dashes:
            line.set_linestyle((0, dashes))
        self._add(line)

    def dot(self, x: float, y: float, radius: float, *, fill: Ink) -> None:
        """Fill a circle."""
        self._add(Circle((x, y), radius, **_fill(fill, 1)))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 11,
        ink: Ink = "soft",
        anchor: Anchor = "left",
    ) -> None:
        """Write one line, centred on y; control characters are written out."""
        self._figure.text(
            x,
            y,
            printable(text),
            transform=self._place,
            fontsize=size,
            color=_STAND_INS[ink],
            ha=anchor,
            va="center_baseline",
            parse_math=False,
        )

    def _add(self, artist: Polygon | Line2D | Circle) -> None:
        artist.set_transform(self._place)
        self._figure.add_artist(artist, clip=False)

    def svg(self, alt: str) -> Markup:
        """Return the sheet as inline SVG.

        Args:
            alt: what the chart shows, in words, for those who do not see it.
        """
        sheet = io.StringIO()
        with mpl.rc_context(_STYLE), warnings.catch_warnings():
            # text is shown by the reader's fonts; Matplotlib only measures it with its own
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self._figure.savefig(sheet, format="svg", metadata=_METADATA, transparent=True)
        return _inline(sheet.getvalue(), alt, self.width, self.height)


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers within low…high."""
    ticks = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = (high - low) * 1e-9
    return [float(tick) for tick in ticks if low - slack <= tick <= high + slack]


def _fill(ink: Ink, alpha: float) -> dict[str, Any]:
    shade = alpha if alpha < 1 else None
    return {"facecolor": _STAND_INS[ink], "linewidth": 0, "alpha": shade, "clip_on": False}


_TAG = re.compile(r"<[^>]*>")
_STYLE_ATTRIBUTE = re.compile(r'style="([^"]*)"')
_NOISE = re.compile(r"font-family:[^;]*;?\s*|stroke-dashoffset: 0;\s*")
_UNTURNED = re.compile(r' transform="rotate\(-?0 [^)]*\)"')
_LONG = re.compile(r"(\d+\.\d)\d+")
_VARIABLES = {color: f"var(--{ink})" for ink, color in _STAND_INS.items()}
_COLOR = re.compile("|".join(_VARIABLES))


def _inline(svg: str, alt: str, width: float, height: float) -> Markup:
    """Keep the shapes and texts alone, shortened; ids would meet each other on a page."""
    body = svg[svg.index("<g ") : svg.rindex("</svg>")]
    body = re.sub(r"\s*\n\s*", " ", _TAG.sub(lambda m: _short_tag(m[0]), body))
    head = Markup('<svg role="img" aria-label="{}" viewBox="0 0 {:g} {:g}">')
    drawn = _Drawn(body)  # Matplotlib has escaped its texts
    return head.format(printable(alt, limit=2000), width, height) + drawn + Markup("</svg>")


class _Drawn(str):
    """Markup that Matplotlib wrote."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def _short_tag(tag: str) -> str:
    if tag.startswith(("<g", "</g")):
        return ""
    short = _LONG.sub(r"\1", _UNTURNED.sub("", tag))
    return _STYLE_ATTRIBUTE.sub(lambda m: f'style="{_themed(m[1])}"', short)


def _themed(style: str) -> str:
    return _COLOR.sub(lambda m: _VARIABLES[m[0]], _NOISE.sub("", style))
