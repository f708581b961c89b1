"""What a regime is like, region by region, from its rows alone: cheap, and before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tgeokd_ray.tables.regimes.regime import Floats, Regime


@dataclass(frozen=True)
class RegionSummary:
    """One region: its rows, the share of wrong labels among those given, the share without
    one, the mean reference mixture of label and teachers, and of each teacher accuracy and NLL (nats) on true labels.
    """

    rows: int
    label_noise: float
    unlabelled: float
    ratios: tuple[float, ...]
    teacher_accuracy: tuple[float, ...]
    teacher_nll: tuple[float, ...]


def describe(regime: Regime) -> dict[str, RegionSummary]:
    """A summary for each region that has rows. Teachers' figures are empty where the teacher is yet to be trained.

    All rows count, as if each were in a split whose labels are damaged.
    """
    present = [code for code in range(len(regime.regions)) if (regime.region == code).any()]
    return {regime.regions[code]: _summary(regime, regime.region == code) for code in present}


def _summary(regime: Regime, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> RegionSummary:
    true, given = regime.true[rows], regime.given[rows]
    labelled = given >= 0
    noise = float((given != true)[labelled].mean()) if labelled.any() else 0.0
    count = 0 if regime.logits is None else regime.logits.shape[1]
    logits = np.empty((len(true), 0, len(regime.classes))) if regime.logits is None else regime.logits[rows]
    log_probabilities = _log_softmax(logits)
    right = logits.argmax(-1) == true[:, None]
    nll = -log_probabilities[np.arange(len(true))[:, None], np.arange(count), true[:, None]]
    return RegionSummary(
        rows=len(true),
        label_noise=noise,
        unlabelled=float(1 - labelled.mean()),
        ratios=tuple(regime.ratios[rows].mean(0).tolist()),
        teacher_accuracy=tuple(right.mean(0).tolist()),
        teacher_nll=tuple(nll.mean(0).tolist()),
    )


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
