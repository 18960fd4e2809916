"""The frame of every page: one template engine that escapes everything it is given."""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from arclight.pages import words


@functools.cache
def _environment() -> Environment:
    engine = Environment(
        loader=PackageLoader("arclight.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {
        "rows": words.count,
        "figure": words.number,
        "fixed": words.fixed,
        "size": words.size,
        "moment": words.moment,
        "cut": words.cut,
        "text": words.readable,
    }
    engine.globals["share"] = words.share
    return engine


def render(template: str, **values: Any) -> str:
    """Return a page as text.

    Args:
        template: its file under `templates/`.
        values: what the template names; text is escaped, charts (`Markup`) are not.
    """
    return _environment().get_template(template).render(**values)
