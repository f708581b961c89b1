"""Residual networks for small images: CIFAR's ResNets and Wide ResNets. N rows, K channels, C classes.

They differ from the papers' networks in one thing, the norm. Batch norm keeps running statistics, which students of a
pack can not stack and workers would have to average, and its batch statistics make a row's logits depend on the other
rows: no stored logits, no ratio per row, no gradient in chunks would mean the same thing. Here it is group norm (Wu &
He, 2018) of 8 channels a group, which has as many parameters and looks at one row alone. Accuracies in the literature
are those of batch norm.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.models.layers import RELU_GAIN, linear
from tgeokd_ray.models.network import Network, Shape
from tgeokd_ray.models.options import ModelOptions

GROUP_CHANNELS = 8
BASE = 16  # channels of the first stage at width 1
STAGES = 3


class ImageNetwork(Network):
    """A stem, three stages of blocks, each but the first at half the side and twice the channels, the mean over all
    pixels, and a linear head.

    A pack of them runs under torch.func.vmap. ConfigError for a table without images.
    """

    stacks: ClassVar[bool] = False

    head: nn.Module

    def __init__(self, shape: Shape, options: ModelOptions, generator: torch.Generator) -> None:
        super().__init__(shape, options.embedding, generator)
        if shape.image is None:
            raise ConfigError(
                "this network is for images, and the table has none", fix="take kind mlp, wide_deep or dcnv2"
            )
        self.sides = shape.image.channels, shape.image.height, shape.image.width

    def dense(self, numeric: Tensor, embedded: Tensor, masks: Tensor | None = None) -> Tensor:
        del embedded, masks
        maps = numeric.reshape(-1, *self.sides)
        logits: Tensor = self.head(self.features(maps).mean((-2, -1)))
        return logits

    @abstractmethod
    def features(self, maps: Tensor) -> Tensor:
        """The maps [N, channels, height, width] of the last stage from images [N, K, H, W]."""


class ResNet(ImageNetwork):
    """The ResNet of CIFAR with 6 n + 2 layers (He et al., 2016, section 4.2): channels 16, 32, 64 times the width.

    As its successors take it (Tian et al., 2020): a change of shape goes through a 1 x 1 convolution with a norm, and
    from width 4 on, as in resnet8x4 and resnet32x4, the stem has 32 channels.
    """

    def __init__(self, shape: Shape, options: ModelOptions, generator: torch.Generator) -> None:
        super().__init__(shape, options, generator)
        widths = [BASE * max(options.width, 2) // 2, *(BASE * options.width * 2**k for k in range(STAGES))]
        self.stem = convolution(self.sides[0], widths[0], 3, 1, generator)
        self.norm = norm(widths[0])
        places = _stages(widths, ((options.depth or 0) - 2) // 6)
        self.blocks = nn.ModuleList(ResidualBlock(*place, generator) for place in places)
        self.head = linear(widths[-1], shape.num_classes, generator)

    def features(self, maps: Tensor) -> Tensor:
        maps = functional.relu(self.norm(self.stem(maps)))
        for block in self.blocks:
            maps = block(maps)
        return maps


class WideResNet(ImageNetwork):
    """WRN-depth-width (Zagoruyko & Komodakis, 2016): 6 n + 4 layers, norm and ReLU before each convolution, a stem of
    16 channels, no dropout."""

    def __init__(self, shape: Shape, options: ModelOptions, generator: torch.Generator) -> None:
        super().__init__(shape, options, generator)
        widths = [BASE, *(BASE * options.width * 2**k for k in range(STAGES))]
        self.stem = convolution(self.sides[0], widths[0], 3, 1, generator)
        places = _stages(widths, ((options.depth or 0) - 4) // 6)
        self.blocks = nn.ModuleList(PreactivatedBlock(*place, generator) for place in places)
        self.norm = norm(widths[-1])
        self.head = linear(widths[-1], shape.num_classes, generator)

    def features(self, maps: Tensor) -> Tensor:
        maps = self.stem(maps)
        for block in self.blocks:
            maps = block(maps)
        return functional.relu(self.norm(maps))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, each with a norm, beside the identity or a 1 x 1 convolution with one; then a ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first, self.first_norm = convolution(inputs, outputs, 3, stride, generator), norm(outputs)
        self.second, self.second_norm = convolution(outputs, outputs, 3, 1, generator), norm(outputs)
        changes = stride != 1 or inputs != outputs
        self.beside = convolution(inputs, outputs, 1, stride, generator) if changes else None
        self.beside_norm = norm(outputs) if changes else None

    def forward(self, maps: Tensor) -> Tensor:
        deep = functional.relu(self.first_norm(self.first(maps)))
        deep = self.second_norm(self.second(deep))
        if self.beside is not None and self.beside_norm is not None:
            maps = self.beside_norm(self.beside(maps))
        return functional.relu(deep + maps)


class PreactivatedBlock(nn.Module):
    """Norm, ReLU, 3 x 3 convolution, twice, beside the identity; where the shape changes, beside a 1 x 1 convolution of
    what the first ReLU gives."""

    def __init__(self, inputs: int, outputs: int, stride: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first_norm, self.first = norm(inputs), convolution(inputs, outputs, 3, stride, generator)
        self.second_norm, self.second = norm(outputs), convolution(outputs, outputs, 3, 1, generator)
        self.beside = convolution(inputs, outputs, 1, stride, generator) if inputs != outputs else None

    def forward(self, maps: Tensor) -> Tensor:
        active = functional.relu(self.first_norm(maps))
        deep: Tensor = self.second(functional.relu(self.second_norm(self.first(active))))
        return deep + (maps if self.beside is None else self.beside(active))


def convolution(inputs: int, outputs: int, side: int, stride: int, generator: torch.Generator) -> nn.Conv2d:
    """A convolution without bias, padded to keep the side at stride 1, with normal weights of variance 2 / (outputs
    side^2) (He et al., 2015, equation 14)."""
    layer = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False, device="meta")
    std = RELU_GAIN / math.sqrt(outputs * side * side)
    layer.weight = nn.Parameter(torch.empty(outputs, inputs, side, side).normal_(0.0, std, generator=generator))
    return layer


def norm(channels: int) -> nn.GroupNorm:
    """Group norm of 8 channels a group, with a scale and a shift for each channel."""
    return nn.GroupNorm(channels // GROUP_CHANNELS, channels)


def _stages(widths: list[int], blocks: int) -> Iterator[tuple[int, int, int]]:
    """(inputs, outputs, stride) of every block; the stages after the first begin with stride 2."""
    for stage, (inputs, outputs) in enumerate(pairwise(widths)):
        for block in range(blocks):
            yield (inputs, outputs, 1 if stage == 0 else 2) if block == 0 else (outputs, outputs, 1)
