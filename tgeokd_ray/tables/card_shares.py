"""What several parts of a card say about splits: names, shares, moments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator

from tgeokd_ray.tables.validation import did_you_mean, raise_all

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


def seconds(value: Any) -> float:
    """A time as seconds since 1970 (UTC): ISO 8601 text, a date or a datetime. ValueError if it is none of them."""
    moment = datetime.fromisoformat(value if isinstance(value, str) else value.isoformat())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _moment(value: Any) -> Any:
    return seconds(value) if isinstance(value, str) or hasattr(value, "isoformat") else value


Parts = Annotated[dict[str, float], BeforeValidator(_shares)]
Target = Annotated[str | dict[str, float], BeforeValidator(_target)]
Moment = Annotated[float, BeforeValidator(_moment)]
