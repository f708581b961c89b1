"""The nets of the channel model: from what is known of a row, but for its label, to credibility and noise.

N rows, C classes, F folds, K row features; S a student's out-of-fold probabilities, T the teacher's, both [N, C].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tgeokd_ray.objectives.distributions import agreement, entropy
from tgeokd_ray.objectives.fusion import FusionNetwork
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.points import row_shares
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.objectives.stacking import apply, stack

HIDDEN, STEPS, CHECK_EVERY = 16, 400, 10
LEARNING_RATE, WEIGHT_DECAY = 1e-2, 1e-3
START = (4.0, -2.0)  # logits of credibility and noise: a credible teacher, labels mostly right
MOST_NOISE = 0.9
LEAST_MIXTURE = 1e-9  # probability of a label, before its logarithm
MOST_ROW_FEATURE = 3.0
SPREAD_EPS = 1e-3


@dataclass(frozen=True)
class ChannelNets:
    """F nets, one per fold, that learn from the rows of the other folds: `shares` [F, N] are their weights, of sum 1.

    They see `features` [N, K'] alone; `student` and `teacher` [N], what S and T say of the label, are for the loss.
    """

    features: Tensor
    student: Tensor
    teacher: Tensor
    num_classes: int
    shares: Tensor

    def start(self, seed: int) -> dict[str, Tensor]:
        """Parameters {name: [F, ...]} whose outputs are near the logits START, small weights drawn by `seed`."""
        generators = [torch.Generator().manual_seed(1000 * seed + fold) for fold in range(len(self.shares))]
        omega = stack([FusionNetwork(self.features.shape[-1], 1, HIDDEN, generator) for generator in generators])
        omega["output.bias"] = torch.tensor(START).repeat(len(self.shares), 1)
        return {name: value.to(self.features) for name, value in omega.items()}

    def outputs(self, network: FusionNetwork, omega: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Credibility in (0, 1), noise in (0, .9) and the log-likelihood of the label, each [F, N]."""
        credibility, noise = apply(network, omega, self.features).sigmoid().unbind(-1)
        noise = MOST_NOISE * noise
        by_teacher = (1 - noise) * self.teacher + noise / self.num_classes
        mixture = credibility * by_teacher + (1 - credibility) * self.student
        return credibility, noise, mixture.clamp_min(LEAST_MIXTURE).log()

    def fit(self, folds: Tensor, shares: Tensor, seed: int) -> tuple[Tensor, Tensor, float]:
        """Credibility and noise [N] of every row by the net of its own fold, and the loss of those rows' labels.

        Stopped where that held-out loss, weighted by `shares` [N], is least among every tenth of 400 full-batch steps.
        """
        optimizer, omega = Optimizer(OptimizerSpec("adam", LEARNING_RATE)), self.start(seed)
        moments, rate = optimizer.init(omega), self.features.new_full((len(self.shares),), LEARNING_RATE)
        network = FusionNetwork(self.features.shape[-1], 1, HIDDEN)
        best: tuple[Tensor, Tensor] | None = None
        least = float("inf")
        for step in range(STEPS + 1):
            omega = {name: value.requires_grad_() for name, value in omega.items()}
            outputs = self.outputs(network, omega)
            if step > 0 and step % CHECK_EVERY == 0:
                credibility, noise, likelihood = (_held_out(value.detach(), folds) for value in outputs)
                loss = -float((likelihood * shares).sum())
                if loss < least:
                    best, least = (credibility, noise), loss
            omega, moments = optimizer.update(omega, self._gradients(omega, outputs[2]), moments, rate)
        assert best is not None  # a loss is finite, as the likelihood is bounded
        return *best, least

    def _gradients(self, omega: Mapping[str, Tensor], likelihood: Tensor) -> dict[str, Tensor]:
        """Of each net's mean loss, with a penalty on weights but not on biases: START is no guess to be shrunk."""
        penalty = torch.stack([value.square().sum() for name, value in omega.items() if name.endswith("weight")])
        objective = WEIGHT_DECAY * penalty.sum() - (likelihood * self.shares).sum()
        return dict(zip(omega, torch.autograd.grad(objective, list(omega.values())), strict=True))


def channel_features(student: Tensor, teacher: Tensor, rows: Tensor | None, weights: Tensor) -> Tensor:
    """What a net sees of each row, [N, 2 C + 8 + K]: S, T, their summaries and the row, standardised over all rows.

    No label is among it: a net that saw the label could call every label right.
    """
    summaries = [entropy(student), entropy(teacher), student.amax(-1), teacher.amax(-1), *agreement(student, teacher)]
    seen = [student, teacher, torch.stack(summaries, -1)]
    if rows is not None:
        seen.append(rows.to(student.dtype).clamp(-MOST_ROW_FEATURE, MOST_ROW_FEATURE))
    features = torch.cat(seen, -1)
    shares = row_shares(weights, features.dtype).unsqueeze(-1)
    centred = features - (shares * features).sum(0)
    return centred / ((shares * centred.square()).sum(0).sqrt() + SPREAD_EPS)


def _held_out(values: Tensor, folds: Tensor) -> Tensor:
    """[F, N] to [N]: each row by the net of its own fold."""
    return values.gather(0, folds.unsqueeze(0)).squeeze(0)
