"""Runs that others are chosen from: nothing of the test rows, and what they report after each epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from training_runs import Once, run

from tgeokd_ray.events import Silent
from tgeokd_ray.feed.wanted import Wanted
from tgeokd_ray.training.data import DirectSource, all_wanted
from tgeokd_ray.training.plan import execute
from tgeokd_ray.training.reuse import run_inputs
from tgeokd_ray.training.spec import Candidate, Choice
from tgeokd_ray.training.worker import LocalWorker


class Watched(DirectSource):
    """Keeps which splits were asked for."""

    def __init__(self) -> None:
        self.splits: set[str] = set()

    def reader(self, wanted: Wanted) -> Any:
        self.splits |= set(wanted.splits)
        return super().reader(wanted)


def test_a_run_that_is_not_measured_reads_no_test_row(small) -> None:  # type: ignore[no-untyped-def]
    spec = small.spec("unmeasured", rule={"kind": "constant", "value": 0.5}, epochs=2)
    sources = Watched(), Watched()
    (measured,), (unmeasured,) = (
        execute(Once(replace(spec, measured=wanted)), LocalWorker(), source, Silent())
        for wanted, source in zip((True, False), sources, strict=True)
    )
    assert "test" in sources[0].splits
    assert "test" not in sources[1].splits
    assert unmeasured.metrics["test"] is None
    assert "ratio" not in unmeasured.metrics
    assert unmeasured.metrics["valid"] == measured.metrics["valid"]
    assert unmeasured.metrics["history"] == measured.metrics["history"]
    splits = [{split for one in all_wanted(replace(spec, measured=w)) for split in one.splits} for w in (True, False)]
    assert splits[0] - splits[1] == {"test"}


def test_whether_it_is_measured_is_part_of_what_a_run_is_and_absent_by_default(small) -> None:  # type: ignore[no-untyped-def]
    spec = small.spec()
    assert "measured" not in spec.arguments()
    assert run_inputs(spec) != run_inputs(replace(spec, measured=False))


def test_a_choice_among_candidates_needs_no_test_row(small) -> None:  # type: ignore[no-untyped-def]
    (constant,) = run(small.spec("incumbent", rule={"kind": "constant", "value": 0.5}, epochs=2))
    rules = ({"kind": "constant", "value": value} for value in (0.25, 0.75))
    choice = Choice(tuple(Candidate(rule, 1.0) for rule in rules), incumbent=constant.artifact, measure_all=True)
    (chosen,) = run(small.spec("chosen", rule={"kind": "tgeo"}, choice=choice, measured=False, epochs=2))
    assert chosen.error is None
    assert "test" not in chosen.metrics["choice"]["best"]
    assert all("test" not in one for one in chosen.metrics["choice"]["candidates"])


def test_reports_name_the_epoch_the_best_so_far_and_the_mean_of_the_students(small) -> None:  # type: ignore[no-untyped-def]
    worker = LocalWorker()
    specs = [small.spec(f"s{seed}", rule={"kind": "labels"}, epochs=4, model_seeds=(seed,)) for seed in (1, 2)]
    done = execute(Once(*specs), worker, DirectSource(), Silent())
    metric = specs[0].metric
    curves = [[entry[f"valid_{metric}"] for entry in one.metrics["history"]] for one in done]
    assert [report["epoch"] for report in worker.reports] == [1, 2, 3, 4]
    for epoch, report in enumerate(worker.reports, start=1):
        sign = 1 if metric != "nll" else -1
        best = [max(sign * value for value in curve[:epoch]) for curve in curves]
        assert report[metric] == pytest.approx(max(best))
        assert report["mean"] == pytest.approx(sum(best) / 2)
