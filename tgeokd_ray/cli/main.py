"""`tgeokd`: one stage at a time, on artifacts that the jobs make and re-use as well.

Heavy libraries are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from tgeokd_ray.cli.guard import guarded, only_json
from tgeokd_ray.cli.logits import export_logits, import_logits
from tgeokd_ray.cli.options import (
    STORE,
    Address,
    Card,
    Config,
    Debug,
    Files,
    Local,
    Root,
    RootArgument,
    Seed,
    Settings,
    StageCard,
    Workers,
)
from tgeokd_ray.cli.spreading import spread
from tgeokd_ray.cli.sweep import sweep

app = typer.Typer(
    help="Distil a large, slow teacher into a small, fast student: TGeo-KD on tables of any size.",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # help texts are plain: rich would take [default: x] for a style and drop it
)
Table = Annotated[str, typer.Argument(metavar="TABLE", help="A table: tables/NAME or tables/NAME/v000001.")]
Model = Annotated[str, typer.Argument(metavar="STUDENT", help="A student or a teacher.")]
Artifacts = Annotated[list[str], typer.Argument(help="Artifacts: KIND/NAME or KIND/NAME/v000001.")]
Parents = Annotated[bool, typer.Option("--parents", help="All they were made from as well, where it is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, all else on stderr.")]


@app.command()
def check(
    data: Files = None,
    card: Card = None,
    draft: Annotated[str | None, typer.Option(metavar="FILE", help="Print a first card for this raw file.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read, validate and summarise raw files; writes nothing. --draft FILE prints a first card for a new table."""
    from tgeokd_ray.cli import commands

    with only_json(as_json) as stream:
        guarded(lambda: commands.check(card or "synthetic_ctr", data or [], draft, stream, as_json), debug=debug)


@app.command()
def encode(
    data: Files = None,
    card: Card = None,
    onto: Annotated[
        str | None, typer.Option(metavar="TABLE", help="A table that grows by these files, with its own encoders.")
    ] = None,
    root: Root = None,
    config: Config = None,
    settings: Settings = None,
    local: Local = False,
    address: Address = None,
    debug: Debug = False,
) -> None:
    """Raw files to tables/NAME. Encoders are fitted on train rows only, rows are split, shards written."""
    options = {"card": card, "data": data or None, "root": root}
    base = {} if onto is None else {"base": [onto]}
    _stage("encode", options, local, address, debug, config, settings, **base)


@app.command()
def teacher(
    table: Table,
    card: StageCard = None,
    root: Root = None,
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
    _stage("teacher", options, local, address, debug, config, settings, table=[table])


@app.command()
def precompute(
    table: Table,
    by: Annotated[list[str], typer.Argument(metavar="TEACHER...", help="A teacher, or those of all folds in order.")],
    splits: Annotated[
        list[str] | None, typer.Option(help="Only this split; repeatable. [default: all but the teacher's]")
    ] = None,
    card: StageCard = None,
    root: Root = None,
    config: Config = None,
    settings: Settings = None,
    local: Local = False,
    address: Address = None,
    debug: Debug = False,
) -> None:
    """Table and teacher to logits/NAME with class means. Every student uses them from now on."""
    options = {"card": card, "root": root, "splits": splits or None}
    _stage("precompute", options, local, address, debug, config, settings, table=[table], teacher=by)


app.command("import-logits")(import_logits)
app.command("logits")(export_logits)
app.command()(sweep)


@app.command()
def distill(
    table: Table,
    logits: Annotated[list[str], typer.Argument(metavar="LOGITS...", help="Logits of one or several teachers.")],
    card: StageCard = None,
    root: Root = None,
    seed: Seed = None,
    workers: Workers = None,
    config: Config = None,
    settings: Settings = None,
    local: Local = False,
    address: Address = None,
    debug: Debug = False,
) -> None:
    """Table and logits to students/NAME-*. One learns from labels, one with each constant, one is TGeo-KD."""
    options = {"card": card, "root": root, "seed": seed, "workers": workers}
    _stage("distill", options, local, address, debug, config, settings, table=[table], logits=logits)


@app.command()
def predict(
    student: Model,
    data: Annotated[list[str], typer.Argument(help="Raw files, folders or globs; labels are not needed.")],
    out: Annotated[str, typer.Option(help="The Parquet file to write.")] = "predictions.parquet",
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Raw files to Parquet of row_id, logits and probabilities."""
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.predict(root, student, data, out), debug=debug)


@app.command()
def evaluate(
    student: Model,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="The table that it was made from.")],
    split: Annotated[str, typer.Option(help="teacher, train, outer, valid or test.")] = "test",
    root: Root = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Figures of a committed model on any split of its table."""
    from tgeokd_ray.cli import commands

    with only_json(as_json) as stream:
        guarded(lambda: commands.evaluate(root, student, table, split, stream, as_json), debug=debug)


@app.command()
def verify(
    artifacts: Artifacts,
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Digests of every byte, and the parents, of artifacts."""
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.verify(root, artifacts), debug=debug)


@app.command()
def push(
    artifacts: Artifacts,
    to: Annotated[str, typer.Option("--to", metavar="URL", help=STORE)],
    parents: Parents = False,
    again: Annotated[bool, typer.Option("--again", help="Also what is there already: its bytes are damaged.")] = False,
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Copy artifacts into an object store: absent or whole there, too."""
    from tgeokd_ray.cli import transfer

    guarded(lambda: transfer.push(root, artifacts, to, parents, again), debug=debug)


@app.command()
def pull(
    artifacts: Artifacts,
    source: Annotated[str, typer.Option("--from", metavar="URL", help=STORE)],
    parents: Parents = False,
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Copy artifacts from an object store under the root, every byte checked."""
    from tgeokd_ray.cli import transfer

    guarded(lambda: transfer.pull(root, artifacts, source, parents), debug=debug)


@app.command()
def lineage(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="KIND/NAME or KIND/NAME/v000001.")],
    root: Root = None,
    debug: Debug = False,
) -> None:
    """What an artifact was made from, back to the raw files. Digests tell whether each of them is still there."""
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.lineage(root, artifact), debug=debug)


@app.command("list")
def list_(
    root: RootArgument = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Whole artifacts with their sizes and parents."""
    from tgeokd_ray.cli import commands

    with only_json(as_json) as stream:
        guarded(lambda: commands.list_artifacts(root, stream, as_json), debug=debug)


@app.command()
def gc(
    root: RootArgument = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    debug: Debug = False,
) -> None:
    """Remove what dead attempts left behind; whole artifacts stay."""
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.collect(root, dry_run), debug=debug)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run folder, or the name of one under ROOT/runs.")],
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Print the table of a run again. Its report.html is written anew from results.json."""
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
    **artifacts: list[str],
) -> None:
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.stage(stage, options, local, address, config, settings or [], artifacts), debug=debug)


def main() -> None:
    """Entry point of the `tgeokd` command."""
    app(args=spread(sys.argv[1:]))


if __name__ == "__main__":
    main()
