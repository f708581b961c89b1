"""Pixels of a table of images: kept as bytes, with mean and deviation of each channel over the train rows beside them.

N rows, K channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.feed.arrow import listed, viewed, whole
from tgeokd_ray.tables.card_images import IMAGES
from tgeokd_ray.tables.cards import Card

Sums = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PixelSummary:
    """What some train rows say of their pixels: how many values a channel has, their sum and their squares' sum, [K].

    Whole numbers, so that the parts of a table add up to the same summary in any order.
    """

    count: int
    sums: Sums
    squares: Sums

    @classmethod
    def none(cls, card: Card) -> PixelSummary:
        """The summary of no rows."""
        zeros = np.zeros(IMAGES[card.format.kind].channels, dtype=np.int64)
        return cls(0, zeros, zeros)

    @classmethod
    def of(cls, card: Card, frame: pa.Table) -> PixelSummary:
        """The summary of the rows of a frame."""
        form = IMAGES[card.format.kind]
        values = pixels(frame, str(card.image)).reshape(frame.num_rows, form.channels, -1)
        counts = np.stack([np.bincount(values[:, k].reshape(-1), minlength=256) for k in range(form.channels)])
        levels = np.arange(256)
        return cls(frame.num_rows * form.height * form.width, counts @ levels, counts @ levels**2)

    def merge(self, other: PixelSummary) -> PixelSummary:
        """The summary of the rows of both."""
        return PixelSummary(self.count + other.count, self.sums + other.sums, self.squares + other.squares)


@dataclass(frozen=True)
class PixelEncoding:
    """The column of pixels of a table, the shape of an image and the scale of its channels: a network sees
    `(pixel - mean) / std`, with a std of 1 for a channel that is constant in the train rows."""

    name: str
    channels: int
    height: int
    width: int
    means: tuple[float, ...]
    stds: tuple[float, ...]

    @classmethod
    def fit(cls, card: Card, summary: PixelSummary) -> PixelEncoding:
        """The encoding from the summary of all train rows."""
        form, count = IMAGES[card.format.kind], max(summary.count, 1)
        means = summary.sums / count
        # Python's whole numbers: exact until the last division.
        spread = [int(q) * count - int(s) ** 2 for q, s in zip(summary.squares, summary.sums, strict=True)]
        stds = [value**0.5 / count if value > 0 else 1.0 for value in spread]
        return cls(str(card.image), form.channels, form.height, form.width, tuple(means.tolist()), tuple(stds))

    @property
    def facts(self) -> dict[str, Any]:
        """What a network must know of the images: all but the name, as plain numbers."""
        return {name: value for name, value in self.to_json().items() if name != "name"}

    def pixels(self, frame: pa.Table) -> NDArray[np.uint8]:
        """The pixels [N, channels * height * width] of the rows of a frame, as they are."""
        return pixels(frame, self.name)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and texts."""
        shape = {name: getattr(self, name) for name in ("name", "channels", "height", "width")}
        return shape | {"means": list(self.means), "stds": list(self.stds)}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> PixelEncoding:
        """The inverse of `to_json`."""
        name, channels, height, width = (state[key] for key in ("name", "channels", "height", "width"))
        return cls(name, channels, height, width, tuple(state["means"]), tuple(state["stds"]))


def pixels(frame: pa.Table, name: str) -> NDArray[np.uint8]:
    """A column of lists of bytes as [N, width], a view where it is one piece."""
    column = whole(frame[name])
    return viewed(listed(column)).reshape(len(column), column.type.list_size)
