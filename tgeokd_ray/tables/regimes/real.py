"""Regimes on real rows: scikit-learn's digits, tables of a card with their damage. The teacher is yet to be trained.

docs/regimes.md has them in one table. Sizes and settings are those of the figures of record of the ratio learner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.tables.cards import LABEL, Card
from tgeokd_ray.tables.digits import load_digits
from tgeokd_ray.tables.readers import read_frames
from tgeokd_ray.tables.regimes.damage import REGIONS, Damage, Damageable, Marks, Region, flip, marks
from tgeokd_ray.tables.regimes.regime import Ints, Regime, Sizes, one_teacher, shuffled, student, teacher

NOISY: tuple[Damageable, ...] = ("train", "outer", "valid")
LOG = {"kind": "log1p", "missing_flag": False}
HASHED = {"buckets": 1024}  # ids that do not depend on the few train rows, so that the teacher knows all values


@dataclass(frozen=True)
class Recipe:
    """How a table becomes a regime: its damage, the test rows and those the teacher asks for, what a seed draws.

    `fair` is the teacher's reference weight where neither label nor teacher is damaged. `encoding` replaces the card's.
    """

    table: str
    damage: Damage
    test: int
    taught: int
    sizes: Sizes
    fair: float
    settings: dict[str, Any]
    encoding: dict[str, Any] | None = None


_NSL = Recipe(
    table="nsl_kdd",
    # The salt was chosen for a half that holds .46 of the rows, with and without http, the most frequent service.
    damage=Damage(
        hidden=("probe", "r2l"), flip=0.4, where=Region(kind="hash_even", column="service", salt="b"), seed=1
    ),
    test=20_000,
    taught=30_000,
    sizes=Sizes(400, 300, 300),
    fair=1.0,
    settings={**student(12, 3e-3, 100, 40, embedding=4), **teacher([128, 64], 256, 6)},
    encoding={"numeric": LOG, "categorical": HASHED},
)
_GAS = Recipe(
    table="gas",
    damage=Damage(
        hidden=("nmri", "msci", "mpci", "mfci", "dos"),
        flip=0.5,
        where=Region(kind="above_median", column="measurement"),
        seed=2,
    ),
    test=3000,
    taught=3500,
    sizes=Sizes(400, 300, 300),
    fair=0.5,
    settings={**student(12, 3e-3, 64, 60), **teacher([128, 64], 64, 30)},
    encoding={"numeric": LOG},
)
_CRITEO = Recipe(
    table="criteo",
    damage=Damage(splits=NOISY),  # nothing is flipped; but nobody knows that outer and valid labels are right
    test=16_000,
    taught=40_000,
    sizes=Sizes(12_000, 4000, 4000),
    fair=0.75,
    settings={**student(16, 1e-3, 256, 10, embedding=4), **teacher([64], 256, 5)},
)


def _noisy(recipe: Recipe, **others: Any) -> Recipe:
    """The same with damaged labels in outer and valid rows, too."""
    return replace(recipe, damage=recipe.damage.model_copy(update={"splits": NOISY, **others}))


RECIPES: Mapping[str, Recipe] = {
    "nsl_kdd.both": _NSL,
    "nsl_kdd.both.20000": replace(
        _NSL,
        sizes=Sizes(20_000, 1000, 1000),
        settings={**_NSL.settings, **student(24, 3e-3, 100, 40, embedding=4)},
    ),
    "nsl_kdd.flip": _noisy(_NSL, hidden=()),
    "gas.both": _GAS,
    "gas.both.noisy": _noisy(_GAS),
    "gas.flip": _noisy(_GAS, hidden=()),
    "criteo": _CRITEO,
}


def of_card(name: str, card: Card, files: Sequence[Path]) -> Regime:
    """The regime `name`, a key of `RECIPES`, of the raw files of its card; a row's id counts through the files.

    ConfigError for the card of another table and for too few rows; DataError as the readers.
    """
    recipe = RECIPES[name]
    if card.name != recipe.table:
        raise ConfigError(f"the regime {name} is made of the table {recipe.table}, got the card {card.name}")
    frame = pa.concat_tables([piece for path in files for piece in read_frames(card, path)])
    sizes, drawn = recipe.sizes, recipe.sizes.train + recipe.sizes.outer + recipe.sizes.valid
    needed = recipe.test + recipe.taught + drawn
    if frame.num_rows < needed:
        problem = Problem(f"the regime {name} needs {needed} rows", got=str(frame.num_rows))
        raise ConfigError([problem], fix=f"name whole files of {recipe.table}")
    ids, labels = np.arange(frame.num_rows), frame[LABEL].to_numpy().astype(np.int64)
    found = marks(recipe.damage, frame, ids, labels, card.label.classes)
    return _regime(
        name,
        card.label.classes,
        frame.select([*card.numeric, *card.categorical]),
        labels,
        found,
        shuffled(ids, "regime", recipe.table),
        (recipe.test, recipe.taught),
        title=card.title,
        ratios=one_teacher(np.where(found.unseen, 0.0, np.where(found.inside, 1.0, recipe.fair))),
        sizes=sizes,
        damaged=recipe.damage.splits,
        encoding=recipe.encoding or card.encoding.model_dump(exclude_unset=True),
        settings=recipe.settings,
    )


def digits(name: str) -> Regime:
    """`digits.both` or `digits.both.noisy`: 8 x 8 images; the teacher never saw 7, 8, 9; half the labels are wrong
    where the left half of an image holds more ink. ConfigError without scikit-learn."""
    pixels, labels = load_digits(f"the regime {name}")
    ids, images = np.arange(len(labels)), pixels.reshape(-1, 8, 8)
    heavy = images[:, :, :4].sum((1, 2)) > images[:, :, 4:].sum((1, 2))
    flipped, given = flip(heavy, 0.5, ids, labels, 10, seed=1)
    found = Marks(heavy, flipped, given, labels > 6)
    return _regime(
        name,
        tuple(map(str, range(10))),
        pa.table({f"p{k}": column for k, column in enumerate((pixels / 8 - 1).T)}),
        labels,
        found,
        shuffled(ids, "regime", "digits"),
        (500, 500),
        title="Handwritten digits of scikit-learn",
        ratios=one_teacher(np.where(found.unseen, 0.0, np.where(flipped, 1.0, 0.5))),
        sizes=Sizes(450, 200, 147),
        damaged=NOISY if name.endswith(".noisy") else ("train",),
        encoding={"numeric": {"kind": "as_is", "missing_flag": False}},
        settings={**student(10, 5e-3, 50, 80), **teacher([64], 32, 40)},
    )


def _regime(
    name: str,
    classes: tuple[str, ...],
    features: pa.Table,
    labels: Ints,
    found: Marks,
    order: Ints,
    fixed: tuple[int, int],
    **others: Any,
) -> Regime:
    """Of the rows in `order`, the first `fixed[0]` are test rows, the next `fixed[1]`, without those of hidden classes,
    the teacher's, the others the pool."""
    test, taught, pool = np.split(order, np.cumsum(fixed))
    return Regime(
        name=name,
        classes=classes,
        features=features,
        true=labels,
        given=found.given,
        region=found.region,
        regions=REGIONS,
        logits=None,
        test=test,
        taught=taught[~found.unseen[taught]],
        pool=pool,
        **others,
    )
