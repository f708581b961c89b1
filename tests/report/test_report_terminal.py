"""What a terminal and a log file show: stages, warnings, the final table, errors."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

import pytest
from rich.console import Console

from tgeokd_ray.errors import DataError, Problem
from tgeokd_ray.events import Progress
from tgeokd_ray.report.terminal import TerminalProgress, error_block, results_table, summary_table

HOSTILE = "a\x1b[31mb\nc\u202ed[bold]"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202e]")


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def console(*, terminal: bool = False, encoding: str = "utf-8", width: int | None = None) -> Console:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    return Console(file=stream, force_terminal=terminal, width=width, _environ={"TERM": "xterm"})


def written(target: Console) -> str:
    target.file.flush()
    return target.file.buffer.getvalue().decode(target.encoding)


def test_without_a_terminal_a_stage_is_one_plain_line() -> None:
    target, clock = console(), Clock()
    with TerminalProgress(target, clock) as progress:
        listener: Progress = progress
        listener.started("encode", 120_000)
        listener.advanced("encode", 100_000, "half way")
        listener.advanced("encode", 20_000)
        clock.now += 3.2
        listener.finished("encode", "tables/criteo/v000001")
        listener.finished("teacher", "reused teachers/criteo/v000001")
    lines = written(target).splitlines()
    assert [line.split() for line in lines] == [
        ["encode", "120,000", "rows", "3.20", "s", "37,500", "rows/s", "tables/criteo/v000001"],
        ["teacher", "reused", "teachers/criteo/v000001"],
    ]
    assert not CONTROL.search(written(target))


def test_a_long_line_is_not_broken() -> None:
    target = console()
    TerminalProgress(target).finished("encode", "x" * 500)
    assert written(target).count("\n") == 1


def test_on_a_terminal_a_bar_moves_and_a_line_stays() -> None:
    target, clock = console(terminal=True, width=120), Clock()
    with TerminalProgress(target, clock) as progress:
        progress.started("distill", 1000, "steps")
        progress.advanced("distill", 400, "auc 0.7312")
        progress._bars.refresh()
        live = written(target)
        clock.now += 2
        progress.finished("distill", "students/tgeo/v000001")
        assert not progress._bars.live.is_started
    assert "400/1,000 steps" in live
    assert "auc 0.7312" in live
    last = written(target).rstrip().splitlines()[-1]
    assert "200 steps/s" in last
    assert "students/tgeo/v000001" in last
    assert written(target).rstrip().endswith("v000001")


def test_a_failed_stage_leaves_no_live_bar() -> None:
    target = console(terminal=True)
    before = set(threading.enumerate())
    with suppress(RuntimeError), TerminalProgress(target) as progress:
        progress.started("encode")
        refreshing = set(threading.enumerate()) - before
        assert refreshing
        raise RuntimeError
    for thread in refreshing:
        thread.join(5)
        assert not thread.is_alive()
    assert written(target).count("\x1b[?25l") == written(target).count("\x1b[?25h")


def test_warnings_stand_together_at_the_end_and_once() -> None:
    target = console()
    with TerminalProgress(target) as progress:
        progress.warned("first")
        progress.warned("second")
        progress.warned("first")
        progress.finished("encode", "done")
    assert progress.warnings == ["first", "second"]
    assert written(target).split() == ["encode", "done", "warnings", "first", "second"]
    progress.close()
    progress.warned("third")
    progress.close()
    assert written(target).split()[5:] == ["warnings", "third"]


def test_a_stage_that_was_not_started_may_advance() -> None:
    target = console()
    progress = TerminalProgress(target)
    progress.advanced("predict", 10)
    progress.finished("predict")
    assert "10 rows" in written(target)


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    TerminalProgress().finished("encode", "done")
    out, err = capsys.readouterr()
    assert (out, err.split()) == ("", ["encode", "done"])


@pytest.mark.parametrize("terminal", [False, True])
def test_x7_names_from_outside_cannot_steer_the_terminal(terminal: bool, results: dict[str, Any]) -> None:
    target = console(terminal=terminal, width=200)
    results["run"] = results["models"][4]["name"] = HOSTILE
    results["warnings"] = [HOSTILE]
    with TerminalProgress(target) as progress:
        progress.started(HOSTILE, 10, HOSTILE)
        progress.advanced(HOSTILE, 5, HOSTILE)
        progress.finished(HOSTILE, HOSTILE)
        progress.warned(HOSTILE)
    results_table(results, target)
    text = written(target)
    assert "\x1b[31mb" not in text
    assert "\u202e" not in text
    assert r"a\x1b[31mb\nc\u202ed[bold]" in text
    if not terminal:
        assert not CONTROL.search(text)


def test_a_console_that_cannot_write_a_letter_shows_its_escape(results: dict[str, Any]) -> None:
    target = console(encoding="ascii")
    results["run"] = "café 😀"
    results_table(results, target)
    TerminalProgress(target).finished("é")
    assert r"caf\xe9 \U0001f600" in written(target)


def test_the_table_compares_the_chosen_models(results: dict[str, Any]) -> None:
    target = console()
    results_table(results, target)
    lines = [line.split("  ") for line in written(target).splitlines()]
    rows = {cells[0]: cells[1:] for cells in ([c.strip() for c in line if c.strip()] for line in lines) if cells}
    assert rows["demo: test split, 60,000 rows"] == []
    assert rows["model"] == ["AUC", "NLL", "accuracy", "parameters", "rows/s"]
    assert rows["teacher"] == ["0.7862", "0.4712", "0.7900", "1,842,371", "188,000"]
    assert rows["student on labels"] == ["0.7701", "0.4838", "0.7900", "61,257", "188,000"]
    assert rows["best constant 0.75"][0] == "0.7764"
    assert rows["TGeo-KD"][0] == "0.7791"
    assert rows["best possible (Bayes)"] == ["0.8011", "-", "-", "-", "-"]
    assert "0.7761 to 0.7831" in written(target)
    assert "constant 0.25" not in written(target)
    assert "warning: column 'device_id'" in written(target)
    assert not CONTROL.search(written(target))


def test_the_best_student_is_bold_and_the_teacher_is_not(results: dict[str, Any]) -> None:
    target = console(terminal=True, width=120)
    results_table(results, target)
    bold = re.findall(r"\x1b\[1m\s*([\d.]+)\x1b", written(target))
    assert bold == ["0.7900", "0.7791", "0.4772"]


def test_macro_f1_is_shown_beyond_two_classes(results: dict[str, Any]) -> None:
    for model in results["models"]:
        model["recall"] = {"normal": 0.9, "scan": 0.5, "flood": None}
    target = console()
    results_table(results, target)
    assert "macro-F1" in written(target)
    assert "0.6543" in written(target)


def test_undefined_measures_and_told_warnings(results: dict[str, Any]) -> None:
    for model in results["models"]:
        model |= {"auc": None, "auc_interval": None, "rows_per_second": None}
    target = console()
    results_table(results, target, told=results["warnings"])
    assert "warning" not in written(target)
    assert re.search(r"teacher +- +0.4712", written(target))


def test_a_failed_comparison_is_still_shown() -> None:
    target = console()
    results_table({"run": "demo", "models": []}, target)
    assert written(target).startswith("demo: test split")


def test_a_summary_is_lines_and_tables() -> None:
    target = console()
    columns = [{"column": HOSTILE, "missing": 1200, "share": 0.25}, {"column": "b", "values": ["x", "y"]}]
    summary_table(
        {"rows": 12_000, "labels": {"0": 1, "1": None}, "columns": columns, "splits": {"train": {"rows": 5}}}, target
    )
    words = [line.split() for line in written(target).splitlines() if line.strip(" ─")]
    assert words == [
        ["rows", "12,000"],
        ["labels", "0", "1,", "1", "-"],
        ["columns"],
        ["column", "missing", "share", "values"],
        [r"a\x1b[31mb\nc\u202ed[bold]", "1,200", "0.25", "-"],
        ["b", "-", "-", "x,", "y"],
        ["splits"],
        ["name", "rows"],
        ["train", "5"],
    ]


def test_an_error_is_one_block() -> None:
    target = console()
    problems = [Problem("bad \x1b[2Jvalue", file="a[red].csv", row=3), Problem("bad label", row=7)]
    error_block(DataError(problems, fix="mend them", total=30), target)
    assert written(target).splitlines() == [
        r"data: file a[red].csv, row 3: bad \x1b[2Jvalue",
        "  row 7: bad label",
        "  ... 30 in all, the first 2 are shown",
        "  next: mend them",
    ]


def test_importing_the_terminal_is_cheap() -> None:
    code = "import sys, tgeokd_ray.report.terminal, tgeokd_ray.report.html, tgeokd_ray.report.tensorboard\n"
    code += "print(sorted({'torch', 'ray', 'matplotlib', 'numpy', 'polars', 'tensorboardX'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
