"""Trusted rows, and rows without a label, counted over the units of a table: what to warn of, what its schema says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tgeokd_ray.errors import DataError
from tgeokd_ray.events import Progress
from tgeokd_ray.tables.card_trusted import JUDGES
from tgeokd_ray.tables.cards import SPLITS, Card
from tgeokd_ray.tables.ingest import RawUnit

# With fewer trusted rows a ratio is learned, and chosen, from noise.
FEW_TRUSTED, FEW_OF_A_CLASS = 200, 100
# Facts of a schema that are added up when a table grows.
COUNTED = ("unlabelled", "left_out")


def label_facts(card: Card, units: Sequence[RawUnit]) -> dict[str, Any]:
    """For the schema, each only where there is something to say: `trusted`, how the card tells those rows, with `rows`
    per split; `unlabelled` rows per split that have no label; `left_out` rows per split for want of one."""
    trusted, left_out = (_named(np.sum([getattr(u, name) for u in units], axis=0)) for name in ("trusted", "left_out"))
    unlabelled = sum(unit.unlabelled for unit in units)
    declared = card.splits.trusted
    facts: dict[str, Any] = {} if declared is None else {"trusted": {**declared.declared(), "rows": trusted}}
    facts |= {"unlabelled": {"train": unlabelled}} if unlabelled else {}
    return facts | ({"left_out": left_out} if left_out else {})


def added(facts: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of new rows together with those in the schema of the table that they join."""
    found = {name: _sum(facts.get(name, {}), base.get(name, {})) for name in COUNTED}
    whole: dict[str, Any] = {name: rows for name, rows in found.items() if rows}
    if "trusted" in facts:
        whole["trusted"] = {**facts["trusted"], "rows": _sum(facts["trusted"]["rows"], base["trusted"]["rows"])}
    return whole


def check_trusted(card: Card, units: Sequence[RawUnit], progress: Progress) -> None:
    """Where the card declares trusted rows: DataError for none in outer and valid, a warning for few of them, below 200
    in all or below 100 of a class."""
    declared = card.splits.trusted
    if declared is None:
        return
    judges = [SPLITS.index(split) for split in JUDGES if not declared.splits or split in declared.splits]
    of_class = np.sum([np.asarray(unit.counts)[judges] for unit in units], axis=(0, 1))
    total = int(of_class.sum())
    if not total:
        raise DataError(
            f"no row of the splits outer and valid is trusted: {_told(declared.declared())} fits none",
            fix="correct splits.trusted in the card",
        )
    few = [
        f"{rows} of class {name}"
        for name, rows in zip(card.label.classes, of_class, strict=True)
        if rows < FEW_OF_A_CLASS
    ]
    if total < FEW_TRUSTED or few:
        wanted = f"{FEW_TRUSTED} in all and {FEW_OF_A_CLASS} of each class are wanted"
        progress.warned(f"few trusted rows: {', '.join([f'{total} in outer and valid', *few])}; {wanted}")


def warn_of_left_out(units: Sequence[RawUnit], progress: Progress) -> None:
    """One warning for rows that are in no split because they have no label."""
    left_out = _named(np.sum([unit.left_out for unit in units], axis=0))
    if left_out:
        shown = ", ".join(f"{rows} of {split}" for split, rows in left_out.items())
        progress.warned(f"rows without a label are left out: {shown}; only train may hold such rows")


def _named(per_split: Any) -> dict[str, int]:
    """{split: rows} of the splits that have some; nothing where there are no units."""
    return {name: int(n) for name, n in zip(SPLITS, np.broadcast_to(per_split, len(SPLITS)), strict=True) if n}


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {split: one.get(split, 0) + other.get(split, 0) for split in SPLITS if split in one or split in other}


def _told(declared: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in declared.items())
