"""The part of a dataset card that says which rows belong to which split."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tgeokd_ray.tables.card_columns import Text
from tgeokd_ray.tables.card_shares import SPLITS, Moment, Parts, Target
from tgeokd_ray.tables.card_trusted import JUDGES, Trusted
from tgeokd_ray.tables.validation import Grown, raise_all

__all__ = ["SPLITS", "Period", "Splits"]

_NEEDS = {"hash": ("parts",), "file": ("files",), "time": ("column", "periods"), "column": ("column",)}


class Period(Grown):
    """Rows whose time is below `until` (and not below an earlier bound); the last period may be open.

    `latest` names the split among several in `to` that takes its share from the end of the period, by time and not by
    hash; so the period needs an end and a beginning, which is the end of the one before, or `since` for the first.
    """

    until: Moment | None = None
    to: Target
    since: Moment | None = None
    latest: Literal["outer", "valid", "test"] | None = None

    LATER: ClassVar[tuple[str, ...]] = ("since", "latest")

    def problems(self, begin: float | None) -> list[str]:
        """What keeps the split `latest` from being the end of the period that begins at `begin`."""
        if self.latest is None:
            return []
        fits = isinstance(self.to, dict) and len(self.to) > 1 and self.latest in self.to
        ends = begin is not None and self.until is not None
        return ([] if fits else [f"latest: {self.latest!r} must be one of several splits in `to`"]) + (
            [] if ends else ["latest needs a period with an end (until) and a beginning (since, or a period before)"]
        )

    def spans(self, begin: float | None) -> list[list[Any]]:
        """[until, target] of the period's parts, in order."""
        if self.latest is None or begin is None or self.until is None or isinstance(self.to, str):
            return [[self.until, self.to]]
        share = self.to[self.latest]
        rest = {split: part / (1 - share) for split, part in self.to.items() if split != self.latest}
        return [[self.until - share * (self.until - begin), rest], [self.until, self.latest]]


class Splits(Grown):
    """Which split a row belongs to: by hash of its id, by its file's base name, by time, or by a column that names it.

    Shares may add up to less than 1: the rest is unused. A pattern in `files` or a period names one split, or shares
    which are hashed in the same way. With `time: timestamp` the column holds ISO 8601 texts or timestamps. A row whose
    column of kind `column` is empty, or names no split, is unused.
    """

    kind: Literal["hash", "file", "time", "column"] = "hash"
    salt: Text = ""
    parts: Parts = Field(default_factory=dict)
    files: dict[str, Target] = Field(default_factory=dict)
    column: Text | None = None
    time: Literal["number", "timestamp"] = "number"
    periods: tuple[Period, ...] = ()
    trusted: Trusted | None = None

    LATER: ClassVar[tuple[str, ...]] = ("trusted",)

    @model_validator(mode="after")
    def _kind_has_what_it_needs(self) -> Self:
        needed = _NEEDS[self.kind]
        keys = ("parts", "files", "column", "periods")
        no_train = self.kind != "column" and not any(t == "train" or "train" in t for t in self._targets)
        raise_all(
            [f"kind {self.kind} needs {key}" for key in needed if not getattr(self, key)]
            + [f"kind {self.kind} takes no {k}" for k in keys if k not in needed and getattr(self, k)]
            + self._period_problems()
            + self._trusted_problems()
            + (["no rows go to train"] if no_train else [])
        )
        return self

    def _period_problems(self) -> list[str]:
        bounds = [period.until for period in self.periods]
        ordered = all(a is not None and (b is None or a < b) for a, b in pairwise(bounds))
        first = self.periods[0] if self.periods else None
        reversed_ = first is not None and None not in (first.since, first.until) and first.since >= first.until  # type: ignore[operator]
        return (
            ([] if ordered else ["periods must be in order of `until`, and only the last may lack it"])
            + [
                f"periods.{n}: since is for the first period"
                for n, p in enumerate(self.periods)
                if n and p.since is not None
            ]
            + (["periods.0: since must be before until"] if reversed_ else [])
            + [
                f"periods.{n}: {what}"
                for n, (begin, period) in enumerate(self._begun())
                for what in period.problems(begin)
            ]
        )

    def _trusted_problems(self) -> list[str]:
        if self.trusted is None or self.trusted.splits:
            return []
        taken = [name for name in JUDGES if any(target == name or name in target for target in self._targets)]
        by_column = "trusted: where a column names the splits, say which of them are trusted (trusted.splits)"
        twice = self.trusted.is_range and self.trusted.column == self.column and self.trusted.time != self.time
        return (
            [f"trusted: trusted rows alone go to {name}, so no other share or period may" for name in taken]
            + ([by_column] if self.kind == "column" else [])
            + ([f"trusted: time must be {self.time}, as the splits read {self.column!r}"] if twice else [])
        )

    def _begun(self) -> list[tuple[float | None, Period]]:
        """Each period with the moment at which it begins, None where it is open."""
        before = [None, *(period.until for period in self.periods)]
        return [(p.since if p.since is not None else b, p) for b, p in zip(before, self.periods, strict=False)]

    @property
    def _targets(self) -> list[str | dict[str, float]]:
        return [self.parts, *self.files.values(), *(period.to for period in self.periods)]

    @property
    def named(self) -> tuple[str, ...]:
        """The splits beside `train` that rows are meant to go to; `teacher`, which not every job needs, where it is
        named."""
        if self.kind == "column":
            return ("outer", "valid", "test")
        found = {name for target in self._targets for name in ([target] if isinstance(target, str) else target)}
        return tuple(sorted(found - {"train"}))

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that decide about splits."""
        own = (self.column, None if self.trusted is None else self.trusted.column)
        return tuple(dict.fromkeys(name for name in own if name is not None))

    @property
    def times(self) -> dict[str, tuple[str, str]]:
        """(key of the card, number or timestamp) that says how to read each column of times."""
        found: dict[str, tuple[str, str]] = {}
        if self.trusted is not None and self.trusted.column is not None and self.trusted.is_range:
            found[self.trusted.column] = ("splits.trusted.time", self.trusted.time)
        if self.kind == "time" and self.column is not None:
            found[self.column] = ("splits.time", self.time)
        return found

    def rules(self) -> dict[str, Any]:
        """The splits as plain data, for `Card.split_rules`."""
        rules: dict[str, Any] = {"kind": self.kind, "salt": self.salt}
        if self.kind == "hash":
            return {**rules, "parts": dict(self.parts)}
        if self.kind == "file":
            return {**rules, "files": [[pattern, target] for pattern, target in self.files.items()]}
        if self.kind == "column":
            return {**rules, "column": self.column}
        spans = [span for begin, period in self._begun() for span in period.spans(begin)]
        since = self.periods[0].since
        return {**rules, "periods": spans if since is None else [[since, {}], *spans]}
