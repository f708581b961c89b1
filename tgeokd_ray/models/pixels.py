"""Images as a network sees them. N rows, K channels, H x W pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """The images of a table: K, H, W, and mean and deviation of each channel over its train rows.

    A row's numeric columns are its K H W pixels, channel by channel, as they are stored (0 to 255).
    """

    channels: int
    height: int
    width: int
    means: tuple[float, ...]
    stds: tuple[float, ...]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Pixels:
        """From what the table's schema says under `image`."""
        channels, height, width = (int(facts[name]) for name in ("channels", "height", "width"))
        return cls(channels, height, width, tuple(facts["means"]), tuple(facts["stds"]))

    def scaled(self, pixels: Tensor) -> Tensor:
        """`(pixel - mean) / std` by channel, [N, K H W], float32 for bytes and else in the type of the pixels.

        The scale is plain numbers in place of a buffer, which a pack could not stack.
        """
        values = pixels if pixels.is_floating_point() else pixels.float()
        by_channel = values.reshape(-1, self.channels, self.height * self.width).unbind(1)
        scaled = [(v - m) / s for v, m, s in zip(by_channel, self.means, self.stds, strict=True)]
        return torch.stack(scaled, 1).flatten(1)
