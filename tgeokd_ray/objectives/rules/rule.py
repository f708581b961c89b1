"""What every rule is, and the mixtures that several of them start from.

N rows, C classes, M teachers, R students in the pack.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.losses import Sources, distillation
from tgeokd_ray.objectives.numbers import numbers
from tgeokd_ray.objectives.options import Check, is_number
from tgeokd_ray.objectives.points import Context, Points

KD = "kd"


@dataclass(frozen=True)
class Rule(ABC):
    """`kind` names the rule; `learned` says whether an outer step moves its parameters omega.

    `additive` says that teachers come on top of the label, whose weight is the same with and without them. `needs` are
    the points that a step has to bring for it. `loss` names what stands in place of KD in `distillation`, and
    `whole_batch` says that it compares the rows of a batch, which then cannot be taken in chunks. What is `annealed`
    depends on how far the run is.
    """

    kind: ClassVar[str]
    learned: ClassVar[bool] = False
    additive: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    loss: ClassVar[str] = KD
    whole_batch: ClassVar[bool] = False
    annealed: ClassVar[bool] = False

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

    def distillation(self, student_logits: Tensor, sources: Sources, context: Context) -> Tensor:
        """What each teacher asks of each row, [R, N, M]: KD, unless the rule names another loss. Means over rows are
        those of the global batch, inside the graph."""
        del context
        assert sources.teachers is not None
        divisor = sources.divisor
        return distillation(student_logits.unsqueeze(-2), sources.teachers, temperature=divisor)


def level_shares(level: float, points: Points) -> Tensor:
    """Weights [1 + M]: 1 - level on the labels, level / M on each teacher."""
    num_teachers = points.num_teachers
    return numbers((1 - level, *[level / max(num_teachers, 1)] * num_teachers), points.student_logits)


def everywhere(mixture: Tensor, points: Points) -> Tensor:
    """One mixture [1 + M] as the weights [R, N, 1 + M] of every row."""
    return mixture.expand(*points.student_logits.shape[:-1], mixture.shape[0])


def require_teacher(kind: str, num_teachers: int) -> None:
    """ConfigError for a rule of this kind without a teacher."""
    if num_teachers < 1:
        raise ConfigError(
            f"rule {kind!r} needs at least one teacher, got 0", fix="use the rule 'labels', or add logits"
        )


def other_loss_checks(value: float, **factors: float) -> list[Check]:
    """What a rule keeps that has another loss at a constant weight: `value` in [0, 1], finite factors >= 0."""
    share = Check("value", "in [0, 1]", value, is_number(value) and 0 <= value <= 1)
    return [share, *(Check(n, "finite and >= 0", v, is_number(v) and 0 <= v < inf) for n, v in factors.items())]
