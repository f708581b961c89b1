"""The part of a dataset card that says which rows belong to which split."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tgeokd_ray.tables.card_columns import Text
from tgeokd_ray.tables.validation import Strict, did_you_mean, raise_all

SPLITS = ("teacher", "train", "outer", "valid", "test")
ROUNDING = 1e-9


def _shares(value: Any) -> Any:
    """The raw value if it is {split: share}: known splits, shares above 0 that add up to 1 at most."""
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping from split to share, got {value!r}")
    unknown = [name for name in value if name not in SPLITS]
    bad = {n: s for n, s in value.items() if isinstance(s, bool) or not isinstance(s, int | float) or not 0 < s <= 1}
    total = sum(share for name, share in value.items() if name not in bad)
    raise_all(
        [f"{name!r} is not one of the splits {', '.join(SPLITS)}{did_you_mean(str(name), SPLITS)}" for name in unknown]
        + [f"the share of {name!r} must be above 0 and at most 1, got {share!r}" for name, share in bad.items()]
        + ([f"shares must add up to 1 or less, got {total:g}"] if total > 1 + ROUNDING else [])
    )
    return value


def _target(value: Any) -> Any:
    """The raw value if it is the name of a split or {split: share}."""
    if not isinstance(value, str):
        return _shares(value)
    if value not in SPLITS:
        raise ValueError(f"{value!r} is not one of the splits {', '.join(SPLITS)}{did_you_mean(value, SPLITS)}")
    return value


Parts = Annotated[dict[str, float], BeforeValidator(_shares)]
Target = Annotated[str | dict[str, float], BeforeValidator(_target)]


def seconds(value: Any) -> float:
    """A time as seconds since 1970 (UTC): ISO 8601 text, a date or a datetime. ValueError if it is none of them."""
    moment = datetime.fromisoformat(value if isinstance(value, str) else value.isoformat())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Period(Strict):
    """Rows whose time is below `until` (and not below an earlier bound); the last period may be open."""

    until: float | None = None
    to: Target

    @field_validator("until", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return seconds(value) if isinstance(value, str) or hasattr(value, "isoformat") else value


class Splits(Strict):
    """Which split a row belongs to: by hash of its id, by its file's base name, or by time.

    Shares may add up to less than 1: the rest is unused. A pattern in `files` or a period names one split, or shares
    which are hashed in the same way. With `time: timestamp` the column holds ISO 8601 texts or timestamps.
    """

    kind: Literal["hash", "file", "time"] = "hash"
    salt: Text = ""
    parts: Parts = Field(default_factory=dict)
    files: dict[str, Target] = Field(default_factory=dict)
    column: Text | None = None
    time: Literal["number", "timestamp"] = "number"
    periods: tuple[Period, ...] = ()

    @model_validator(mode="after")
    def _kind_has_what_it_needs(self) -> Self:
        needs = {"hash": ("parts",), "file": ("files",), "time": ("column", "periods")}
        keys = ("parts", "files", "column", "periods")
        targets = [self.parts, *self.files.values(), *(period.to for period in self.periods)]
        bounds = [period.until for period in self.periods]
        ordered = all(a is not None and (b is None or a < b) for a, b in pairwise(bounds))
        raise_all(
            [f"kind {self.kind} needs {key}" for key in needs[self.kind] if not getattr(self, key)]
            + [f"kind {self.kind} takes no {k}" for k in keys if k not in needs[self.kind] and getattr(self, k)]
            + ([] if ordered else ["periods must be in order of `until`, and only the last may lack it"])
            + ([] if any(t == "train" or "train" in t for t in targets) else ["no rows go to train"])
        )
        return self

    def rules(self) -> dict[str, Any]:
        """The splits as plain data, for `Card.split_rules`."""
        rules: dict[str, Any] = {"kind": self.kind, "salt": self.salt}
        if self.kind == "hash":
            return {**rules, "parts": dict(self.parts)}
        if self.kind == "file":
            return {**rules, "files": [[pattern, target] for pattern, target in self.files.items()]}
        return {**rules, "periods": [[period.until, period.to] for period in self.periods]}
