"""Small tables whose cells are tinted by their figure: what was chosen from, and the ratio by geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgeokd_ray.report.markup import Markup, tag
from tgeokd_ray.report.wording import count, fixed, measure

TINTS = 10  # classes t0 to t10 of report.css
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """A figure, how strongly it is tinted in 0..1, what stands below it, and whether it is the chosen one."""

    figure: str
    tint: float
    under: str = ""
    chosen: bool = False


def heat(
    caption: str, corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell | None]]]
) -> Markup:
    """A table of cells under their caption; its rows and columns are named, a cell may be missing."""
    head = tag("tr", tag("th", corner, scope="col"), [tag("th", name, scope="col") for name in columns])
    body = [tag("tr", tag("th", name, scope="row"), [_cell(cell) for cell in cells]) for name, cells in rows]
    table = tag("table", tag("thead", head), tag("tbody", body), class_="heat")
    framed = tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex="0")
    return tag("figure", tag("figcaption", caption), framed)


def _cell(cell: Cell | None) -> Markup:
    if cell is None:
        return tag("td")
    under = tag("small", cell.under, class_="under") if cell.under else None
    chosen = " chosen" if cell.chosen else ""
    return tag("td", cell.figure, under, class_=f"t{round(cell.tint * TINTS)}{chosen}")


def choices(results: Results, model: Results) -> list[Markup]:
    """The metric on valid of every candidate by strength and shift, a table for each temperature, and of the constants
    beside them, all on one scale."""
    choice = model.get("choice") or {}
    candidates = choice.get("candidates") or []
    if not candidates:
        return []
    metric = choice["metric"]
    constants = {one["name"]: value for one in results["models"] if (value := _on_valid(one, metric)) is not None}
    kept = {one["name"] for one in results["models"] if one.get("chosen") and not choice["pays"]}
    known = [one["valid"] for one in candidates] + list(constants.values())
    scale = _Scale(min(known), max(known), lower_is_better=metric == "nll")
    tables = []
    temperatures = sorted({one["temperature"] for one in candidates})
    for temperature in temperatures:
        told = f", temperature {temperature:g}" if len(temperatures) > 1 else ""
        own = [one for one in candidates if one["temperature"] == temperature]
        tables.append(_grid(f"{measure(metric)} on valid by strength and shift{told}", own, choice["chosen"], scale))
    rows = [
        (name.removeprefix("constant-"), [scale.cell(value, chosen=name in kept)]) for name, value in constants.items()
    ]
    return [
        *tables,
        *([heat(f"{measure(metric)} on valid of the constants", "constant", [measure(metric)], rows)] if rows else []),
    ]


def _on_valid(model: Results, metric: str) -> float | None:
    """The metric on valid of a constant; None of other models."""
    constant = (model.get("rule") or {}).get("kind") == "constant"
    value: float | None = (model.get("valid") or {}).get(metric) if constant else None
    return value


def _grid(caption: str, candidates: Sequence[Results], chosen: Results, scale: _Scale) -> Markup:
    strengths, shifts = (sorted({one[name] for one in candidates}) for name in ("strength", "shift"))
    places = {(one["strength"], one["shift"]): one for one in candidates}
    longest = max(one["epochs"] for one in candidates)

    def cell(strength: float, shift: float) -> Cell | None:
        one = places.get((strength, shift))
        if one is None:
            return None
        stopped = f"{one['epochs']} epochs" if one["epochs"] < longest else ""
        return scale.cell(one["valid"], under=stopped, chosen=one == chosen)

    rows = [(f"strength {strength:g}", [cell(strength, shift) for shift in shifts]) for strength in strengths]
    return heat(caption, "shift", [f"{shift:+g}" for shift in shifts], rows)


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    lower_is_better: bool

    def cell(self, value: float, under: str = "", *, chosen: bool = False) -> Cell:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return Cell(fixed(value), 1 - share if self.lower_is_better else share, under, chosen)


def geometry(effect: Results) -> list[Markup]:
    """Mean ratio by whether the teacher is right and the student near it, a table for each teacher."""
    told = effect.get("geometry") or []
    tables = []
    for number, one in enumerate(told):
        whose = f"teacher {number + 1}" if len(told) > 1 else "the teacher"
        rows = [
            (f"{whose} {right}", [_part(one[f"{right}_{side}"]) for side in ("near", "far")])
            for right in ("right", "wrong")
        ]
        tables.append(heat(f"Mean weight of {whose} by geometry", "", ["student near", "student far"], rows))
    return tables


def _part(cell: Results) -> Cell | None:
    return Cell(fixed(cell["mean"], 3), cell["mean"], f"{count(cell['rows'])} rows") if cell["rows"] else None
