"""`tgeokd`: one stage at a time, on artifacts that the jobs make and re-use as well.

Heavy libraries are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from tgeokd_ray.cli.guard import guarded, only_json
from tgeokd_ray.cli.spreading import spread

app = typer.Typer(
    help="Distil a large, slow teacher into a small, fast student: TGeo-KD on tables of any size.",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
CardOption = Annotated[str, typer.Option("--card", help="Dataset card: a YAML file or the name of a packaged card.")]
Files = Annotated[list[str] | None, typer.Argument(help="Raw files, folders or globs.")]
Root = Annotated[str, typer.Option("--root", help="Where artifacts lie.")]
Local = Annotated[bool, typer.Option("--local", help="Without Ray: the same numbers in one process.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Training workers; a divisor of 12.")]
Address = Annotated[str | None, typer.Option("--address", help="An existing Ray cluster.")]
Config = Annotated[str | None, typer.Option("--config", help="YAML file with any part of the configuration.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key.path=value; repeatable, the last one wins.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of models and order.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, all else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def check(
    data: Files = None,
    card: CardOption = "synthetic_ctr",
    draft: Annotated[str | None, typer.Option()] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read, validate and summarise raw files; writes nothing. --draft FILE prints a first card for a new table."""
    from tgeokd_ray.cli import commands

    with only_json(as_json) as stream:
        guarded(lambda: commands.check(card, data or [], draft, stream, as_json), debug=debug)


@app.command()
def encode(
    data: Files = None,
    card: CardOption = "synthetic_ctr",
    root: Root = "artifacts",
    local: Local = False,
    address: Address = None,
    debug: Debug = False,
) -> None:
    """Raw files to tables/NAME: encoders fitted on train rows only, rows split, shards written."""
    _stage("encode", {"card": card, "data": data or None, "root": root}, local, address, debug)


@app.command()
def teacher(
    table: Annotated[str, typer.Argument(help="A table artifact: tables/NAME or tables/NAME/v000001.")],
    card: CardOption = "synthetic_ctr",
    root: Root = "artifacts",
    seed: Seed = None,
    workers: Workers = None,
    config: Config = None,
    settings: Settings = None,
    local: Local = False,
    address: Address = None,
    debug: Debug = False,
) -> None:
    """Table to teachers/NAME."""
    options = {"card": card, "root": root, "seed": seed, "workers": workers}
    _stage("teacher", options, local, address, debug, config, settings, table=table)


@app.command()
def precompute(
    table: Annotated[str, typer.Argument(help="A table artifact.")],
    by: Annotated[str, typer.Argument(metavar="TEACHER", help="A teacher artifact.")],
    card: CardOption = "synthetic_ctr",
    root: Root = "artifacts",
    config: Config = None,
    settings: Settings = None,
    local: Local = False,
    address: Address = None,
    debug: Debug = False,
) -> None:
    """Table and teacher to logits/NAME with class means, to be used by every student from now on."""
    options = {"card": card, "root": root}
    _stage("precompute", options, local, address, debug, config, settings, table=table, teacher=by)


@app.command()
def distill(
    table: Annotated[str, typer.Argument(help="A table artifact.")],
    logits: Annotated[str, typer.Argument(help="A logits artifact.")],
    card: CardOption = "synthetic_ctr",
    root: Root = "artifacts",
    seed: Seed = None,
    workers: Workers = None,
    config: Config = None,
    settings: Settings = None,
    local: Local = False,
    address: Address = None,
    debug: Debug = False,
) -> None:
    """Table and logits to students/NAME-*: labels, constants, TGeo-KD."""
    options = {"card": card, "root": root, "seed": seed, "workers": workers}
    _stage("distill", options, local, address, debug, config, settings, table=table, logits=logits)


@app.command()
def predict(
    student: Annotated[str, typer.Argument(help="A student or teacher artifact.")],
    data: Annotated[list[str], typer.Argument(help="Raw files, folders or globs; labels are not needed.")],
    out: Annotated[str, typer.Option(help="The Parquet file to write.")] = "predictions.parquet",
    root: Root = "artifacts",
    debug: Debug = False,
) -> None:
    """Raw files to Parquet of row_id, logits and probabilities."""
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.predict(root, student, data, out), debug=debug)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A student or teacher artifact.")],
    table: Annotated[str, typer.Argument(help="The table artifact that it was made from.")],
    split: Annotated[str, typer.Option(help="teacher, train, outer, valid or test.")] = "test",
    root: Root = "artifacts",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Figures of a committed model on any split of its table."""
    from tgeokd_ray.cli import commands

    with only_json(as_json) as stream:
        guarded(lambda: commands.evaluate(root, model, table, split, stream, as_json), debug=debug)


@app.command()
def verify(
    artifacts: Annotated[list[str], typer.Argument(help="Artifacts: KIND/NAME or KIND/NAME/v000001.")],
    root: Root = "artifacts",
    debug: Debug = False,
) -> None:
    """Digests of every byte, and the parents, of artifacts."""
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.verify(root, artifacts), debug=debug)


@app.command("list")
def list_(
    root: Annotated[str, typer.Argument(help="Where artifacts lie.")] = "artifacts",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Whole artifacts with their sizes and parents."""
    from tgeokd_ray.cli import commands

    with only_json(as_json) as stream:
        guarded(lambda: commands.list_artifacts(root, stream, as_json), debug=debug)


@app.command()
def gc(
    root: Annotated[str, typer.Argument(help="Where artifacts lie.")] = "artifacts",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    debug: Debug = False,
) -> None:
    """Remove what dead attempts left behind; whole artifacts stay."""
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.collect(root, dry_run), debug=debug)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run folder, or the name of one under ROOT/runs.")],
    root: Root = "artifacts",
    debug: Debug = False,
) -> None:
    """Print the table of a run again and write its report.html anew from results.json."""
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.report(root, run), debug=debug)


def _stage(
    stage: str,
    options: dict[str, Any],
    local: bool,
    address: str | None,
    debug: bool,
    config: str | None = None,
    settings: list[str] | None = None,
    **artifacts: str,
) -> None:
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.stage(stage, options, local, address, config, settings or [], artifacts), debug=debug)


def main() -> None:
    """Entry point of the `tgeokd` command."""
    app(args=spread(sys.argv[1:]))


if __name__ == "__main__":
    main()
