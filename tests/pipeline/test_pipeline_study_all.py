"""All differences of a study together: corrections, what survives, and how it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from tgeokd_ray.pipeline.study_all import corrected, surviving
from tgeokd_ray.pipeline.study_summary import summarise
from tgeokd_ray.report.study import LEGEND, study_table


def student(name: str, nll: float) -> dict[str, Any]:
    return {"name": name, "rule": {}, "valid": {"nll": nll}, "test": {"nll": nll, "auc": None, "accuracy": None}}


def study(gains: dict[tuple[str, str], float], seeds: int) -> list[dict[str, Any]]:
    """Cells of rules that are better by these gains than the constant, with an error of .01 in each seed."""
    cells = []
    for dataset in dict.fromkeys(dataset for dataset, _ in gains):
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            rules = [(rule, gain) for (name, rule), gain in gains.items() if name == dataset]
            rivals = [student(rule, 0.5 - gain + 0.01 * rng.normal()) for rule, gain in rules]
            students = [student("constant-0.5", 0.5), *rivals]
            cells.append({"dataset": dataset, "seed": seed, "metric": "nll", "students": students, "ratio": {}})
    return cells


GAINS = {("a", "wls"): 0.5, ("a", "ada"): 0.0, ("b", "wls"): 0.001, ("b", "ada"): -0.4}


def corrected_rows(seeds: int) -> list[dict[str, Any]]:
    return corrected(summarise(study(GAINS, seeds))[0])


def test_the_corrections_are_those_of_scipy_over_all_pairs_of_the_study() -> None:
    rows = [row for row in corrected_rows(6) if row["rule"] != "constant"]
    assert len(rows) == 4
    for row in rows:
        own = [cell["students"] for cell in study(GAINS, 6) if cell["dataset"] == row["dataset"]]
        figures = [one["test"]["nll"] for students in own for one in students if one["name"] == row["rule"]]
        differences = np.array(figures) - 0.5
        assert row["p"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-6)
        half = stats.t.ppf(1 - 0.05 / 8, 5) * stats.sem(differences)
        assert row["low_all"] == pytest.approx(differences.mean() - half)
        assert row["high_all"] == pytest.approx(differences.mean() + half)
        assert row["low_all"] < row["low"] < row["high"] < row["high_all"]
    ordered = sorted(rows, key=lambda row: row["p"])
    steps = [row["p"] * (4 - rank) for rank, row in enumerate(ordered)]
    assert [row["p_holm"] for row in ordered] == pytest.approx(np.minimum(np.maximum.accumulate(steps), 1))
    assert {(row["dataset"], row["rule"]) for row in rows if row["survives"]} == {("a", "wls"), ("b", "ada")}


def test_the_constant_is_no_comparison_and_one_seed_is_no_test() -> None:
    keys = ("p", "p_holm", "low_all", "high_all", "survives")
    for row in corrected_rows(3):
        assert (row["rule"] == "constant") == all(row[key] is None for key in keys)
    alone = corrected_rows(1)
    assert all(row[key] is None for row in alone for key in keys)
    assert surviving(alone) == []


def test_a_rule_without_figures_is_not_counted() -> None:
    cells = study(GAINS, 3)
    for cell in cells:
        cell["refused"] = {"dkd": "two classes"}
    rows = corrected(summarise(cells)[0])
    assert {row["survives"] for row in rows if row["rule"] == "dkd"} == {None}
    assert surviving(rows)[0].startswith("of 4 differences")


def test_the_sentence_says_what_is_left() -> None:
    common = "the correction for all of them (Holm, 5 %)"
    assert surviving(corrected_rows(6)) == [
        f"of 4 differences from the constant 2 survive {common}; better: a (wls); worse: b (ada)"
    ]
    nothing = corrected(summarise(study({("a", "wls"): 0.0, ("a", "ada"): 0.0}, 3))[0])
    assert surviving(nothing) == [f"of 2 differences from the constant none survives {common}"]
    one = corrected(summarise(study({("a", "wls"): 0.5, ("a", "ada"): 0.0, ("b", "ada"): 0.0}, 5))[0])
    assert surviving(one) == [f"of 3 differences from the constant 1 survives {common}; better: a (wls)"]


def test_noise_alone_rarely_survives() -> None:
    """200 studies of 20 rules that do nothing: more than half have a difference outside of its own interval, about
    1 in 20 one that survives (binomial, four standard errors)."""
    rng = np.random.default_rng(0)
    plain = left = 0
    for _ in range(200):
        noise = rng.normal(size=(20, 4))
        rows = [
            {"dataset": "d", "rule": str(k), "seeds": 4, "nll_vs_constant": one.mean()}
            | {"standard_error": stats.sem(one), "p": stats.ttest_1samp(one, 0).pvalue}
            for k, one in enumerate(noise)
        ]
        found = corrected(rows)
        plain += any(row["p"] <= 0.05 for row in found)
        left += any(row["survives"] for row in found)
    assert plain > 100
    assert left <= 200 * 0.05 + 4 * (200 * 0.05 * 0.95) ** 0.5


def test_survivors_have_a_star_in_the_table(capsys) -> None:  # type: ignore[no-untyped-def]
    rows = corrected_rows(6)
    study_table({"rows": rows, "notes": surviving(rows), "warnings": []}, Console(width=200))
    shown = capsys.readouterr().out
    assert shown.count("*") == 3, "two rows and the legend"
    assert LEGEND in shown
    assert "2 survive" in shown
    study_table({"rows": corrected_rows(1), "notes": [], "warnings": []}, Console(width=200))
    assert "*" not in capsys.readouterr().out
