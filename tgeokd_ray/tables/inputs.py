"""What an encoded table is made from, known before any work: a chain that finds its table finished reads no rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import BASE, Artifact, file_digests, find, inputs_digest
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.sources import expand_files

KIND = "tables"
# Raised when the same card and files are to give other shards than before.
ENCODING = 1


def raw_files(card: Card, files: Sequence[str | Path]) -> list[Path]:
    """The raw files in the order of their base names, so that a copy elsewhere has the same row ids.

    None for a table that makes its rows. ConfigError for two files of one base name, and as `expand_files`.
    """
    paths = sorted(expand_files(card, files), key=lambda path: path.name)
    twice = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    if twice:
        problems = [Problem("several files have this base name, which row ids count on", file=name) for name in twice]
        raise ConfigError(problems, fix="name each file once, or rename one")
    return paths


def table_inputs(card: Card, files: Sequence[str | Path], root: Path) -> dict[str, Any]:
    """The arguments of the artifact: what the card says about the encoding, and name, bytes, sha256 of each raw file.

    Digests are cached in ROOT/.cache/digests.json, so a file that has not changed is read once.
    """
    paths = raw_files(card, files)
    digests = file_digests(paths, root / ".cache" / "digests.json")
    raw = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256}
        for path, sha256 in zip(paths, digests, strict=True)
    ]
    # The rules as lists: in a canonical mapping the order of file patterns, which decides, would be lost.
    return {"encoding": ENCODING, "card": card.digest_arguments(), "splits": card.split_rules, "raw": raw}


def find_table(
    card: Card, files: Sequence[str | Path], root: Path, name: str | None = None, *, onto: Artifact | None = None
) -> Artifact | None:
    """The finished table of these inputs, ROOT/tables/NAME (the card's name unless given), grown from `onto` where that
    is given; None if there is none."""
    parents = {} if onto is None else {BASE: onto.as_parent()}
    inputs = inputs_digest(KIND, table_inputs(card, files, root), parents)
    return find(root, KIND, name or card.name, inputs)
