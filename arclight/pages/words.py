"""How numbers are written on a page."""

from __future__ import annotations

import math

from arclight.errors import printable

UNKNOWN = "\N{EN DASH}"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count(value: int | None) -> str:
    """Return a whole number with thousands separators."""
    return UNKNOWN if value is None else f"{value:,}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with about `digits` significant digits, none of them invented."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    size = abs(value)
    if not 1e-4 <= size < 1e15:
        return f"{value:.{digits - 1}e}"
    if size >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    decimals = digits - 1 - math.floor(math.log10(size))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def fixed(value: float | None, decimals: int = 3) -> str:
    """Return a number with so many decimals, as figures that are compared are written."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.{decimals}f}"


def share(part: float | None, whole: float = 1.0) -> str:
    """Return part of whole in percent; what is above nothing never reads 0 %."""
    if part is None or not whole:
        return UNKNOWN
    percent = 100 * part / whole
    if percent == 0:
        return "0 %"
    if percent < 0.01:
        return "< 0.01 %"
    if 99.99 < percent < 100:
        return "> 99.99 %"
    return f"{percent:.{2 if percent < 1 or 99 < percent < 100 else 1}f} %"


def size(size_bytes: int) -> str:
    """Return a size in the unit that keeps it below 1,000."""
    value, place = float(size_bytes), 0
    while value >= 999.5 and place < len(_UNITS) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.0f} {_UNITS[place]}" if place == 0 else f"{value:.3g} {_UNITS[place]}"


def moment(iso: str) -> str:
    """Return an ISO time in UTC to the minute, or the text as it is if it is none."""
    head = iso[:16]
    return f"{head.replace('T', ' ')} UTC" if len(iso) > 16 and iso[10] == "T" else iso


def cut(text: str, limit: int) -> str:
    """Return text of at most `limit` characters, its end replaced by an ellipsis if cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def readable(text: object) -> str:
    """Return text as people can read it: control and direction characters written out."""
    return printable(text, limit=500)
