"""The card that an encoded table holds: what it was made by, without texts, files and defaults."""

from __future__ import annotations

from tgeokd_ray.artifacts import Artifact, read_json
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.validation import validated


def own_card(table: Artifact) -> tuple[str, Card]:
    """(path, card) of the card in a table, a teacher or a student; it has a name, and no defaults of its own."""
    path = table.file("card.json")
    return str(path), validated(Card, read_json(path), str(path))


def check_card(card: Card, source: str, table: Artifact) -> None:
    """ConfigError unless `card`, which was read from `source`, is the one that made this table.

    Names and all that shapes the encoded table must agree; texts, files and defaults may differ.
    """
    path, own = own_card(table)
    given, made = card.digest_arguments(), own.digest_arguments()
    differing = [key for key in given | made if given.get(key) != made.get(key)]
    if card.name != own.name:
        differing.insert(0, "name")
    if differing:
        problem = Problem(
            f"the card {card.name} ({source}) did not make {table.label}: {', '.join(differing)} differ",
            expected=f"the table's own card {own.name} ({path})",
            got=card.name,
        )
        raise ConfigError([problem], fix="leave --card out, name the table of this card, or encode the files again")
