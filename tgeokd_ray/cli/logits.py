"""The commands that move logits in and out as plain files."""

from __future__ import annotations

from typing import Annotated

import typer

from tgeokd_ray.cli.guard import guarded
from tgeokd_ray.cli.options import Config, Debug, Root, Settings, StageCard

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Parquet or CSV(.gz) with row_id (the table's) and one of: a list column logits or probabilities; one "
        "column per class, logit_CLASS, probability_CLASS or bare CLASS; score, for two classes the probability of "
        "the one that is not negative (with --kind logits its log-odds).",
    ),
]
Kind = Annotated[
    str | None, typer.Option("--kind", help="logits, probabilities or score, where the columns do not tell it.")
]
Name = Annotated[str | None, typer.Option("--name", help="The name in logits/NAME. [default: the card's]")]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Divide the logits by the temperature that fits the valid labels best.")
]
Missing = Annotated[
    str | None,
    typer.Option("--missing", help="Rows without logits: refuse, or labels to learn from alone. [default: refuse]"),
]
Splits = Annotated[list[str] | None, typer.Option("--splits", help="A split; repeatable. [default: all]")]


def import_logits(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table: tables/NAME or tables/NAME/v000001.")],
    file: File,
    kind: Kind = None,
    name: Name = None,
    calibrate: Calibrate = False,
    missing: Missing = None,
    card: StageCard = None,
    root: Root = None,
    config: Config = None,
    settings: Settings = None,
    debug: Debug = False,
) -> None:
    """Table and a file from a teacher elsewhere to logits/NAME.

    Nobody can check which rows that teacher was trained on: train it on rows of the split teacher, which lie in the
    table's shards.
    """
    from tgeokd_ray.cli import commands

    options = {"card": card, "root": root, "teacher-logits": file, "kind": kind, "name": name, "missing": missing}
    told = {**options, "calibrate": calibrate or None}
    given = {"table": [table]}
    guarded(lambda: commands.stage("import", told, True, None, config, settings or [], given), debug=debug)


def export_logits(
    logits: Annotated[str, typer.Argument(metavar="LOGITS", help="Logits: logits/NAME or logits/NAME/v000001.")],
    to: Annotated[str, typer.Option("--to", metavar="FILE", help="The file to write: .parquet or .csv.")],
    splits: Splits = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Probabilities beside the logits.")] = False,
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Logits to a plain file of row_id, split, fold and logits, which import-logits reads back."""
    from tgeokd_ray.cli import commands

    guarded(lambda: commands.logits(root, logits, to, splits or [], probabilities), debug=debug)
