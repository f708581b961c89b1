"""The options that all jobs share, and the one call behind them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tgeokd_ray.cli.guard import guarded, only_json
from tgeokd_ray.cli.spreading import spread

Data = Annotated[list[str] | None, typer.Option(help="Raw files, folders or globs; several may follow one --data.")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="key.path=value; repeatable, the last one wins.")]


def job_main(title: str, card: str, run: str | None = None, argv: Sequence[str] | None = None) -> None:
    """Parse the options of a job whose default card is `card`, run it, print the table of results, exit."""

    def command(
        config: Annotated[str | None, typer.Option(help="YAML file with any part of the configuration.")] = None,
        card: Annotated[str, typer.Option(help="Dataset card: a YAML file or the name of a packaged card.")] = card,
        data: Data = None,
        root: Annotated[str | None, typer.Option(help="Where artifacts and runs lie. [default: artifacts]")] = None,
        run: Annotated[str | None, typer.Option(help="Name of the run folder. [default: the card's]")] = run,
        workers: Annotated[int | None, typer.Option(help="Training workers; a divisor of 12. [default: 1]")] = None,
        seed: Annotated[int | None, typer.Option(help="Seed of models and order. [default: 0]")] = None,
        device: Annotated[str | None, typer.Option(help="cpu, cuda or auto. [default: auto]")] = None,
        precision: Annotated[str | None, typer.Option(help="fp32 or bf16. [default: fp32]")] = None,
        address: Annotated[str | None, typer.Option(help="An existing Ray cluster.")] = None,
        settings: Setting = None,
        quick: Annotated[bool, typer.Option("--quick", help="A small budget: few epochs, one constant.")] = False,
        local: Annotated[bool, typer.Option("--local", help="Without Ray: the same numbers in one process.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="results.json on stdout, all else on stderr.")] = False,
        verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show Ray's own log lines.")] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    ) -> None:
        options: dict[str, Any] = {
            "card": card,
            "data": data or None,
            "root": root,
            "run": run,
            "workers": workers,
            "seed": seed,
            "device": device,
            "precision": precision,
        }
        with only_json(as_json) as stream:
            guarded(
                lambda: _run(options, config, settings or [], quick, local, address, verbose, stream, as_json),
                debug=debug,
            )

    command.__doc__ = title
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    app(args=spread(sys.argv[1:] if argv is None else argv))


def _run(
    options: dict[str, Any],
    config: str | None,
    settings: list[str],
    quick: bool,
    local: bool,
    address: str | None,
    verbose: bool,
    stream: Any,
    as_json: bool,
) -> None:
    from rich.console import Console

    from tgeokd_ray.config.resolve import resolve
    from tgeokd_ray.pipeline.job import Place, run_job
    from tgeokd_ray.report.terminal import TerminalProgress, results_table

    job, card = resolve(options, config=config, settings=settings, quick=quick)
    with TerminalProgress() as progress:
        results, folder = run_job(job, card, Place(local, address, verbose), progress)
    if as_json:
        json.dump(results, stream)
        stream.write("\n")
        return
    console = Console(file=stream)
    results_table(results, console, told=progress.warnings)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True, highlight=False, markup=False)
