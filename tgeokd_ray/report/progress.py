"""Stages and warnings on a console while a job runs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from tgeokd_ray.report.wording import count, duration, pace, printable

STAGE_WIDTH = 14
BAR_WIDTH = 28
LEFT_WIDTH = 7
MARGIN = 2  # lines of a standing table beside its rows: headings, and one to breathe


@dataclass
class _Stage:
    started: float
    unit: str
    done: int = 0
    task: TaskID | None = None


class TerminalProgress:
    """An events.Progress on a console, stderr unless given: a live bar per stage, one line when a stage is done.

    Without a terminal, only that line, with no control characters. Warnings are kept in `warnings`, each once, and
    written together by `close`, which leaving the context calls. Safe to call from several threads.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(stderr=True)
        self.warnings: list[str] = []
        self._clock = clock
        self._stages: dict[str, _Stage] = {}
        self._lock = threading.RLock()
        self._told = 0
        self._bars = self._new_bars()

    def _new_bars(self) -> Progress:
        return _Bars(
            TextColumn(f"{{task.description:<{STAGE_WIDTH}}}", markup=False),
            BarColumn(bar_width=BAR_WIDTH),
            _Amount(),
            _Left(),
            _Beside(self.console),
            console=self.console,
            transient=True,
            get_time=self._clock,
        )

    def started(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
        """Show a bar for the stage, of unknown length where `total` is None."""
        with self._lock:
            entry = self._stages[stage] = _Stage(self._clock(), printable(unit, self.console.encoding))
            if self.console.is_terminal:
                name = printable(stage, self.console.encoding)
                entry.task = self._bars.add_task(name, total=total, note="", unit=entry.unit, standing=[])
                self._bars.start()

    def advanced(self, stage: str, amount: int, note: str = "") -> None:
        """Move the bar; a stage that was not started is."""
        with self._lock:
            if stage not in self._stages:
                self.started(stage)
            entry = self._stages[stage]
            entry.done += amount
            if entry.task is not None:
                self._bars.advance(entry.task, amount)
                if note:
                    self._bars.update(entry.task, note=printable(note, self.console.encoding))

    def stood(self, stage: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table below the bars, as much of it as the terminal has room for; without one nothing."""
        with self._lock:
            entry = self._stages.get(stage)
            if entry is not None and entry.task is not None:
                lines = [[printable(cell, self.console.encoding) for cell in row] for row in (headings, *rows)]
                self._bars.update(entry.task, standing=lines)

    def warned(self, message: str) -> None:
        """Keep the warning for the end; the same one is kept once."""
        with self._lock:
            if message not in self.warnings:
                self.warnings.append(message)

    def finished(self, stage: str, note: str = "") -> None:
        """Replace the bar by one line: amount, time, rate and note; only the note where nothing advanced."""
        with self._lock:
            entry = self._stages.pop(stage, None)
            if entry is not None and entry.task is not None:
                self._bars.remove_task(entry.task)
            if not self._stages:
                self._hide()
            parts = self._figures(entry), printable(note, self.console.encoding)
            name = f"{printable(stage, self.console.encoding):<{STAGE_WIDTH}}"
            self._write(Text.assemble((name, "bold"), "  ".join(part for part in parts if part)))

    def close(self) -> None:
        """Take down the bars and write the warnings that were not written yet. May be called again."""
        with self._lock:
            self._hide()
            self._stages.clear()
            fresh, self._told = self.warnings[self._told :], len(self.warnings)
            if fresh:
                self._write(Text("warnings", style="bold yellow"))
            for message in fresh:
                self._write(Text(f"  {printable(message, self.console.encoding)}"))

    def _hide(self) -> None:
        if self._bars.live.is_started:  # rich ends a bar that never showed with an empty line
            self._bars.stop()
        self._bars = self._new_bars()

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _figures(self, entry: _Stage | None) -> str:
        if entry is None or not entry.done:
            return ""
        seconds = self._clock() - entry.started
        rate = pace(entry.done / seconds, f" {entry.unit}") if seconds > 0 else ""
        return f"{count(entry.done):>12} {entry.unit}  {duration(seconds):>12}  {rate:>18}"

    def _write(self, line: Text) -> None:
        self.console.print(line, soft_wrap=True, highlight=False)


class _Bars(Progress):
    """Bars, below them the notes that have no room beside one, so that neither crushes the other, and below these how
    stages stand."""

    def get_renderables(self) -> Iterable[RenderableType]:
        tasks = self.tasks
        yield self.make_tasks_table(tasks)
        below = [task for task in tasks if task.fields["note"] and not _fits(task, self.console)]
        if below:
            table = Table.grid(padding=(0, 1))
            table.add_column(min_width=STAGE_WIDTH, no_wrap=True)
            table.add_column(style="dim")
            for task in below:
                table.add_row(Text(task.description if len(tasks) > 1 else ""), Text(task.fields["note"]))
            yield table
        for task in tasks:
            headings, *rows = task.fields["standing"] or [[]]
            room = self.console.height - 2 * len(tasks) - 2
            if rows and room > MARGIN:
                yield _standing(headings, rows[: room - MARGIN], self.console.width)


def _standing(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """One line for each row: the last column, which may be long, gives way to the others."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    widths = [max(cell_len(row[k]) for row in (headings, *rows)) for k in range(len(headings) - 1)]
    for heading, needed in zip(headings, widths, strict=False):
        table.add_column(Text(heading), header_style="dim", no_wrap=True, min_width=needed)
    left = max(width - sum(needed + 2 for needed in widths), 1)
    table.add_column(
        Text(headings[-1]), style="dim", header_style="dim", no_wrap=True, overflow="ellipsis", max_width=left
    )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _fits(task: Task, console: Console) -> bool:
    taken = STAGE_WIDTH + BAR_WIDTH + cell_len(_amount(task)) + LEFT_WIDTH
    return taken + cell_len(task.fields["note"]) + 4 <= console.width  # a space between each two of them


class _Beside(ProgressColumn):
    """The note, where it has room in the line of the bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"] if _fits(task, self._console) else "", style="dim")


class _Amount(ProgressColumn):
    """`120,000/400,000 rows  37,500/s`, `14/40 trials  2.4/min`."""

    def render(self, task: Task) -> Text:
        return Text(_amount(task))


def _amount(task: Task) -> str:
    whole = f"/{count(task.total)}" if task.total is not None else ""
    speed = _speed(task)
    return f"{count(task.completed)}{whole} {task.fields['unit']}" + (f"  {pace(speed)}" if speed else "")


class _Left(ProgressColumn):
    """The time left as `03:20` or `1:03:20`."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        speed = _speed(task)
        if task.total is None or (not speed and not task.finished):
            return Text("" if task.total is None else "--:--", style="progress.remaining")
        left = math.ceil(max(task.total - task.completed, 0) / speed) if speed else 0
        minutes, seconds = divmod(left, 60)
        hours, minutes = divmod(minutes, 60)
        shown = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"
        return Text(shown, style="progress.remaining")


def _speed(task: Task) -> float | None:
    """Units per second: lately; of a slow stage since it began, for there a few late ones say nothing."""
    overall = task.completed / task.elapsed if task.elapsed else None
    return overall if overall is not None and overall < 1 else task.speed
