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

StudyOption = Annotated[
    str | None, typer.Option("--study", metavar="FILE", help="A study as YAML; options given beside it win.")
]
Datasets = Annotated[
    str | None,
    typer.Option(
        help="Names with commas between them; docs/regimes.md has them all. CARD.whole is a table as its card says. "
        "[default: synth.soft,synth.null]"
    ),
]
Rules = Annotated[
    str | None,
    typer.Option(
        help="Rules with commas between them. Labels, constants and the reference are always there. "
        "[default: labels,constant,ada,wls,tgeo]"
    ),
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
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the study's folder: ROOT/studies/NAME. [default: study]")
]
AsJson = Annotated[bool, typer.Option("--json", help="study.json on stdout, all else on stderr.")]
Quick = Annotated[bool, typer.Option("--quick", help="A small budget: one seed, one point of the grid, few epochs.")]
QUICK = ("student.training.epochs=4", "student.training.patience=4", "teacher.training.epochs=2")


def study_main(cards: Mapping[str, str], argv: Sequence[str] | None = None) -> None:
    """Parse the options, run the study, print its table, exit. `cards` are the files of cards by the table's name."""

    def command(
        study: StudyOption = None,
        datasets: Datasets = None,
        rules: Rules = None,
        seeds: Seeds = None,
        grid: Grid = None,
        data: Data = None,
        root: Root = None,
        name: Name = None,
        address: Address = None,
        settings: Settings = None,
        quick: Quick = False,
        local: Local = False,
        as_json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        """Compare rules of distillation on tables of which the right ratio is known, all on the same rows."""
        given = {"datasets": datasets, "rules": rules, "seeds": seeds, "grid": grid, "name": name, "data": data}
        given |= {"settings": settings, "quick": quick, "local": local}
        place = {"root": root or "artifacts", "cards": dict(cards), "address": address}
        with only_json(as_json) as stream:
            guarded(lambda: _run(_told(study, given), place, stream, as_json), debug=debug)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    app(args=spread(sys.argv[1:] if argv is None else argv))


def _told(file: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a study: those `given`, then those of the file, then the defaults."""
    from tgeokd_ray.config.study_file import StudyFile, read_study_file

    there = StudyFile() if file is None else read_study_file(file)
    quick = given["quick"]
    data = {card: tuple(files.split(",")) for card, _, files in (one.partition("=") for one in given["data"] or [])}
    told = {
        "datasets": _names(given["datasets"]) or there.datasets or ("synth.soft", "synth.null"),
        "rules": _names(given["rules"]) or there.rules or ("labels", "constant", "ada", "wls", "tgeo"),
        "seeds": given["seeds"] or (1 if quick else there.seeds or 3),
        "grid": given["grid"] or ("one" if quick else there.grid or "full"),
        "name": given["name"] or there.name or "study",
        "data": {**there.data, **data},
        "local": given["local"],
    }
    settings = [*there.set, *(given["settings"] or [])]
    told["settings"] = [*(QUICK if quick else ()), *settings]
    return told | {"command": _command(told, quick=quick, settings=settings)}


def _names(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(text.split(","))


def _command(told: Mapping[str, Any], *, quick: bool, settings: Sequence[str]) -> str:
    """The command that gives the same rows elsewhere: files by their names alone, nothing of where things lie."""
    words = ["python", "jobs/benchmark.py", "--datasets", ",".join(told["datasets"]), "--rules"]
    words += [",".join(told["rules"]), "--seeds", str(told["seeds"]), "--grid", told["grid"]]
    for card, files in told["data"].items():
        words += ["--data", f"{card}={','.join(Path(file).name for file in files)}"]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join([*words, *(["--quick"] if quick else []), *(["--local"] if told["local"] else [])])


def _run(told: dict[str, Any], place: dict[str, Any], stream: Any, as_json: bool) -> None:
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
    root = prepare_root(place["root"])
    study, data = Study(told["name"], told["datasets"], told["rules"], told["seeds"]), told["data"]
    study.check(list(data), place["cards"])
    folder = root / "studies" / study.name
    rules, settings = tuple(sorted(study.rules)), tuple(told["settings"])
    cell = StudyCell(str(root), str(folder / "data"), rules, place["cards"], data, settings, grid)
    with TerminalProgress() as progress:
        engine = Lazy(opener(Job(root=str(root)), Place(local=told["local"], address=place["address"]), root, progress))
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
