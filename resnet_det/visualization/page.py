"""Pages of one HTML file, which need neither a server nor the network: what all of them share.

A page is a template beside its code (``templates/``) that extends ``page.html`` of this room: the style, light and
dark, and tables that sort by a click.
"""

from __future__ import annotations

import math
from typing import Any

import jinja2

_SHARED = "resnet_det.visualization"


def render_page(package: str, template: str, **values: Any) -> str:
    """The page as HTML.

    Args:
        package: whose folder ``templates`` has the template.
        values: for the template. Text is escaped, as names of files and classes may hold anything.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader(_SHARED)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    return environment.get_template(template).render(**values)


def format_number(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A number for a table; a dash for what was not computed."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001 (a dash)
    return f"{value:{'+' if sign else ''},.{digits}f}"
