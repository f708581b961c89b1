"""Regimes made from nothing: three classes, ten numbers, teachers that are right or wrong in thirds of the first one.

A fixed network gives each row its log-odds; how far they are stretched says how sure a region's labels are.
docs/regimes.md has them in one table. N rows, C = 3 classes, M teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from tgeokd_ray.hashing import key, shares
from tgeokd_ray.tables.cards import UNLABELLED
from tgeokd_ray.tables.regimes.regime import Floats, Ints, Regime, Sizes, one_teacher, student
from tgeokd_ray.tables.synthetic import normals

ROWS, POOL, COLUMNS, CLASSES, HIDDEN = 16_000, 10_000, 10, 3, 24
DECIMALS = 6
NETWORK = 14  # of the first 40 the one whose regions are as hard, and classes as frequent, as in the figures of record
CUTS = (-0.43, 0.43)  # thirds of a standard normal
# Stretch of the log-odds in A, B, C: labels are near certain in A, noisy by nature in C.
UNEVEN, EVEN = (6.0, 3.0, 1.2), (4.0, 4.0, 4.0)
TEACHER_NOISE, FAIR_NOISE = 0.3, 0.5
FLIPPED, HIDDEN_LABELS = 0.5, 2 / 3
RATIOS = (0.0, 0.75, 1.0)
REGIONS = ("A: teacher wrong", "B: both fair", "C: labels noisy")


def synthetic(variant: str) -> Regime:
    """The regime `synth.VARIANT`; VARIANT is a key of `VARIANTS`. A pure function of the name."""
    return VARIANTS[variant]()


def _soft() -> Regime:
    """The teacher is surely wrong in A; labels are noisy by nature in C, where the teacher is exact."""
    return _regime("soft", "Teacher wrong in A, labels noisy by nature in C", _log_odds(UNEVEN))


def _null() -> Regime:
    """Nothing differs between regions."""
    log_odds = _log_odds(EVEN)
    base = _regime("null", "The same teacher and the same labels everywhere", log_odds, damaged=())
    ratios = one_teacher(np.full(ROWS, RATIOS[1]))
    return replace(base, logits=_said(log_odds, FAIR_NOISE), ratios=ratios, regions=("A", "B", "C"))


def _flip(damaged: tuple[str, ...], name: str, title: str) -> Regime:
    """Half the labels of C are wrong, evenly over the other classes."""
    base = _regime(name, title, _log_odds(EVEN), damaged=damaged)
    wrong = (base.region == 2) & (_share("flip") < FLIPPED)
    other = (base.true + 1 + (_share("flip", "to") * (CLASSES - 1)).astype(np.int64)) % CLASSES
    return replace(base, given=np.where(wrong, other, base.true))


def _multi() -> Regime:
    """Three teachers, each right in one region and surely wrong in the others."""
    log_odds = _log_odds(UNEVEN)
    base = _regime("multi", "Three teachers, each right in one region only", log_odds)
    told = [np.where((base.region == m)[:, None], log_odds, _permuted(log_odds)) for m in range(3)]
    noise = [TEACHER_NOISE * _normals((ROWS, CLASSES), "teacher", m) for m in range(3)]
    ratios = np.concatenate([np.zeros((ROWS, 1)), np.eye(3)[base.region]], axis=1)
    names = ("A: teacher 1 right", "B: teacher 2 right", "C: teacher 3 right")
    return replace(base, logits=np.stack(told, 1) + np.stack(noise, 1), ratios=ratios, regions=names)


def _drift() -> Regime:
    """Half the train rows of C are from before its classes changed places; all later rows show the new relation."""
    base = _regime("drift", "Labels of C are out of date in train; teacher wrong in A", _log_odds(EVEN))
    old = (base.region == 2) & (_share("period") < FLIPPED)
    before = _drawn(_permuted(_log_odds(EVEN)), "label", "before")
    names = (*REGIONS[:2], "C: labels out of date")
    earlier, recent = np.split(base.pool, 2)
    return replace(base, given=np.where(old, before, base.true), regions=names, pool=earlier, recent=recent)


def _unlabelled() -> Regime:
    """`null` with two of three train labels hidden: those rows have the teacher only."""
    hidden = _share("hidden label") < HIDDEN_LABELS
    base = _null()
    given, ratios = np.where(hidden, UNLABELLED, base.true), np.where(hidden, 1.0, RATIOS[1])
    title = "Two of three train labels hidden"
    named = replace(base, name="synth.unlabelled", title=title, region=hidden.astype(np.int64))
    return replace(
        named, given=given, ratios=one_teacher(ratios), regions=("labelled", "unlabelled"), damaged=("train",)
    )


VARIANTS: Mapping[str, Callable[[], Regime]] = {
    "soft": _soft,
    "null": _null,
    "flip": lambda: _flip(
        ("train", "outer", "valid"), "flip", "Half the labels of C wrong, in outer and valid rows too"
    ),
    "flipclean": lambda: _flip(("train",), "flipclean", "Half the train labels of C wrong; teacher wrong in A"),
    "multi": _multi,
    "drift": _drift,
    "unlabelled": _unlabelled,
}


def _regime(name: str, title: str, log_odds: Floats, **others: Any) -> Regime:
    """What most variants share: clean labels, one teacher that is surely wrong in A, ratios by region."""
    region, labels = _region(), _drawn(log_odds, "label")
    told = np.where((region == 0)[:, None], _permuted(log_odds), log_odds)
    return Regime(
        name=f"synth.{name}",
        title=title,
        classes=tuple(map(str, range(CLASSES))),
        features=pa.table({f"x{k}": column for k, column in enumerate(_inputs().T)}),
        true=labels,
        given=labels,
        region=region,
        regions=REGIONS,
        ratios=one_teacher(np.array(RATIOS)[region]),
        logits=_said(told, TEACHER_NOISE),
        pool=np.arange(POOL),
        test=np.arange(POOL, ROWS),
        sizes=Sizes(1500, 1000, 1000),
        encoding={"numeric": {"kind": "standard"}},
        settings=student(HIDDEN, 5e-3, 100, 60),
        **others,
    )


def _share(*name: int | str) -> Floats:
    """One number in [0, 1) for each row."""
    return shares(np.arange(ROWS, dtype=np.uint64), key("regime", *name))


def _normals(shape: tuple[int, ...], *name: int | str) -> Floats:
    """Standard normal numbers, rounded as all that a regime computes with a logarithm or a product of matrices."""
    return normals(np.arange(np.prod(shape), dtype=np.uint64), "regime", *name).reshape(shape)


def _inputs() -> Floats:
    return _normals((ROWS, COLUMNS), "inputs")


def _region() -> Ints:
    return np.searchsorted(CUTS, _inputs()[:, 0]).astype(np.int64)


def _log_odds(stretch: tuple[float, float, float]) -> Floats:
    """[N, C]: a random ReLU network of the inputs, brought to mean 0 by class and deviation 1, times the stretch."""
    first = _normals((COLUMNS, HIDDEN), "network", NETWORK, 0) * np.sqrt(2 / COLUMNS)
    second = _normals((HIDDEN, CLASSES), "network", NETWORK, 1) * np.sqrt(1 / HIDDEN)
    raw = np.maximum(_inputs() @ first, 0) @ second
    raw = (raw - raw.mean(0)) / raw.std()
    return np.asarray(np.round(raw * np.array(stretch)[_region()][:, None], DECIMALS))


def _permuted(log_odds: Floats) -> Floats:
    """Those of another class, always in the same way: sure and wrong."""
    return np.roll(log_odds, 1, axis=1)


def _said(log_odds: Floats, deviation: float) -> Floats:
    """[N, 1, C]: what a teacher says that sees the log-odds through noise."""
    return (log_odds + deviation * _normals((ROWS, CLASSES), "teacher"))[:, None]


def _drawn(log_odds: Floats, *name: int | str) -> Ints:
    """A class for each row, with the probabilities of the softmax."""
    weights = np.exp(log_odds - log_odds.max(1, keepdims=True))
    bounds = np.cumsum(weights, axis=1)
    return np.asarray((_share(*name)[:, None] * bounds[:, -1:] >= bounds[:, :-1]).sum(1), dtype=np.int64)
