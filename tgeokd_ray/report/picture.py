"""A plot of a report as a picture of its own, for documents."""

from __future__ import annotations

from importlib.resources import files

from tgeokd_ray.report import svg
from tgeokd_ray.report.markup import Markup, tag

NAMESPACE = "http://www.w3.org/2000/svg"
BACKGROUND = "svg { background: var(--paper); }"


def picture(drawing: Markup) -> str:
    """The text of an SVG file that shows a drawing of `svg` with the colours of a report, light or dark as whoever
    looks has it. Nothing outside is asked for; the same drawing gives the same text. ValueError for anything but one
    drawing."""
    opening = "<svg "
    if not drawing.startswith(opening) or drawing.count(opening) != 1:
        raise ValueError("a picture holds one drawing")
    style = files("tgeokd_ray.report").joinpath("plots.css").read_text(encoding="utf-8")
    head, _, body = drawing.removeprefix(opening).partition(">")
    return f'{opening}xmlns="{NAMESPACE}" width="{svg.WIDTH}" {head}>{tag("style", Markup(style + BACKGROUND))}{body}\n'
