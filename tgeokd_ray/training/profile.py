"""Where the time of a step goes: named regions of the loop, a table of them, and a trace for a viewer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tgeokd_ray.artifacts import write_json

PREFIX = "step/"
NOTHING = nullcontext()
# The first steps of a run are unlike the others: buffers grow, kernels are chosen.
FIRST_STEP, STEPS = 8, 24


def region(name: str) -> AbstractContextManager[Any]:
    """A part of a step that a profile names; costs nothing where nobody profiles."""
    profiling: bool = torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
    return torch.profiler.record_function(PREFIX + name) if profiling else NOTHING


@dataclass
class Profile:
    """Profiles STEPS steps of a run from step `first` on and writes `folder/NAME.json`, the table, and
    `folder/NAME.trace.json`, which chrome://tracing and Perfetto show.

    The table has a row per region: milliseconds of a step on the CPU, its share of the whole, calls a step, and on a
    GPU the milliseconds of its kernels. A region within another counts in both; `rest` is what no region covers.
    """

    folder: Path
    name: str
    told: Callable[[str], None]
    first: int = FIRST_STEP
    _open: torch.profiler.profile | None = field(default=None, init=False)
    _began: int = field(default=0, init=False)

    def at(self, step: int) -> None:
        """Called before every step: begins and ends the profile."""
        if self._open is None and step == self.first:
            self._begin(step)
        elif self._open is not None and step >= self._began + STEPS:
            self.close(step)

    def close(self, step: int) -> None:
        """Ends the profile before `step`, in the middle if need be, and writes it; a run of fewer steps has none."""
        profiled, steps = self._open, step - self._began
        if profiled is None or not steps:
            return
        profiled.stop()
        self._open = None
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = _table(profiled, steps)
        write_json(self.folder / f"{self.name}.json", {"run": self.name, "steps": steps, "regions": rows})
        profiled.export_chrome_trace(str(self.folder / f"{self.name}.trace.json"))
        self.told(f"{self.name}: {_line(rows)}")

    def _begin(self, step: int) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self._open, self._began = torch.profiler.profile(activities=kinds), step
        self._open.start()


def _table(profiled: torch.profiler.profile, steps: int) -> list[dict[str, Any]]:
    """Regions by their time, the whole step first."""
    found = {e.key.removeprefix(PREFIX): e for e in profiled.key_averages() if e.key.startswith(PREFIX)}
    whole = found["whole"].cpu_time_total
    inside = sum(e.cpu_time_total for name, e in found.items() if name in OUTERMOST)
    rows = [
        {
            "region": name,
            "cpu_ms": round(entry.cpu_time_total / 1000 / steps, 4),
            "share": round(entry.cpu_time_total / whole, 4),
            "calls": round(entry.count / steps, 2),
            **({"gpu_ms": round(entry.device_time_total / 1000 / steps, 4)} if torch.cuda.is_available() else {}),
        }
        for name, entry in sorted(found.items(), key=lambda item: -item[1].cpu_time_total)
    ]
    rest = whole - inside
    return [*rows, {"region": "rest", "cpu_ms": round(rest / 1000 / steps, 4), "share": round(rest / whole, 4)}]


# Regions that lie in no other but the whole step.
OUTERMOST = (
    "feed",
    "window",
    "forward",
    "ratio",
    "gradient",
    "measures",
    "exchange",
    "update",
    "outer",
    "second order",
    "fusion",
)


def _line(rows: list[dict[str, Any]]) -> str:
    whole = next(row for row in rows if row["region"] == "whole")
    parts = ", ".join(
        f"{row['region']} {row['share']:.0%}" for row in rows if row is not whole and row["share"] >= 0.01
    )
    return f"a step takes {whole['cpu_ms']:.1f} ms: {parts}"
