"""The sections of a report that show a sweep: what was searched, every trial, and which parameter matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgeokd_ray.report import svg
from tgeokd_ray.report.markup import Child, Markup, grid, tag
from tgeokd_ray.report.plots import legend, plot, section
from tgeokd_ray.report.sweep_slices import BEST, FINISHED, STOPPED, reach, slices
from tgeokd_ray.report.sweep_wording import (
    SCHEDULERS,
    SEARCHES,
    best_trial,
    confirmed,
    counted,
    described,
    failures,
    finite,
    of_trial,
    paths,
    reason_of,
    short,
    spent,
    winner,
)
from tgeokd_ray.report.wording import MISSING, count, duration, fixed, measure

LISTED = 50
CURVES = 8  # and as many colours: 1 to 7, then the grey 0
REASON_LETTERS = 160

Results = Mapping[str, Any]
Sweep = Mapping[str, Any]


def of(results: Results) -> Sweep | None:
    """The sweep that these results tell of, None where there was none."""
    found: Sweep | None = (results.get("extra") or {}).get("sweep")
    return found


def sections(results: Results) -> list[Markup]:
    """What was searched and won, the leaderboard, a slice for each parameter, learning curves, importance, failures;
    those without data are left out. Nothing where the results tell of no sweep."""
    sweep = of(results)
    if sweep is None:
        return []
    shown = [_searched(results, sweep), _confirmed(sweep), _leaderboard(sweep), _slices(sweep)]
    shown += [_curves(sweep), _importance(sweep), _failed(sweep)]
    return [one for one in shown if one is not None]


def _searched(results: Results, sweep: Sweep) -> Markup:
    better = "higher" if sweep["higher_is_better"] else "lower"
    students = "one student" if sweep["seeds"] == 1 else f"the mean of {sweep['seeds']} students"
    how = f"{SEARCHES.get(sweep['search'], sweep['search'])}; {SCHEDULERS.get(sweep['scheduler'], sweep['scheduler'])}"
    note = (
        f"Searched by {how}. A trial is judged by the {measure(sweep['metric'])} on valid of {students}, {better} is "
        f"better. {counted(sweep)}. It took {spent(sweep)}; all trials together took "
        f"{duration(sweep['cost']['trial_seconds'])}."
    )
    note += " It went on where an earlier run had ended." if sweep["resumed"] else ""
    best, names = best_trial(sweep), paths(sweep)
    rows: list[list[Child]] = [
        [path, described(sweep["space"].get(path) or {}) or MISSING, of_trial(best, path) if best else MISSING]
        for path in names
    ]
    space = grid("Search space", ["parameter", "searched", "best trial"], rows, figures=False)
    return section(
        f"Sweep {sweep['name']}", [tag("p", winner(results), class_="verdict"), space if rows else None], note
    )


def _confirmed(sweep: Sweep) -> Markup | None:
    """The winner against the first known point on fresh seeds: the mean difference, and both by seed."""
    told, found = confirmed(sweep), sweep.get("confirmation")
    if told is None or found is None:
        return None
    rows, cells = [], []
    for name, one in found["figures"].items():
        if one["difference"] is not None:
            title = f"{measure(name)}, winner less known"
            rows.append(svg.Row(title, one["difference"], (one["low"], one["high"]), BEST))
        pairs = zip(found["seeds"], one["known"], one["winner"], strict=True)
        cells += [[f"{measure(name)}, seed {seed}", fixed(known), fixed(won)] for seed, known, won in pairs]
    drawn = svg.intervals(rows, name="Winner against the known point", mark=0.0) if rows else None
    shown = [plot("Mean paired difference on test with its 95% interval", drawn)] if drawn is not None else []
    table = grid("Fresh seeds", ["", "known point", "winner"], cells) if cells else None
    return section("On fresh seeds", [tag("div", shown, class_="plots"), table], told)


def _leaderboard(sweep: Sweep) -> Markup | None:
    names = short(paths(sweep))
    headings = [
        "rank",
        "trial",
        f"{measure(sweep['metric'])} on valid",
        "epochs",
        "time",
        "parameters",
        *names.values(),
    ]
    rows: list[list[Child]] = []
    for trial in sweep["trials"][:LISTED]:
        cells = [str(trial["rank"] or MISSING), trial["name"], fixed(trial["value"]), count(trial["epochs"])]
        cells += [duration(trial["seconds"]), count(trial["parameters"]), *(of_trial(trial, path) for path in names)]
        reason = _clipped(reason_of(trial))
        status = "stopped early" if trial["status"] == "stopped" else trial["status"]
        rows.append([*cells, f"{status}: {reason}" if reason else status])
    note = "Finished trials from the best to the worst, then those stopped early, then those that failed."
    more = len(sweep["trials"]) - LISTED
    note += f" {count(more)} more are in the leaderboard file." if more > 0 else ""
    table = tag("div", grid("Trials", [*headings, "status"], rows), class_="leaderboard")
    return section("Trials", table, note) if rows else None


def _clipped(reason: str) -> str:
    return reason if len(reason) <= REASON_LETTERS else f"{reason[: REASON_LETTERS - 1]}…"


def _slices(sweep: Sweep) -> Markup | None:
    drawn = slices(sweep)
    if not drawn:
        return None
    _, beyond = reach(sweep)
    kinds = {trial["status"] for trial in sweep["trials"] if finite(trial["value"]) is not None}
    marks = [(BEST, "round", "the best trial")] if best_trial(sweep) else []
    marks += [(FINISHED, "round", "finished")] if "finished" in kinds else []
    marks += [(STOPPED, "hollow", "stopped early")] if "stopped" in kinds else []
    items = [tag("span", tag("i", class_=f"swatch {kind} c{colour}"), name) for colour, kind, name in marks]
    note = f"{'1 trial is' if beyond == 1 else f'{count(beyond)} trials are'} far worse, and drawn at the edge."
    return section(
        "Parameter by parameter",
        [tag("p", items, class_="legend"), tag("div", drawn, class_="plots")],
        note if beyond else None,
    )


def _curves(sweep: Sweep) -> Markup | None:
    """The learning curves of the best finished trials that have one."""
    series: list[svg.Series] = []
    for trial in sweep["trials"]:
        points = [(float(k), y) for k, value in enumerate(trial["curve"], 1) if (y := finite(value)) is not None]
        if trial["status"] == "finished" and points and len(series) < CURVES:
            name = f"{trial['rank'] or MISSING}. {trial['name']}, {fixed(trial['value'])}"
            series.append(svg.Series(name, points, (len(series) + 1) % CURVES))
    if not series:
        return None
    name = f"{measure(sweep['metric'])} on valid"
    drawn = svg.curves(series[::-1], name=name, x_name="epoch", y_name=name)
    heading = f"Learning curves of the best {len(series)}" if len(series) > 1 else "Learning curve"
    plots = tag("div", plot(name, drawn), class_="plots")
    return section(heading, [legend({one.name: one.colour for one in series}), plots])


def _importance(sweep: Sweep) -> Markup | None:
    shares = {
        path: share for path, value in (sweep["importance"] or {}).items() if (share := finite(value)) is not None
    }
    if not shares:
        told = sweep.get("importance_note")
        return section("Importance", None, f"No importance is known: {told}.") if told else None
    names = short([*paths(sweep), *(path for path in shares if path not in paths(sweep))])
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    rows = [svg.Row(names[path], max(share, 0.0), None, FINISHED) for path, share in ranked]
    caption = f"Share of each parameter in what sets the best tenth by {measure(sweep['metric'])} on valid apart"
    return section("Importance", tag("div", plot(caption, svg.bars(rows, name=caption)), class_="plots"))


def _failed(sweep: Sweep) -> Markup | None:
    found = failures(sweep)
    items = [
        tag("li", reason, tag("small", ", ".join(trial["name"] for trial in trials), class_="under"))
        for reason, trials in found.items()
    ]
    return section("Failed trials", tag("ul", items, class_="reasons")) if items else None
