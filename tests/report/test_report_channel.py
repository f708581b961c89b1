"""What a report and a terminal say of the given labels, and that they say nothing where no channel was fitted."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from tgeokd_ray.report.channel import labels, sentence
from tgeokd_ray.report.html import render
from tgeokd_ray.report.terminal import results_table

PART = {"rows": 1750, "suspicious": 0.0614, "noise": 0.2071, "credibility": 0.8112}


@pytest.fixture
def told(results: dict[str, Any]) -> dict[str, Any]:
    """The results of a run with a channel."""
    nothing = {"rows": 0, "suspicious": None, "noise": None, "credibility": None}
    channel = PART | {
        "rows": 3500,
        "student_nll": 0.7593,
        "teacher_nll": 2.3569,
        "mixture_nll": 0.7381,
        "suspicious_rows": 1205,
        "file": "suspicious.parquet",
        "by_class": {"no click": PART, "click": nothing},
        "by_column": [{"column": "a<b", "low": PART | {"noise": 0.0313}, "high": PART}],
    }
    return results | {"channel": channel}


def test_the_terminal_counts_the_suspicious_labels_in_one_line(told: dict[str, Any]) -> None:
    console = Console(file=StringIO(), width=200)
    results_table(told, console)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("labels:")]  # type: ignore[attr-defined]
    assert lines == [sentence(told)]
    assert lines[0].startswith("labels: 1,205 of 3,500 are suspicious, listed in suspicious.parquet")


def test_the_report_shows_losses_segments_and_dashes_for_what_is_not_known(told: dict[str, Any]) -> None:
    page = render(told)
    for text in ("0.759 nats by the student", "2.357 by the teacher", "0.738 by both", "1,205 labels"):
        assert text in page
    assert "label no click</th><td>1,750</td><td>0.061</td><td>0.207</td><td>0.811</td>" in page
    assert "label click</th><td>0</td><td>-</td><td>-</td><td>-</td>" in page
    assert "a&lt;b, lower half</th><td>1,750</td><td>0.061</td><td>0.031</td>" in page


def test_without_a_channel_nothing_is_said(results: dict[str, Any]) -> None:
    assert labels(results) is None
    assert sentence(results) is None
    assert "Labels by segment" not in render(results)
