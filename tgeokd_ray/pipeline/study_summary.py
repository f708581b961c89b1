"""What the cells of a study say of each rule: paired differences from the best constant, with every choice made alike.

S seeds. A choice (a constant, a temperature, a candidate of the learner) is the one with the best mean on valid over
the seeds; nothing is chosen by test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tgeokd_ray.metrics.intervals import paired_difference
from tgeokd_ray.metrics.significance import paired_test
from tgeokd_ray.objectives.settings import OTHER_LOSSES
from tgeokd_ray.pipeline.other_teachers import OTHER_TEACHERS
from tgeokd_ray.pipeline.references import REFERENCE
from tgeokd_ray.pipeline.study_models import FIGURES, mean, pooled
from tgeokd_ray.training.spec import sign_of

CONSTANT, LEARNED, EACH = "constant", "tgeo", "tgeo.each"
OF_CONSTANTS = (CONSTANT, *OTHER_TEACHERS, *OTHER_LOSSES)  # a constant is chosen for each of them
NOTHING = 1e-4  # nats
Figures = Mapping[str, Any]


def summarise(cells: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """One row for each dataset and rule, as study.json has them, and a line for all that failed.

    A row compares a rule with the constant chosen on the same seeds, `nll_vs_constant` with its 95 % interval by
    Student's t over the seeds (null for one seed); `tgeo.each` is the learner when each seed chooses alone. The
    reference comes first. A rule that is undefined on a dataset has a row without figures, and the reason as
    `refused`, which is null elsewhere. A dataset with a seed that failed is told by the seeds that are left.
    """
    rows: list[dict[str, Any]] = []
    failed = [f"{cell['dataset']}, seed {cell['seed']}: {cell['error']}" for cell in cells if "error" in cell]
    for dataset in dict.fromkeys(cell["dataset"] for cell in cells):
        own = [cell for cell in cells if cell["dataset"] == dataset and "error" not in cell]
        if own:
            rows += [*_dataset(dataset, own), *_refused(dataset, own[0])]
        for cell in own:
            lost = (student for student in cell["students"] if "error" in student)
            failed += [f"{dataset}, seed {cell['seed']}, {one['name']}: {one['error']}" for one in lost]
    return rows, failed


def nothing_to_win(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each dataset whose reference ratio is not better than the constant: a win there needs an explanation.

    Not better: its interval includes 0 or lies above, or for one seed the difference is above -.0001 nats. The line
    names the rules that win.
    """
    lines = []
    for reference in rows:
        if reference["rule"] == REFERENCE and reference["nll_vs_constant"] is not None and not _wins(reference):
            found = [r["rule"] for r in rows if r["dataset"] == reference["dataset"] and _wins(r)]
            told = f"{reference['nll_vs_constant']:+.4f}"
            if reference["low"] is not None:
                told += f", {reference['low']:+.4f} to {reference['high']:+.4f}"
            win = f"a win needs an explanation: {', '.join(found)}" if found else "a win would need an explanation"
            lines.append(f"{reference['dataset']}: the reference ratio gains nothing that is sure ({told}); {win}")
    return lines


def _wins(row: Mapping[str, Any]) -> bool:
    if row["high"] is not None:
        return bool(row["high"] < 0)
    return row["nll_vs_constant"] is not None and row["nll_vs_constant"] < -NOTHING


def _dataset(dataset: str, cells: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    metric = cells[0]["metric"]
    options = _options(cells)
    best = {rule: _best(found, metric) for rule, found in options.items()}
    constant = options[CONSTANT][best[CONSTANT]]
    if LEARNED in best:  # every constant is a candidate, too
        options[LEARNED] |= {("strength 0", *key): found for key, found in options[CONSTANT].items()}
        best[LEARNED] = _best(options[LEARNED], metric)
    for rule, chosen in sorted(best.items(), key=lambda item: item[0] != REFERENCE):
        found = options[rule][chosen]
        row = {"dataset": dataset, "rule": rule, "seeds": len(found), "chosen": ", ".join(map(str, chosen))}
        row |= {name: mean([one["test"].get(name) for one in found]) for name in FIGURES}
        for name in FIGURES:
            row |= _against(name, found, constant)
        row |= {"low": row["nll_low"], "high": row["nll_high"]}
        row |= dict.fromkeys(("standard_error", "p")) if rule == CONSTANT else _tested(found, constant)
        reference = options[REFERENCE][best[REFERENCE]] if REFERENCE in best else None
        gain = None if reference is None else _against("nll", reference, constant)["nll_vs_constant"]
        row["oracle_vs_constant"] = gain
        row["correlation"] = _correlations(cells) if rule == LEARNED else None
        row["refused"] = None
        row["parameters"] = found[0].get("parameters")
        row["calibration"] = pooled([one.get("calibration") for one in found])
        yield row


def _refused(dataset: str, cell: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of the rules that say nothing of this dataset: the same for every seed."""
    figures = [name + end for name in FIGURES for end in ("", "_vs_constant", "_low", "_high")]
    more = ("low", "high", "standard_error", "p", "oracle_vs_constant", "correlation", "parameters", "calibration")
    nothing = dict.fromkeys([*figures, *more])
    for rule, reason in cell.get("refused", {}).items():
        yield {"dataset": dataset, "rule": rule, "seeds": 0, "chosen": "", **nothing, "refused": reason}


def _options(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[tuple[Any, ...], list[Figures]]]:
    """{rule: {choice: figures of every seed}}; a choice that some seed lacks is left out."""
    found: dict[str, dict[tuple[Any, ...], list[Figures]]] = {}
    for cell in cells:
        for student in _students(cell):
            for rule, choice, figures in _choices(student, cell["metric"]):
                found.setdefault(rule, {}).setdefault(choice, []).append(figures)
    whole = {rule: {c: f for c, f in choices.items() if len(f) == len(cells)} for rule, choices in found.items()}
    return {rule: choices for rule, choices in whole.items() if choices}


def _students(cell: Mapping[str, Any]) -> Iterator[Figures]:
    """The students of a cell, and before the learner's what a seed alone takes of them: the best on valid, over the
    grid, as a student of its own."""
    metric = cell["metric"]
    learned = [one for one in cell["students"] if "choice" in one and one["valid"][metric] is not None]
    sign = sign_of(metric)
    best = max(learned, key=lambda one: sign * one["valid"][metric], default=None)
    for student in cell["students"]:
        if best is not None and student is learned[0]:
            yield {**best, "name": EACH}
        yield student


def _choices(student: Mapping[str, Any], metric: str) -> Iterator[tuple[str, tuple[Any, ...], Figures]]:
    """What a student stands for: its rule, what was to choose in it, and its figures."""
    if "error" in student:
        return
    if student["name"] == EACH:
        yield EACH, ("each seed alone",), student
        return
    whole, _, rate = student["name"].partition("-lr")
    name, _, temperature = whole.partition("-tau")
    tau, lr = ((f"{key} {value}",) if value else () for key, value in (("tau", temperature), ("lr", rate)))
    if "choice" not in student:
        rule = next((one for one in OF_CONSTANTS if name.startswith(f"{one}-")), name)
        value = (name.removeprefix(f"{rule}-"),) if rule in OF_CONSTANTS else ()
        yield rule, (*value, *tau, *lr), student
        return
    for one in student["choice"]["candidates"]:
        choice = (f"strength {one['strength']:g}", f"shift {one['shift']:g}", f"tau {one['temperature']:g}", *lr)
        figures = {"valid": {metric: one["valid"]}, "test": one["test"], "parameters": student.get("parameters")}
        yield LEARNED, choice, figures


def _best(options: Mapping[tuple[Any, ...], Sequence[Figures]], metric: str) -> tuple[Any, ...]:
    """The choice with the best mean on valid; one that a seed has no figure of is never the best."""
    sign = sign_of(metric)

    def value(choice: tuple[Any, ...]) -> float:
        found = mean([one["valid"][metric] for one in options[choice]])
        return -math.inf if found is None else sign * found

    return max(options, key=value)


def _against(name: str, found: Sequence[Figures], constant: Sequence[Figures]) -> dict[str, float | None]:
    """Mean paired difference of a figure on test, with its interval; null where a seed lacks it."""
    keys = (f"{name}_vs_constant", f"{name}_low", f"{name}_high")
    pairs = [(one["test"].get(name), other["test"].get(name)) for one, other in zip(found, constant, strict=True)]
    if any(value is None for pair in pairs for value in pair):
        return dict.fromkeys(keys)
    ours, theirs = zip(*pairs, strict=True)
    if len(pairs) == 1:
        return {keys[0]: ours[0] - theirs[0], keys[1]: None, keys[2]: None}
    return dict(zip(keys, paired_difference(ours, theirs), strict=True))


def _tested(found: Sequence[Figures], constant: Sequence[Figures]) -> dict[str, float | None]:
    """Standard error and p-value of the mean difference in NLL; null for one seed, and where a seed lacks it."""
    values = [[one["test"].get("nll") for one in part] for part in (found, constant)]
    if len(found) < 2 or any(value is None for part in values for value in part):
        return {"standard_error": None, "p": None}
    return dict(zip(("standard_error", "p"), paired_test(*values), strict=True))


def _correlations(cells: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Of the learned ratio with the reference, over seeds and temperatures: mean and worst."""
    found = [one["correlation"] for cell in cells for one in cell["ratio"].values() if one["correlation"] is not None]
    return {"mean": sum(found) / len(found), "worst": min(found)} if found else None
