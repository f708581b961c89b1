"""All differences of a study looked at together: which of them are left when each had its chance to look good.

A study of 8 datasets and 12 rules has about a hundred differences; five of them would lie outside of their own 95 %
intervals if no rule did anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tgeokd_ray.metrics.significance import holm, simultaneous

ALPHA = 0.05


def corrected(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `p_holm`, the p-value of the difference in NLL adjusted for all of them (Holm), `survives`, whether
    that is at most .05, and `low_all` to `high_all`, intervals that all hold together with 95 % (Bonferroni).

    All differences of rules from the chosen constant count, on all datasets; null for one seed and for the constant.
    """
    tested = [row for row in rows if row["p"] is not None]
    adjusted = iter(holm([row["p"] for row in tested]))
    found = []
    for row in rows:
        more: dict[str, Any] = dict.fromkeys(("p_holm", "low_all", "high_all", "survives"))
        if row["p"] is not None:
            more["p_holm"] = next(adjusted)
            more["survives"] = more["p_holm"] <= ALPHA
            mean, error = row["nll_vs_constant"], row["standard_error"]
            more["low_all"], more["high_all"] = simultaneous(mean, error, row["seeds"] - 1, len(tested), 1 - ALPHA)
        found.append({**row, **more})
    return found


def surviving(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence: which differences survive the correction, the better and the worse ones; none without a test."""
    tested = [row for row in rows if row["survives"] is not None]
    if not tested:
        return []
    left = [row for row in tested if row["survives"]]
    said = f"of {len(tested)} differences from the constant {len(left) or 'none'} survive{'s' * (len(left) < 2)}"
    said += f" the correction for all of them (Holm, {100 * ALPHA:g} %)"
    better, worse = ([row for row in left if (row["nll_vs_constant"] < 0) is sign] for sign in (True, False))
    parts = [f"{word}: {_listed(those)}" for word, those in (("better", better), ("worse", worse)) if those]
    return [f"{said}{'; ' * bool(parts)}{'; '.join(parts)}"]


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    """`synth.soft (reference, tgeo), digits.both (ada)`."""
    by_dataset: dict[str, list[str]] = {}
    for row in rows:
        by_dataset.setdefault(row["dataset"], []).append(row["rule"])
    return ", ".join(f"{dataset} ({', '.join(rules)})" for dataset, rules in by_dataset.items())
