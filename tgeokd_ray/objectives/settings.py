"""The numbers of an optimizer as a plain frozen value: readable without torch, so that a plan costs no import of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from tgeokd_ray.errors import Problem
from tgeokd_ray.objectives.options import Check, require, suggestion

KINDS = ("sgd", "momentum", "nesterov", "adagrad", "adam", "adamw")
# How an embedding table moves: as everything else, or row by row.
EMBEDDING_KINDS = ("dense", "sgd", "adagrad", "rowwise_adagrad", "lazy_adam")
# Rules with parameters that outer steps move.
LEARNED_RULES = frozenset({"tgeo_one_step", "tgeo_shape", "bikd"})
# What a step brings for rules that ask it for more than the batch's logits and labels.
NEEDS = {"rw": ("outer_slopes",), "mgda": ("gradient_products",)}
# Rules that have another loss than KD, at a constant weight.
OTHER_LOSSES = ("dkd", "dist")
# Rules whose steps need outer rows.
OUTER_RULES = LEARNED_RULES | {"rw"}


@dataclass(frozen=True)
class OptimizerSpec:
    """Which optimizer, and its numbers, named and meant as in torch.optim.

    `nesterov` is sgd with Nesterov momentum, `adagrad` starts from an accumulator of 0. `weight_decay` is decoupled for
    adamw and coupled (added to the gradient) for all others. `clip_norm` scales a student's gradients by
    `min(1, clip_norm / (norm + 1e-6))`, norm over all its tensors, before any decay. With an `embedding` other than
    "dense" embedding tables move by that kind, at `embedding_rate` times the learning rate, and do not decay: a row
    that no batch names stays as it is, and costs nothing.
    ConfigError names every wrong number at once.
    """

    kind: str
    learning_rate: float
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    embedding: str = "dense"
    embedding_rate: float = 1.0

    def __post_init__(self) -> None:
        checks = (
            Check("learning_rate", "finite and >= 0", self.learning_rate, 0 <= self.learning_rate < inf),
            Check("momentum", "in [0, 1)", self.momentum, 0 <= self.momentum < 1),
            Check("betas", "two numbers in [0, 1)", self.betas, _are_betas(self.betas)),
            Check("eps", "> 0", self.eps, self.eps > 0),
            Check("weight_decay", "finite and >= 0", self.weight_decay, 0 <= self.weight_decay < inf),
            Check("clip_norm", "> 0, or none", self.clip_norm, self.clip_norm is None or self.clip_norm > 0),
            Check("embedding_rate", "finite and > 0", self.embedding_rate, 0 < self.embedding_rate < inf),
        )
        kinds = (("kind", self.kind, KINDS), ("embedding", self.embedding, EMBEDDING_KINDS))
        unknown = [
            Problem(f"unknown optimizer.{field} {kind!r}{suggestion(kind, known)}")
            for field, kind, known in kinds
            if kind not in known
        ]
        require("optimizer", checks, unknown)


def _are_betas(betas: tuple[float, ...]) -> bool:
    return len(betas) == 2 and all(0 <= beta < 1 for beta in betas)


def undefined(kind: str, num_classes: int) -> str | None:
    """Why a rule of this kind says nothing where there are so many classes; None where it does."""
    if kind == "dkd" and num_classes < 3:
        return f"its term of the other classes is 0 for {num_classes} classes, and what is left is KD: use a constant"
    return None
