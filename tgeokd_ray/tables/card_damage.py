"""Damage on purpose, as a card or a job asks for it: classes hidden from the teacher, labels wrong in a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from tgeokd_ray.tables.card_columns import Text
from tgeokd_ray.tables.card_trusted import JUDGES, Trusted
from tgeokd_ray.tables.validation import Strict, did_you_mean

Damageable = Literal["train", "outer", "valid"]


class Region(Strict):
    """Rows told apart by one column: the hash of its value is even, or the number is above the column's median.

    `salt` gives another hash, so another half of the values. A missing number is not above; a missing text counts as
    the empty one.
    """

    kind: Literal["hash_even", "above_median"]
    column: Text
    salt: str = ""


class Damage(Strict):
    """What is done to a table: rows of the classes `hidden` leave the split `teacher`; in the region `where` (all rows
    without one) a share `flip` of the labels is replaced by another class, evenly, in rows of `splits` only.

    Which rows are flipped, and to what, is a pure function of row id and `seed`.
    """

    hidden: tuple[Text, ...] = ()
    flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    where: Region | None = None
    splits: tuple[Damageable, ...] = ("train",)
    seed: int = 0


def damage_problems(
    damage: Damage,
    *,
    classes: Sequence[str],
    numeric: Sequence[str],
    categorical: Sequence[str],
    trusted: Trusted | None,
) -> list[str]:
    """What does not fit a card: classes and columns that it does not have, a median of texts, wrong labels where the
    card says that labels are right."""
    features, where = (*numeric, *categorical), damage.where
    found = [f"hidden: {n!r} is not a class{did_you_mean(n, classes)}" for n in damage.hidden if n not in classes]
    if set(classes) <= set(damage.hidden):
        found.append("hidden: the teacher needs a class that it sees")
    if where is not None and where.column not in features:
        found.append(f"where: {where.column!r} is not a feature{did_you_mean(where.column, features)}")
    elif where is not None and where.kind == "above_median" and where.column not in numeric:
        found.append(f"where: {where.column!r} is not numeric, so it has no median; take kind: hash_even")
    right = () if trusted is None else trusted.splits or JUDGES
    return found + [f"splits: splits.trusted says that labels of {n} are right" for n in damage.splits if n in right]


def damage_told(schema: Mapping[str, Any]) -> str | None:
    """One line on the damage that the schema of a table records; None for a table without any."""
    damage = schema.get("damage")
    if damage is None:
        return None
    flipped = ", ".join(f"{rows} of {split}" for split, rows in damage["rows"]["flipped"].items())
    hidden, left = ", ".join(damage.get("hidden", ())), sum(damage["rows"]["hidden"].values())
    told = [f"wrong labels: {flipped or 'none'}"]
    told += [f"the teacher never sees {hidden} ({left} rows left out)"] if hidden else []
    return "; ".join(told)
