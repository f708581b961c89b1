"""Damage by options: laid over the card's, key by key, and told of the place where it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.tables.card_damage import Damage
from tgeokd_ray.tables.cards import PACKAGED, load_card

OWN = {"flip": 0.2, "where": {"kind": "above_median", "column": "n0"}, "seed": 4}


@pytest.fixture
def damaging(tmp_path: Path) -> str:
    """The packaged card with damage of its own."""
    data = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text()) | {"damage": OWN}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(data))
    return str(tmp_path / "card.yaml")


def asked(card: str, *settings: str, **more: Any) -> Damage | None:
    """The damage of job and card, which is one."""
    job, found = resolve({"card": card}, settings=settings, **more)
    assert job.damage == found.damage
    return found.damage


def test_without_a_word_there_is_none() -> None:
    assert asked("synthetic_ctr") is None
    assert resolve({})[1] == load_card("synthetic_ctr")


def test_options_lie_over_the_card(damaging: str, tmp_path: Path) -> None:
    assert asked(damaging) == Damage.model_validate(OWN)
    assert asked(damaging, "damage.flip=0.5") == Damage.model_validate(OWN | {"flip": 0.5})
    assert asked(damaging, "damage=null") is None
    assert asked("synthetic_ctr", "damage.hidden=['1']") == Damage(hidden=("1",))
    (tmp_path / "job.yaml").write_text("damage: {seed: 9, splits: [train, valid]}\n")
    found = asked(damaging, "damage.seed=8", config=str(tmp_path / "job.yaml"))
    assert found == Damage.model_validate(OWN | {"seed": 8, "splits": ["train", "valid"]})


def test_the_damage_of_the_own_card_is_kept(damaging: str) -> None:
    job, card = resolve({}, own_card=lambda _: (damaging, load_card(damaging)))
    assert job.damage == card.damage == Damage.model_validate(OWN)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("damage.hidden=[click]", "--set: damage.hidden: 'click' is not a class"),
        ("damage.where.column=n99", "--set: damage.where: 'n99' is not a feature"),
        ("damage.flop=0.1", "--set: unknown key 'flop' in damage; did you mean 'flip'?"),
        ("damage.flip=2", "--set: damage.flip must be less than or equal to 1, got 2"),
    ],
)
def test_what_does_not_fit_is_told_of_the_option(damaging: str, setting: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"card": damaging}, settings=[setting])
    assert told in str(caught.value)
