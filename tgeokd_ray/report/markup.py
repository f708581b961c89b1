"""Markup whose text is escaped by construction: a string is text until `tag` or `Markup` makes it markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from tgeokd_ray.report.wording import plain

VOID = {"meta"}


class Markup(str):
    """Text that is markup already; only `tag` and trusted files of this package make it."""

    __slots__ = ()


Child = str | None | Iterable["Child"]


def tag(element: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """`<element attribute="...">children</element>`; text and values are escaped, control characters made visible.

    A trailing underscore of an attribute's name is dropped, others become hyphens. None leaves out a child or an
    attribute.
    """
    parts = (
        f' {key.rstrip("_").replace("_", "-")}="{escape(plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    opening = f"<{element}{''.join(parts)}>"
    return Markup(opening if element in VOID else f"{opening}{''.join(_flat(children))}</{element}>")


def _flat(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str):
            yield escape(plain(child))
        elif child is not None:
            yield from _flat(child)


def grid(caption: str, headings: list[str], rows: Sequence[Sequence[Child]], *, figures: bool = True) -> Markup:
    """A table whose first column names the row; it scrolls by itself on a narrow page."""
    head = tag("tr", [tag("th", heading, scope="col") for heading in headings])
    body = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    table = tag("table", tag("thead", head), tag("tbody", body), class_="figures" if figures else None)
    return tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex="0")
