"""Pages of HTML that are one file, open without a server, and ask nothing of the network."""

from __future__ import annotations

from typing import Any

import jinja2


def render_page(template: str, **values: Any) -> str:
    """A page from ``templates/<template>``. What stands in ``values`` is escaped: names of files and classes may hold
    anything."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resnet_det.visualization", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
