"""What every rule is, and the mixtures that several of them start from.

N rows, M teachers, R students in the pack.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.points import Context, Points


@dataclass(frozen=True)
class Rule(ABC):
    """`kind` names the rule; `learned` says whether an outer step moves its parameters omega.

    `additive` says that teachers come on top of the label, whose weight is the same with and without them.
    """

    kind: ClassVar[str]
    learned: ClassVar[bool] = False
    additive: ClassVar[bool] = False

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        """omega {name: [R, ...]}, one student per seed; {} for a rule without parameters. ConfigError for M = 0
        where the rule needs a teacher."""
        del seeds, num_classes
        require_teacher(self.kind, num_teachers)
        return {}

    @abstractmethod
    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        """Weights [R, N, 1 + M] >= 0 in the type of the student's logits; rows sum to 1 unless the rule says
        otherwise."""


def level_shares(level: float, points: Points) -> Tensor:
    """Weights [1 + M]: 1 - level on the labels, level / M on each teacher."""
    num_teachers = points.num_teachers
    shares = points.student_logits.new_full((1 + num_teachers,), level / max(num_teachers, 1))
    shares[0] = 1 - level
    return shares


def everywhere(mixture: Tensor, points: Points) -> Tensor:
    """One mixture [1 + M] as the weights [R, N, 1 + M] of every row."""
    return mixture.expand(*points.student_logits.shape[:-1], mixture.shape[0])


def require_teacher(kind: str, num_teachers: int) -> None:
    """ConfigError for a rule of this kind without a teacher."""
    if num_teachers < 1:
        raise ConfigError(
            f"rule {kind!r} needs at least one teacher, got 0", fix="use the rule 'labels', or add logits"
        )
