"""The part of a dataset card that names rows with trusted labels: audited traffic, matured clicks, the latest day."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tgeokd_ray.tables.card_columns import Text
from tgeokd_ray.tables.card_shares import Moment, Parts
from tgeokd_ray.tables.validation import Strict, raise_all

YES = ("1", "true", "True", "yes")
JUDGES = ("outer", "valid")  # the splits that judge the others' labels, and so need labels that are right
_MAY_HOLD = (*JUDGES, "test")
_HALVES = dict.fromkeys(JUDGES, 0.5)


class Trusted(Strict):
    """Rows whose labels are right: by `values` of a column (texts that mean yes unless said), by a column of times from
    `since` to below `until`, by patterns of file names, or by the `splits` that they are in already.

    Rows of the first three kinds go to outer and valid by the shares `parts`, and nobody else does; those that the
    splits send to test stay there, and so do rows in `splits` wherever they are.
    """

    column: Text | None = None
    values: tuple[Text, ...] = ()
    since: Moment | None = None
    until: Moment | None = None
    time: Literal["number", "timestamp"] = "number"
    files: tuple[Text, ...] = ()
    splits: tuple[Literal["outer", "valid", "test"], ...] = ()
    parts: Parts = Field(default_factory=lambda: dict(_HALVES))

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = {"column": self.column, "files": self.files, "splits": self.splits}
        given = [name for name, value in ways.items() if value]
        told = {"values": self.values, "a range of times": self.is_range, "time": self.time != "number"}
        strange = [name for name in self.parts if name not in _MAY_HOLD]
        lacking = [name for name in JUDGES if name not in self.parts]
        raise_all(
            ([] if len(given) == 1 else [f"needs one of column, files and splits, got {' and '.join(given) or 'none'}"])
            + [f"{key} needs a column" for key, value in told.items() if value and self.column is None]
            + (["values and a range of times exclude each other"] if self.values and self.is_range else [])
            + (["time needs since or until"] if told["time"] and not self.is_range else [])
            + (["since must be before until"] if not self._in_order else [])
            + [f"parts: trusted rows do not go to {name}" for name in strange]
            + [f"parts: {name} needs a share" for name in lacking]
            + (
                ["splits take no parts: their rows stay where they are"]
                if self.splits and self.parts != _HALVES
                else []
            )
        )
        return self

    @property
    def is_range(self) -> bool:
        """Whether the column holds times."""
        return self.since is not None or self.until is not None

    @property
    def texts(self) -> tuple[str, ...]:
        """What the column says of a trusted row, where it holds no times."""
        return self.values or YES

    def declared(self) -> dict[str, Any]:
        """How the card tells these rows, as plain data: for the schema of a table."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"parts"})

    @property
    def _in_order(self) -> bool:
        return self.since is None or self.until is None or self.since < self.until
