"""The command line of a study: rules on datasets over seeds."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tgeokd_ray.cli.guard import guarded, only_json
from tgeokd_ray.cli.options import Address, Debug, Local, Root, Settings
from tgeokd_ray.cli.spreading import spread

Datasets = Annotated[str, typer.Option(help="Names with commas between them; docs/regimes.md has them all.")]
Rules = Annotated[
    str, typer.Option(help="Rules with commas between them. Labels, constants and the reference are always there.")
]
Seeds = Annotated[int | None, typer.Option(help="Seeds of each dataset: 0, 1, ... [default: 3; with --quick 1]", min=1)]
Grid = Annotated[
    str | None,
    typer.Option(
        "--grid",
        metavar="GRID",
        help="What every rule is tried on. full: 3 temperatures x 2 learning rates; short: 2 temperatures at the "
        "dataset's rate; one: temperature 1 at that rate; or your own, 1,2,4x1,0.3: temperatures x multiples of the "
        "rate. [default: full; with --quick one]",
    ),
]
Data = Annotated[
    list[str] | None, typer.Option(metavar="CARD=FILE[,FILE...]", help="Raw files of a real table; repeatable.")
]
Name = Annotated[str, typer.Option("--name", help="Name of the study's folder: ROOT/studies/NAME.")]
AsJson = Annotated[bool, typer.Option("--json", help="study.json on stdout, all else on stderr.")]
Quick = Annotated[bool, typer.Option("--quick", help="A small budget: one seed, one point of the grid, few epochs.")]
QUICK = ("student.training.epochs=4", "student.training.patience=4", "teacher.training.epochs=2")


def study_main(cards: Mapping[str, str], argv: Sequence[str] | None = None) -> None:
    """Parse the options, run the study, print its table, exit. `cards` are the files of cards by the table's name."""

    def command(
        datasets: Datasets = "synth.soft,synth.null",
        rules: Rules = "labels,constant,ada,wls,tgeo",
        seeds: Seeds = None,
        grid: Grid = None,
        data: Data = None,
        root: Root = None,
        name: Name = "study",
        address: Address = None,
        settings: Settings = None,
        quick: Quick = False,
        local: Local = False,
        as_json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        """Compare rules of distillation on tables of which the right ratio is known, all on the same rows."""
        told = {"datasets": datasets.split(","), "rules": rules.split(","), "seeds": seeds or (1 if quick else 3)}
        told |= {"data": data or [], "root": root or "artifacts", "name": name, "cards": dict(cards)}
        told["grid"] = grid or ("one" if quick else "full")
        told["settings"] = [*(QUICK if quick else ()), *(settings or [])]
        told["command"] = _command(told, quick=quick, local=local, settings=settings or [])
        with only_json(as_json) as stream:
            guarded(lambda: _run(told, local, address, stream, as_json), debug=debug)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    app(args=spread(sys.argv[1:] if argv is None else argv))


def _command(told: Mapping[str, Any], *, quick: bool, local: bool, settings: Sequence[str]) -> str:
    """The command that gives the same rows elsewhere: files by their names alone, nothing of where things lie."""
    words = [
        "python",
        "jobs/benchmark.py",
        "--datasets",
        ",".join(told["datasets"]),
        "--rules",
        ",".join(told["rules"]),
    ]
    words += ["--seeds", str(told["seeds"]), "--grid", told["grid"]]
    for card, _, files in (one.partition("=") for one in told["data"]):
        words += ["--data", f"{card}={','.join(Path(file).name for file in files.split(','))}"]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join([*words, *(["--quick"] if quick else []), *(["--local"] if local else [])])


def _run(told: dict[str, Any], local: bool, address: str | None, stream: Any, as_json: bool) -> None:
    from rich.console import Console

    from tgeokd_ray.config.job import Job
    from tgeokd_ray.pipeline.engine import Lazy
    from tgeokd_ray.pipeline.job import Place, opener, prepare_root
    from tgeokd_ray.pipeline.study import Study, run_study
    from tgeokd_ray.pipeline.study_cell import StudyCell
    from tgeokd_ray.pipeline.study_grid import read_grid
    from tgeokd_ray.report.study import study_table
    from tgeokd_ray.report.study_page import write_study_report
    from tgeokd_ray.report.terminal import TerminalProgress

    grid = read_grid(told["grid"])
    root = prepare_root(told["root"])
    study = Study(told["name"], tuple(told["datasets"]), tuple(told["rules"]), told["seeds"])
    data = {card: tuple(files.split(",")) for card, _, files in (one.partition("=") for one in told["data"])}
    study.check(list(data))
    folder = root / "studies" / study.name
    rules, settings = tuple(sorted(study.rules)), tuple(told["settings"])
    cell = StudyCell(str(root), str(folder / "data"), rules, told["cards"], data, settings, grid)
    with TerminalProgress() as progress:
        engine = Lazy(opener(Job(root=str(root)), Place(local=local, address=address), root, progress))
        try:
            results = run_study(study, cell, folder, engine, progress, told["command"])
        finally:
            engine.close()
    report = write_study_report(results, folder / "report.html")
    if as_json:
        json.dump(results, stream)
        stream.write("\n")
        return
    console = Console(file=stream)
    study_table(results, console)
    for name, path in (("study", folder / "study.json"), ("report", report)):
        console.print(f"{name}: {path}", soft_wrap=True, highlight=False, markup=False)
