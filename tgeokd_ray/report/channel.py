"""What a channel model says of the given labels: one section of the report, one line on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgeokd_ray.report.markup import Markup, tag
from tgeokd_ray.report.plots import class_names, section
from tgeokd_ray.report.wording import count, fixed

Results = Mapping[str, Any]
Part = Mapping[str, Any]

HEADINGS = ("rows", "labels", "suspicious", "noise", "teacher credible")


def sentence(results: Results) -> str | None:
    """How many labels are suspicious, and where they are listed; None where no channel was fitted."""
    told = results.get("channel")
    if not told:
        return None
    return (
        f"labels: {count(told['suspicious_rows'])} of {count(told['rows'])} are suspicious, listed in {told['file']}; "
        "outer and valid rows go by denoised labels"
    )


def labels(results: Results) -> Markup | None:
    """The section: held-out losses of student, teacher and mixture, and what is suspicious, by class and by column."""
    told = results.get("channel")
    if not told:
        return None
    losses = [fixed(told[f"{who}_nll"], 3) for who in ("student", "teacher", "mixture")]
    note = (
        "A channel model has denoised the labels of outer and valid rows, by which everything was chosen; test figures "
        f"go by the labels as given. NLL of held-out labels: {losses[0]} nats by the student, {losses[1]} by the "
        f"teacher, {losses[2]} by both and the noise. {count(told['suspicious_rows'])} labels have less than a tenth "
        f"of their denoised one: {told['file']} lists them for an audit; audited rows can come back as trusted ones."
    )
    body = [_row(name, part) for name, part in _parts(results, told)]
    head = tag("tr", [tag("th", heading, scope="col") for heading in HEADINGS])
    table = tag("table", tag("thead", head), tag("tbody", body), class_="figures")
    grid = tag("div", table, class_="scroll", role="region", aria_label="Labels by segment", tabindex="0")
    return section("Labels", grid, note)


def _parts(results: Results, told: Part) -> list[tuple[str, Part]]:
    classes = list(told["by_class"])
    named = zip(class_names(results, classes), (told["by_class"][key] for key in classes), strict=True)
    halves = [
        (f"{one['column']}, {word}", one[key])
        for one in told["by_column"]
        for key, word in (("low", "lower half"), ("high", "upper half"))
    ]
    return [("all", told), *((f"label {name}", part) for name, part in named), *halves]


def _row(name: str, part: Part) -> Markup:
    shares = [fixed(part[key], 3) for key in ("suspicious", "noise", "credibility")]
    return tag("tr", tag("th", name, scope="row"), [tag("td", cell) for cell in (count(part["rows"]), *shares)])
