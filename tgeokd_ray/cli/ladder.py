"""The command line of a ladder of sizes."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tgeokd_ray.cli.guard import guarded, only_json
from tgeokd_ray.cli.jobs import Data
from tgeokd_ray.cli.options import Address, Card, Config, Debug, Local, Root, Seed, Settings
from tgeokd_ray.cli.spreading import spread

Sizes = Annotated[
    str,
    typer.Option(
        "--sizes",
        metavar="SIZES",
        help="Sizes with commas between them: shares of the teacher's parameters (1/10, 0.1), or numbers of them.",
    ),
]
Seeds = Annotated[int, typer.Option("--seeds", help="How many seeds, from --seed on.", min=1)]
Name = Annotated[str | None, typer.Option("--name", help="ROOT/studies/NAME. [default: the card's name and -sizes]")]
Quick = Annotated[bool, typer.Option("--quick", help="A small budget: few epochs, one constant.")]
AsJson = Annotated[bool, typer.Option("--json", help="ladder.json on stdout, all else on stderr.")]


def ladder_main(argv: Sequence[str] | None = None) -> None:
    """Parse the options, run the ladder, print its table, exit."""

    def command(
        sizes: Sizes = "1/4,1/10,1/30,1/100",
        seeds: Seeds = 3,
        config: Config = None,
        card: Card = None,
        data: Data = None,
        root: Root = None,
        name: Name = None,
        seed: Seed = None,
        address: Address = None,
        settings: Settings = None,
        quick: Quick = False,
        local: Local = False,
        as_json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        """Train the student at several sizes, on labels and with constants, and say which size is enough."""
        options = {"card": card, "data": data or None, "root": root, "seed": seed}
        resolving = {"config": config, "settings": settings or [], "quick": quick}
        told = {"sizes": sizes, "seeds": seeds, "name": name, "command": _command(sizes, seeds, options, resolving)}
        with only_json(as_json) as stream:
            guarded(lambda: _run(told, options, resolving, local, address, stream, as_json), debug=debug)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    app(args=spread(sys.argv[1:] if argv is None else argv))


def _command(sizes: str, seeds: int, options: dict[str, Any], resolving: dict[str, Any]) -> str:
    """The command that gives the same figures elsewhere: files by their names alone."""
    words = ["python", "jobs/size_ladder.py", "--sizes", sizes, "--seeds", str(seeds)]
    words += ["--config", Path(resolving["config"]).name] if resolving["config"] else []
    card = Path(options["card"]) if options["card"] else None
    words += ["--card", card.name if card.is_absolute() else str(card)] if card else []
    words += ["--data", *(Path(file).name for file in options["data"])] if options["data"] else []
    words += ["--seed", str(options["seed"])] if options["seed"] is not None else []
    for setting in resolving["settings"]:
        words += ["--set", setting]
    return shlex.join([*words, *(["--quick"] if resolving["quick"] else [])])


def _run(
    told: dict[str, Any],
    options: dict[str, Any],
    resolving: dict[str, Any],
    local: bool,
    address: str | None,
    stream: Any,
    as_json: bool,
) -> None:
    from rich.console import Console

    from tgeokd_ray.config.resolve import resolve
    from tgeokd_ray.pipeline.engine import Lazy
    from tgeokd_ray.pipeline.job import Place, opener, prepare_root
    from tgeokd_ray.pipeline.ladder import Ladder, run_ladder
    from tgeokd_ray.pipeline.ladder_sizes import read_sizes
    from tgeokd_ray.report.ladder import ladder_table
    from tgeokd_ray.report.ladder_page import write_ladder_report
    from tgeokd_ray.report.terminal import TerminalProgress

    sizes = read_sizes(told["sizes"])
    job, card = resolve(options, **resolving)
    ladder = Ladder(told["name"] or f"{card.name}-sizes", sizes, told["seeds"])
    root = prepare_root(job.root)
    with TerminalProgress() as progress:
        engine = Lazy(opener(job, Place(local=local, address=address), root, progress))
        try:
            results, folder = run_ladder(ladder, job, card, root, engine, progress, told["command"])
        finally:
            engine.close()
    report = write_ladder_report(results, folder / "report.html")
    if as_json:
        json.dump(results, stream)
        stream.write("\n")
        return
    console = Console(file=stream)
    ladder_table(results, console)
    for name, path in (("ladder", folder / "ladder.json"), ("report", report)):
        console.print(f"{name}: {path}", soft_wrap=True, highlight=False, markup=False)
