"""All regimes by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.regimes.real import RECIPES, digits, of_card
from tgeokd_ray.tables.regimes.regime import Regime
from tgeokd_ray.tables.regimes.synthetic import VARIANTS, synthetic
from tgeokd_ray.tables.validation import did_you_mean

SYNTHETIC = tuple(f"synth.{variant}" for variant in VARIANTS)
DIGITS = ("digits.both", "digits.both.noisy")
NAMES = (*SYNTHETIC, *DIGITS, *RECIPES)


def build(name: str, card: Card | None = None, files: Sequence[Path] = ()) -> Regime:
    """The regime `name`, one of `NAMES`; those of a real table need its card and its raw files.

    ConfigError for a name that there is not, for a card or files that lack or have no use, and as the regime's own.
    """
    if name not in NAMES:
        problem = Problem(f"there is no regime {name!r}{did_you_mean(name, NAMES)}")
        raise ConfigError([problem], fix=f"name one of {', '.join(NAMES)}")
    if name not in RECIPES:
        if card is not None or files:
            raise ConfigError(f"the regime {name} makes its own rows and takes neither card nor files")
        return digits(name) if name in DIGITS else synthetic(name.removeprefix("synth."))
    if card is None or not files:
        table = RECIPES[name].table
        raise ConfigError(
            f"the regime {name} is made of the table {table}: it needs the card and the raw files",
            fix=f"name datasets/{table}.yaml and the files",
        )
    return of_card(name, card, files)


def table_of(name: str) -> str | None:
    """The name of the card that a regime needs; None for one that makes its own rows."""
    return RECIPES[name].table if name in RECIPES else None
