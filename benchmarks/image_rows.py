"""Made-up images in CIFAR's binary form: each class has a pattern of its own, shifted, flipped and noisy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 32
SPLITS = {
    "kind": "file",
    "salt": "images",
    "files": {"train*": {"teacher": 0.4, "train": 0.4, "outer": 0.1, "valid": 0.1}, "test*": "test"},
}


def make_images(labels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Images [N, 3, 32, 32] of these labels [N]: the class's pattern of 4 x 4 blocks, moved by up to 4 pixels, mirrored
    in every other image, with noise."""
    patterns = np.random.default_rng(99).integers(40, 216, (256, 3, 8, 8)).repeat(4, axis=2).repeat(4, axis=3)
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.0, 25.0, (len(labels), 3, SIDE, SIDE))
    shifts, flips = rng.integers(-4, 5, (len(labels), 2)), rng.random(len(labels)) < 0.5
    moved = np.stack([np.roll(patterns[k], shift, (1, 2)) for k, shift in zip(labels, shifts, strict=True)])
    moved = np.where(flips[:, None, None, None], moved[..., ::-1], moved)
    return np.clip(moved + noise, 0, 255).astype(np.uint8)


def write_cifar(path: Path, rows: int, *, seed: int = 0, kind: str = "cifar10") -> tuple[Any, Any]:
    """Write `rows` rows in the form of `kind`; returns (labels [N, 1 or 2], pixels [N, 3072]), both uint8.

    Classes take turns. The coarse label of a fine one is a fifth of it, as there are 20 and 100.
    """
    classes = (np.arange(rows) % (10 if kind == "cifar10" else 100)).astype(np.uint8)
    labels = classes[:, None] if kind == "cifar10" else np.stack([classes // 5, classes], axis=1)
    pixels = make_images(classes, seed).reshape(rows, -1)
    path.write_bytes(np.concatenate([labels, pixels], axis=1).tobytes())
    return labels, pixels


def image_card(kind: str = "cifar10", **changes: Any) -> dict[str, Any]:
    """A card for such files as plain data: `train*` and `test*`."""
    column, classes = ("label", 10) if kind == "cifar10" else ("fine", 100)
    data = {
        "name": "images",
        "format": {"kind": kind},
        "label": {"column": column, "classes": [f"class {k}" for k in range(classes)]},
        "columns": {"image": "pixels"},
        "splits": SPLITS,
    }
    return {**data, **changes}
