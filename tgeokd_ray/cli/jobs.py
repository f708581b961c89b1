"""The options that all jobs share, and the one call behind them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tgeokd_ray.cli.guard import guarded, only_json
from tgeokd_ray.cli.options import CARD, Address, Config, Debug, Local, Root, Seed, Settings, Workers
from tgeokd_ray.cli.spreading import spread

Data = Annotated[list[str] | None, typer.Option(help="Raw files, folders or globs; several may follow one --data.")]
Run = Annotated[str | None, typer.Option("--run", help="Name of the run folder. [default: the card's name]")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or auto. [default: auto]")]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16. [default: fp32]")]
TeacherLogits = Annotated[
    str | None,
    typer.Option(
        "--teacher-logits",
        metavar="FILE",
        help="Parquet or CSV of row_id and what a teacher from elsewhere says of each row, in place of one of ours; "
        "tgeokd import-logits --help has the columns. Nobody can check which rows it was trained on. More by --set "
        "teacher.imported.calibrate=true, ...",
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="A small budget: few epochs, one constant.")]
AsJson = Annotated[bool, typer.Option("--json", help="results.json on stdout, all else on stderr.")]
Profiled = Annotated[
    bool, typer.Option("--profile", help="A table and a trace of where the steps' time goes, in RUN/profile/.")
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show Ray's own log lines.")]


def job_app(title: str, card: str, run: str | None = None, *, students: bool = True) -> typer.Typer:
    """The command line of a job: it parses the options, runs the job, prints the table of results.

    `card` and `run` are what the job takes where neither the options nor a configuration file name another; without
    `students` it ends with the logits.
    """

    def command(
        config: Config = None,
        card_: Any = None,  # annotated below: its help names the card of this job
        data: Data = None,
        root: Root = None,
        run_: Run = None,
        workers: Workers = None,
        seed: Seed = None,
        device: Device = None,
        precision: Precision = None,
        teacher_logits: TeacherLogits = None,
        address: Address = None,
        settings: Settings = None,
        quick: Quick = False,
        local: Local = False,
        profile: Profiled = False,
        as_json: AsJson = False,
        verbose: Verbose = False,
        debug: Debug = False,
    ) -> None:
        options = {"card": card_, "data": data or None, "root": root, "run": run_, "workers": workers}
        options |= {"seed": seed, "device": device, "precision": precision, "teacher-logits": teacher_logits}
        options |= {"profile": True} if profile else {}
        place = {"local": local, "address": address, "verbose": verbose}
        resolving = {"config": config, "settings": settings or [], "quick": quick, "defaults": defaults}
        with only_json(as_json) as stream:
            guarded(lambda: _run(options, resolving, place, stream, as_json, students), debug=debug)

    defaults = {"card": card} | ({"run": run} if run is not None else {})
    named = typer.Option("--card", help=f"{CARD} [default: {Path(card).name}]")
    command.__annotations__["card_"] = Annotated[str | None, named]
    command.__doc__ = title
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    return app


def job_main(
    title: str, card: str, run: str | None = None, argv: Sequence[str] | None = None, *, students: bool = True
) -> None:
    """Parse the options of a job whose default card is `card`, run it, print the table of results, exit."""
    job_app(title, card, run, students=students)(args=spread(sys.argv[1:] if argv is None else argv))


def _run(
    options: dict[str, Any],
    resolving: dict[str, Any],
    place: dict[str, Any],
    stream: Any,
    as_json: bool,
    students: bool,
) -> None:
    from rich.console import Console

    from tgeokd_ray.config.resolve import resolve
    from tgeokd_ray.pipeline.job import Place, run_job
    from tgeokd_ray.report.terminal import TerminalProgress, results_table

    job, card = resolve(options, **resolving)
    with TerminalProgress() as progress:
        results, folder = run_job(job, card, Place(**place), progress, students=students)
    if as_json:
        json.dump(results, stream)
        stream.write("\n")
        return
    console = Console(file=stream)
    results_table(results, console, told=progress.warnings)
    if not students:
        console.print(f"logits: {results['extra']['logits']}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True, highlight=False, markup=False)
