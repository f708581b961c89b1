"""The command line of a sweep, of the job and of `tgeokd sweep`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tgeokd_ray.cli.guard import guarded, only_json
from tgeokd_ray.cli.jobs import AsJson, Data, Device, Verbose
from tgeokd_ray.cli.options import Address, Card, Debug, Local, Root, Seed, Settings
from tgeokd_ray.cli.spreading import spread

File = Annotated[str, typer.Argument(metavar="SWEEP.yaml", help="What is searched, and how.")]
Name = Annotated[
    str | None, typer.Option("--run", help="Name of the sweep. [default: that in the file, or the file's]")
]
Add = Annotated[int, typer.Option("--add-trials", min=0, help="So many more than were asked for before.")]
Dry = Annotated[
    bool, typer.Option("--dry-run", help="The space, the number of trials, and their time from one that is measured.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a sweep that must be there; without it, with one that may be.")
]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="In place of `trials` in the file.")]
Concurrency = Annotated[int | None, typer.Option(min=1, help="In place of `concurrency` in the file.")]


def sweep(
    file: File,
    card: Card = None,
    data: Data = None,
    root: Root = None,
    run: Name = None,
    seed: Seed = None,
    device: Device = None,
    trials: Trials = None,
    concurrency: Concurrency = None,
    add_trials: Add = 0,
    resume: Resume = False,
    dry_run: Dry = False,
    address: Address = None,
    settings: Settings = None,
    local: Local = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Try many students on one table and its logits, keep the score, and train the best one for good.

    The same command goes on where it ended. Options other than of the sweep go over its `base`, as for a job.
    """
    options = {"card": card, "data": data or None, "root": root, "seed": seed, "device": device}
    told = {"options": options, "settings": settings or []}
    told["changes"] = {"name": run, "trials": trials, "concurrency": concurrency}
    how = {"add_trials": add_trials, "resume": resume, "dry_run": dry_run}
    place = {"local": local, "address": address, "verbose": verbose}
    with only_json(as_json) as stream:
        guarded(lambda: _run(file, told, how, place, stream, as_json), debug=debug)


def sweep_main(argv: Sequence[str] | None = None) -> None:
    """Parse the options of jobs/sweep.py, run the sweep, print its table, exit."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(sweep)
    app(args=spread(sys.argv[1:] if argv is None else argv))


def _run(
    file: str, told: dict[str, Any], how: dict[str, Any], place: dict[str, Any], stream: Any, as_json: bool
) -> None:
    from rich.console import Console

    from tgeokd_ray.config.sweep import resolve_sweep
    from tgeokd_ray.pipeline.job import Place
    from tgeokd_ray.pipeline.sweep import dry_run, run_sweep
    from tgeokd_ray.report.sweep_plan import plan_table
    from tgeokd_ray.report.sweep_terminal import sweep_table
    from tgeokd_ray.report.terminal import TerminalProgress

    resolved = resolve_sweep(file, told["options"], settings=told["settings"], changes=told["changes"])
    where = Place(**place)
    with TerminalProgress() as progress:
        if how["dry_run"]:
            found = dry_run(resolved, where, progress, add_trials=how["add_trials"])
        else:
            found, folder = run_sweep(resolved, where, progress, add_trials=how["add_trials"], resume=how["resume"])
    if as_json:
        json.dump(found, stream)
        stream.write("\n")
        return
    console = Console(file=stream)
    if how["dry_run"]:
        plan_table(found, console)
        return
    sweep_table(found, console, told=progress.warnings)
    artifact = found["extra"]["sweep"]["artifact"]
    for line in (f"leaderboard, best.yaml: {artifact}", f"report: {folder / 'report.html'}"):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
