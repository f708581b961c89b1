"""What a sweep would do, on a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from tgeokd_ray.report.wording import count, duration, printable


def plan_table(plan: Mapping[str, Any], console: Console) -> None:
    """The space in words, the number of trials and how many are over, and how long the rest takes by one trial that
    was measured."""
    lines = [f"sweep {plan['name']}: {count(plan['trials'])} trials, {plan['concurrency']} at once"]
    lines += [f"  {name}: {_words(parameter)}" for name, parameter in plan["space"].items()]
    if plan["over"]:
        lines.append(f"{count(plan['over'])} trials are over and are kept")
    if plan["failed"] is None:
        lines.append(f"one trial took {duration(plan['trial_seconds'])}: {json.dumps(plan['point'])}")
        lines.append(
            f"all that are left take about {duration(plan['expected_seconds'])}, without packs and early stops"
        )
        if plan["confirm"]:
            lines.append(f"that is with {plan['confirm']} fresh seeds of the winner and of the first known point")
    else:
        lines.append(f"the trial that was tried failed: {plan['failed']}")
    for line in lines:
        console.print(printable(line, console.encoding), soft_wrap=True, highlight=False, markup=False)


def _words(parameter: Mapping[str, Any]) -> str:
    """`log_uniform 0.0001 .. 0.1`, `choice [16], [32, 16]`, and when it counts."""
    (kind, value), *_ = [(key, value) for key, value in parameter.items() if key != "when"]
    if kind in ("choice", "grid"):
        text = f"{kind} {', '.join(json.dumps(one) for one in value)}"
    else:
        text = f"{kind} {value[0]:g} .. {value[1]:g}"
    when = parameter.get("when")
    return text + (f", when {json.dumps(when)}" if when else "")
