"""The end of a sweep on a terminal, and the one line that tells of it while it runs."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from tgeokd_ray.report.progress import TerminalProgress
from tgeokd_ray.report.sweep_terminal import sweep_table
from tgeokd_ray.report.wording import pace

HOSTILE = "a\x1b[31mb\nc\u202ed[bold]"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202e]")
NOTE = "best auc 0.7312 (t-1f0c3a5b7d), 2 running, 3 stopped early, 1 failed"


def shown(results: dict[str, Any], width: int | None = None, told: tuple[str, ...] = ()) -> str:
    target = io.StringIO()
    terminal = width is not None
    console = Console(file=target, width=width, force_terminal=terminal, color_system=None, _environ={"TERM": "xterm"})
    sweep_table(results, console, told)
    return target.getvalue()


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in re.split(r"\s{2,}", line.strip()) if cell] for line in text.splitlines()]


def test_the_best_trials_stand_over_what_the_sweep_cost(swept: dict[str, Any]) -> None:
    lines = cells(shown(swept))
    assert lines[0] == ["lr: AUC on valid, the best 3 of 6 trials"]
    assert ["trial", "AUC", "epochs", "time", "learning_rate", "rule", "constant", "hidden"] in lines
    assert ["1", "t-a", "0.7312", "3", "3.10 s", "0.003", "tgeo", "-", "[32, 16]"] in lines
    assert ["3", "t-c", "0.7101", "3", "3.10 s", "0.0002", "labels", "-", "[16]"] in lines
    assert [line[0] for line in lines[-5:]] == [
        "3 trials finished, 1 stopped early, 2 failed; 3 min 51 s; 0.12 CPU hours, 0 GPU hours",
        "failed: 2 x numeric: the loss is not finite; next: lower the rate",
        "Best on valid: t-a, AUC 0.7312. Trained again, the student reaches AUC 0.7291, NLL 0.4772, accuracy 0.7900 on "
        "test; the teacher AUC 0.7862, NLL 0.4712, accuracy 0.7900.",
        "best student: students/best/v000001",
        "warning: column 'device_id': 3.1 % of rows hold values never seen in train",
    ]
    assert not CONTROL.search(shown(swept))
    assert "warning" not in shown(swept, told=tuple(swept["warnings"]))


def test_ten_trials_are_enough(swept: dict[str, Any]) -> None:
    found = swept["extra"]["sweep"]
    found["trials"][:1] = [found["trials"][0] | {"name": f"t-{k}", "rank": k + 1} for k in range(20)]
    assert re.findall(r"t-\d+", shown(swept)) == [f"t-{k}" for k in range(10)]


def test_parameters_share_a_column_on_a_narrow_terminal(swept: dict[str, Any]) -> None:
    narrow = shown(swept, width=80)
    table = narrow[: narrow.index("3 trials finished")]
    assert max(map(len, table.splitlines())) <= 80
    assert re.search(r"t-b +0.7250 .*learning_rate=0.03, rule=constant", table)
    assert "…" not in table
    assert "learning_rate=" not in shown(swept, width=120)


def test_a_sweep_in_which_nothing_finished_says_so(swept: dict[str, Any]) -> None:
    found = swept["extra"]["sweep"]
    found |= {"trials": found["trials"][4:], "best": None}
    found["counts"] |= {"finished": 0, "stopped": 0, "unfinished": 2}
    swept["models"] = swept["models"][:1]
    text = shown(swept)
    assert text.startswith("0 trials finished, 2 failed, 2 unfinished; 3 min 51 s")
    assert "No trial finished: there is no best student." in text
    found["trials"] = []
    assert "failed:" not in shown(swept)


def test_values_that_are_null_are_dashes(swept: dict[str, Any]) -> None:
    for trial in swept["extra"]["sweep"]["trials"]:
        trial |= {"value": None, "curve": []}
    swept["models"][1] |= {"auc": None, "nll": None, "accuracy": None}
    assert "AUC -. Trained again, the student reaches - on test" in shown(swept)


def test_x7_names_of_a_sweep_cannot_steer_the_terminal(swept: dict[str, Any]) -> None:
    found = swept["extra"]["sweep"]
    found |= {"name": HOSTILE, "best": HOSTILE, "metric": HOSTILE}
    for trial in found["trials"]:
        trial |= {"name": HOSTILE, "reason": HOSTILE, "code": HOSTILE, "point": {HOSTILE: HOSTILE}}
    for width in (None, 80, 200):
        text = shown(swept, width)
        assert not CONTROL.search(text)
        assert r"a\x1b[31mb\nc\u202ed[bold]" in text


class Clock:
    """Seconds that pass only when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def live(width: int, note: str = NOTE, stages: tuple[str, ...] = ("trials",), seconds: float = 31.0) -> list[str]:
    """The lines that a terminal shows after 14 of 40 units, one every so many seconds."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, _environ={"TERM": "xterm"})
    clock = Clock()
    with TerminalProgress(console, clock) as progress:
        for stage in stages:
            progress.started(stage, 40, stage)
        for _ in range(14):
            clock.now += seconds
            for stage in stages:
                progress.advanced(stage, 1, note)
        target = Console(file=io.StringIO(), width=width, color_system=None)
        target.print(progress._bars.get_renderable())
    return [line.rstrip() for line in target.file.getvalue().splitlines()]


@pytest.mark.parametrize(("width", "below"), [(80, 2), (120, 1), (160, 0)])
def test_the_note_of_a_sweep_leaves_the_bar_whole(width: int, below: int) -> None:
    bar, *notes = live(width)
    assert bar.startswith("trials         ━")
    assert bar.count("━") + bar.count("╸") == 10
    assert "14/40 trials  1.9/min 13:26" in bar
    assert len(notes) == below
    assert " ".join(" ".join([bar, *notes]).split()).endswith(NOTE)


ROWS = [[f"t-{k}", f"0.7{k}00", "4", "1.20 s", f"rate=0.0{k}, rule=ada\x1b[2J, hidden=[16, 8]"] for k in range(5)]


def standing(width: int, height: int, console: Console | None = None) -> list[str]:
    """The lines that a terminal of this size shows of a sweep, bar and table."""
    console = console or Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, _environ={"TERM": "xterm"}
    )
    with TerminalProgress(console, Clock()) as progress:
        progress.started("trials", 40, "trials")
        progress.stood("trials", ["best so far", "AUC", "epochs", "time", "parameters"], ROWS)
        progress.advanced("trials", 5, "5 finished, 2 running")
        target = Console(file=io.StringIO(), width=width, color_system=None)
        target.print(progress._bars.get_renderable())
    return [line.rstrip() for line in target.file.getvalue().splitlines()]


@pytest.mark.parametrize(("height", "rows"), [(50, 5), (9, 3), (5, 0)])
def test_the_best_trials_stand_below_the_bar_as_far_as_there_is_room(height: int, rows: int) -> None:
    _, *below = standing(120, height)
    assert len(below) == (rows + 1 if rows else 0)
    if rows:
        assert below[0].split() == ["best", "so", "far", "AUC", "epochs", "time", "parameters"]
        assert below[1].startswith("t-0          0.7000  4       1.20 s  rate=0.00, rule=ada\\x1b[2J, hidden=[16, 8]")


def test_on_a_narrow_terminal_the_parameters_give_way() -> None:
    lines = [line for line in standing(60, 50) if line.startswith("t-")]
    assert len(lines) == 5
    assert all(len(line) <= 60 and line.endswith("…") for line in lines)
    assert all("1.20 s" in line for line in lines)


def test_without_a_terminal_nothing_stands() -> None:
    console = Console(file=io.StringIO(), width=120)
    standing(120, 50, console)
    assert console.file.getvalue() == ""


def test_notes_below_several_bars_name_their_stage() -> None:
    lines = live(120, stages=("trials", "rows"))
    assert [line.split()[0] for line in lines] == ["trials", "rows", "trials", "rows"]
    assert lines[3].endswith(NOTE)


def test_a_short_note_stands_beside_the_bar() -> None:
    (line,) = live(120, "auc 0.7312", seconds=0.01)
    assert line.endswith("14/40 trials  100/s 00:01 auc 0.7312")


def test_the_pace_of_a_slow_stage_is_told_per_minute() -> None:
    assert [pace(v) for v in (37_500, 12.34, 2.44, 0.04)] == ["37,500/s", "12/s", "2.4/s", "2.4/min"]
    console = Console(file=io.StringIO())
    clock = Clock()
    with TerminalProgress(console, clock) as progress:
        progress.started("trials", 2, "trials")
        progress.advanced("trials", 2)
        clock.now += 60
        progress.finished("trials")
    assert "2.0 trials/min" in console.file.getvalue()
