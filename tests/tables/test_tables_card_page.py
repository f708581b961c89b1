"""docs/card.md is a card that loads, and its splits are splits that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tgeokd_ray.tables.card_splits import Period, Splits
from tgeokd_ray.tables.card_trusted import Trusted
from tgeokd_ray.tables.cards import load_card

PAGE = (Path(__file__).parents[2] / "docs" / "card.md").read_text()
WHOLE, SPLITS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_loads_and_shows_every_key(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(WHOLE)
    card = load_card(tmp_path / "card.yaml")
    assert card.format.separator == "|"
    assert card.label.negative == "none"
    shown = set(re.findall(r"([a-z_0-9]+):", WHOLE))
    for part in (card, card.format, card.label, card.columns, card.columns.numeric[1], card.columns.categorical[0]):
        unnamed = (
            set(type(part).model_fields) - shown - {"seed", "rows", "chunk_rows", "terms", "publisher", "citation"}
        )
        assert not unnamed, type(part)


def test_the_kinds_of_splits_show_every_key() -> None:
    shown = set(re.findall(r"([a-z_]+):", SPLITS))
    for part in (Splits, Period, Trusted):
        assert set(part.model_fields) <= shown, part


@pytest.mark.parametrize("text", SPLITS.strip().split("\n\n"))
def test_each_kind_of_splits_loads(tmp_path: Path, text: str) -> None:
    data = yaml.safe_load(WHOLE) | yaml.safe_load(text)
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(data))
    assert load_card(tmp_path / "card.yaml").splits.salt == "s"
