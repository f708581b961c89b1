"""The options that commands and jobs share: their names and what --help says of them.

An option that was not given is None, so that it hides nothing of a configuration file; its default stands in the text.
"""

from __future__ import annotations

from typing import Annotated

import typer

CARD = "Dataset card: a YAML file or the name of a packaged card."

Card = Annotated[str | None, typer.Option("--card", help=f"{CARD} [default: synthetic_ctr]")]
StageCard = Annotated[
    str | None,
    typer.Option(
        "--card",
        help=f"{CARD} It must be the one that made the table, and brings its defaults. [default: the card in the "
        "table, which holds no defaults: the built-in ones are taken]",
    ),
]
Config = Annotated[str | None, typer.Option("--config", help="YAML file with any part of the configuration.")]
Root = Annotated[str | None, typer.Option("--root", help="Where artifacts and runs lie. [default: artifacts]")]
Workers = Annotated[int | None, typer.Option("--workers", help="Training workers; a divisor of 12. [default: 1]")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of models and order. [default: 0]")]
Address = Annotated[str | None, typer.Option("--address", help="An existing Ray cluster.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key.path=value; repeatable, the last one wins.")]
Local = Annotated[bool, typer.Option("--local", help="Without Ray: the same numbers in one process.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

Files = Annotated[list[str] | None, typer.Argument(help="Raw files, folders or globs.")]
STORE = "Where copies lie: s3://BUCKET/PREFIX, or file:///FOLDER."
RootArgument = Annotated[
    str | None,
    typer.Argument(metavar="ROOT", help="Where artifacts lie, or the URL of an object store. [default: artifacts]"),
]
