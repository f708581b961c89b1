"""Images that are moved and mirrored while they teach: what comes out, how often, and what alone decides it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.training.augment import Augmentation

FACTS = {"channels": 2, "height": 16, "width": 16, "means": [0, 0], "stds": [1, 1]}
BORDER = 2


def make(kind: str = "crop_flip", seed: int = 0) -> Augmentation:
    found = Augmentation.of(kind, FACTS, seed)
    assert found is not None
    return found


def pixels(rows: int) -> torch.Tensor:
    return torch.randint(1, 256, (rows, 512), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def rows(num_rows: int) -> Rows:
    none = torch.empty(num_rows, 0)
    ids, labels = torch.arange(num_rows) * 7 + 1, torch.zeros(num_rows, dtype=torch.int64)
    return Rows(ids, pixels(num_rows), none.int(), labels, torch.ones(num_rows), none, none, none, none, none)


def forms(image: np.ndarray, kind: str) -> dict[bytes, tuple[int, int, bool]]:
    """Every form that an image [2, 16, 16] may take, by plain numpy: (down, right, mirrored) of each."""
    found = {}
    padded = np.pad(image, ((0, 0), (BORDER, BORDER), (BORDER, BORDER)))
    for down in range(2 * BORDER + 1):
        for right in range(2 * BORDER + 1):
            cut = padded[:, down : down + 16, right : right + 16]
            found[cut.tobytes()] = (down, right, False)
            if kind == "crop_flip":
                found[cut[:, :, ::-1].tobytes()] = (down, right, True)
    return found


@pytest.mark.parametrize("kind", ["crop", "crop_flip"])
def test_each_form_is_a_cut_and_all_come_equally_often(kind: str) -> None:
    image = pixels(1)
    moved = make(kind).moved(image.expand(4000, -1), torch.arange(4000), epoch=0)
    known = forms(image.reshape(2, 16, 16).numpy(), kind)
    counts = dict.fromkeys(known.values(), 0)
    for one in moved.reshape(-1, 2, 16, 16).numpy():
        counts[known[one.tobytes()]] += 1
    expected = 4000 / len(counts)
    assert len(counts) == (25 if kind == "crop" else 50)
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 100  # chi square of 24 and of 49


def test_a_row_moves_by_seed_epoch_and_its_id_alone() -> None:
    whole, augmentation = rows(40), make()
    moved = augmentation(whole, 3).numeric
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augmentation(whole.take(order), 3).numeric, moved[order])
    assert torch.equal(augmentation(whole[5:9], 3).numeric, moved[5:9])
    assert torch.equal(augmentation.moved(whole.numeric.double(), whole.row_id, 3), moved.double())
    for other in (augmentation(whole, 4), make(seed=1)(whole, 3)):
        same = (other.numeric == moved).all(1).float().mean()
        assert same < 0.2  # one of fifty in expectation


def test_nothing_but_the_image_changes_and_it_is_not_written_into() -> None:
    whole = rows(10)
    before = whole.numeric.clone()
    moved = make()(whole, 0)
    assert torch.equal(whole.numeric, before)
    assert moved.numeric.dtype == torch.uint8
    assert [one is other for one, other in zip(moved.tensors(), whole.tensors(), strict=True)].count(False) == 1
    assert len(make()(whole[:0], 0)) == 0


def test_none_is_nothing_and_numbers_can_not_be_moved() -> None:
    assert Augmentation.of("none", None, 0) is None
    with pytest.raises(ConfigError, match="augment: crop needs a table of images"):
        Augmentation.of("crop", None, 0)
    with pytest.raises(ConfigError, match="augment must be one of none, crop, crop_flip, got flip"):
        Augmentation.of("flip", FACTS, 0)
