"""From what a user names (files, folders, patterns) to the raw files, without opening one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from tgeokd_ray.errors import ConfigError, DataError, Problem
from tgeokd_ray.tables.card_images import IMAGES
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.validation import did_you_mean

_TEXT = (".csv", ".tsv", ".txt", ".data")
_SUFFIXES = {"csv": _TEXT, "tsv": _TEXT, "arff": (".arff",), "parquet": (".parquet", ".pq")}
_SUFFIXES |= {kind: (form.suffix,) for kind, form in IMAGES.items() if form.suffix}


def expand_files(card: Card, data: Sequence[str | Path]) -> list[Path]:
    """The raw files that `data`, or else the card's own `files`, name: each once, in the order given.

    A folder stands for the data files in it, sorted by name, without hidden ones and those that start with `_`; a name
    with `*`, `?` or `[` that is no file is a pattern. Nothing for a card that makes its rows. ConfigError if nothing is
    named, DataError with every name that leads to no readable file.
    """
    named = [str(name) for name in data] or list(card.files)
    if card.format.makes_rows:
        if data:
            raise ConfigError(
                f"the card {card.name} makes its own rows and takes no data",
                fix="name the card of your files: --card CARD.yaml; tgeokd check --draft FILE prints a first one",
            )
        return []
    if not named:
        raise ConfigError(
            f"no data files: the card {card.name} names none",
            fix="name them: tgeokd check --card CARD FILE..., or --data FILE... in a job",
        )
    problems: list[Problem] = []
    found = [file for name in named for file in _files(name, _SUFFIXES[card.format.kind], problems)]
    if problems:
        raise DataError(problems, fix="correct the names of the data files")
    unique: dict[Path, Path] = {}
    for file in found:
        unique.setdefault(file.resolve(), file)
    return list(unique.values())


def _files(name: str, suffixes: tuple[str, ...], problems: list[Problem]) -> list[Path]:
    """The files that one name leads to, or none and a problem more."""
    path = Path(name)
    try:
        if path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if p.name[0] not in "._" and p.is_file()]
            files = [p for p in inside if p.name.lower().removesuffix(".gz").endswith(suffixes)]
            what = f"no data file is in this folder; looked for {', '.join(suffixes)}"
        elif not path.exists() and has_magic(name):
            files = [Path(match) for match in sorted(glob(name, recursive=True)) if Path(match).is_file()]
            what = "no file matches this pattern"
        else:
            files = [path] if path.is_file() else []
            what = "is no regular file" if path.exists() else f"no such file{_beside(path)}"
    except (OSError, ValueError) as error:  # no permission, a name too long, NUL in a name
        files, what = [], f"cannot be looked up: {getattr(error, 'strerror', None) or error}"
    problems += [Problem(what, file=name)] if not files else []
    problems += [Problem("cannot be read: no permission", file=str(f)) for f in files if not os.access(f, os.R_OK)]
    return files


def _beside(path: Path) -> str:
    return did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
