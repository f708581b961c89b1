"""Images moved and mirrored while they teach: a pure function of seed, epoch and row, on any worker and when repeated.

N rows, K channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.hashing import key, shares

KINDS = ("none", "crop", "crop_flip")
PADDED = 8  # the border is this part of the side: 4 of 32 pixels, as He et al. (2016, section 4.2) have it


@dataclass(frozen=True)
class Augmentation:
    """`crop`: the image within a border of black pixels, an eighth of its side wide, cut back to its size at one of the
    places, each as likely as the other; `crop_flip`: mirrored left to right for one row of two as well.

    Pixels stay what they are. A row that is repeated in an epoch comes in one form. ConfigError for a table without
    images and for another kind.
    """

    kind: str
    image: tuple[int, int, int]
    seed: int

    @classmethod
    def of(cls, kind: str, image: Mapping[str, Any] | None, seed: int) -> Augmentation | None:
        """The augmentation of a table whose schema says this of its images; None where nothing is to be done."""
        if kind == "none":
            return None
        if kind not in KINDS or image is None:
            known = f"augment must be one of {', '.join(KINDS)}, got {kind}"
            raise ConfigError(known if image else f"augment: {kind} needs a table of images", fix="take augment: none")
        return cls(kind, (image["channels"], image["height"], image["width"]), seed)

    def __call__(self, rows: Rows, epoch: int) -> Rows:
        """The same rows with their images as this epoch shows them."""
        return replace(rows, numeric=self.moved(rows.numeric, rows.row_id, epoch)) if len(rows) else rows

    def moved(self, pixels: Tensor, row_ids: Tensor, epoch: int) -> Tensor:
        """Pixels [N, K H W] of rows with these ids [N], in their own type."""
        channels, height, width = self.image
        border = (height // PADDED, width // PADDED)
        ids = row_ids.cpu().numpy().view(np.uint64)

        def drawn(what: str) -> Tensor:
            return torch.from_numpy(shares(ids, key("augment", what, self.seed, epoch)))

        down, right = ((drawn(w) * (2 * b + 1)).long() for w, b in zip(("down", "right"), border, strict=True))
        across = torch.arange(width).expand(len(ids), width)
        if self.kind == "crop_flip":
            across = torch.where(drawn("flip").unsqueeze(1) < 0.5, width - 1 - across, across)
        # Where each pixel of the result stands in the image with its border, and so in the one without.
        vertical = down.unsqueeze(1) + torch.arange(height) - border[0]
        horizontal = right.unsqueeze(1) + across - border[1]
        there = _within(vertical, height).unsqueeze(2) & _within(horizontal, width).unsqueeze(1)
        places = vertical.clamp(0, height - 1).unsqueeze(2) * width + horizontal.clamp(0, width - 1).unsqueeze(1)
        maps = pixels.reshape(len(ids), channels, height * width)
        index = places.flatten(1).unsqueeze(1).expand(-1, channels, -1).to(pixels.device)
        return (maps.gather(2, index) * there.flatten(1).unsqueeze(1).to(pixels.device)).reshape(pixels.shape)


def _within(places: Tensor, size: int) -> Tensor:
    return (places >= 0) & (places < size)
