"""A learned ratio per row, stored beside the rows. N rows, M teachers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tgeokd_ray.feed.beside import BesideRows


@dataclass(frozen=True)
class RatiosTable(BesideRows):
    """An artifact of kind "ratios": in the column `ratio` u [M], the logit of each teacher against the label, and the
    gate, the sum of the row's weights over its mean, as float32 lists of size M + 1.

    Ratios that were learned also hold `distance` [M], how far student and teacher were apart at the end of learning,
    NaN where the teacher did not score the row.
    """

    kind: ClassVar[str] = "ratios"
    made: ClassVar[str] = "learned on"

    @property
    def mean(self) -> float:
        """The mean of u over all rows with a label, and teachers."""
        return float(self.artifact.manifest.schema["mean"])

    @property
    def median_distances(self) -> tuple[float | None, ...]:
        """The median of `distance` of each teacher over the rows that have a label and its logits; None without any.

        Empty for ratios that nobody learned.
        """
        return tuple(self.artifact.manifest.schema.get("median_distances", ()))
