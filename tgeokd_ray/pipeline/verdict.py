"""Whether a ratio per sample pays: one sentence with its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tgeokd_ray.report.wording import measure, mixture, point
from tgeokd_ray.training.spec import HIGHER_IS_BETTER


def verdict(choice: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    """What the second phase found: the chosen ratio per sample against the best constant, or the other way round.

    `choice` is that of the model `tgeo`; `models` are those of results.json, where the constant that was best on valid
    is marked `chosen`. The choice was made on valid; where test says the opposite, so does the sentence. A gain is told
    with its standard error where that is known, and as untested where there is none.
    """
    metric = choice["metric"]
    name = measure(metric)
    if "best" not in choice:
        chosen = point(choice["chosen"])
        return f"A ratio per sample was chosen by {name} on valid ({chosen}); there is no constant to compare with."
    best, constant = choice["best"], choice["constant"]
    figures = f"{best['valid']:.4f} ({point(best)}) against {constant['valid']:.4f}"
    value = mixture(constant["value"])
    known_error = choice.get("standard_error")
    error = "" if known_error is None else f", with a standard error of {known_error:.4f}"
    gain = best["valid"] - constant["valid"] if HIGHER_IS_BETTER[metric] else constant["valid"] - best["valid"]
    if not choice["pays"]:
        little = f": only {gain:.4f} better{error}" if gain > 0 else ""
        kept = f"of the constant {value}, which is kept{little}"
        return f"No ratio per sample pays here: {name} on valid is at best {figures} {kept}."
    if "standard_error" in choice and known_error is None:
        error = ", untested, for it has no standard error here"
    found = f"{name} on valid is {figures} of the best constant, {value}: {gain:.4f} better{error}"
    known = next((model.get(metric) for model in models if model.get("chosen")), None)
    learned = best["test"][metric]
    if known is None or learned is None:
        return f"A ratio per sample pays here: {found}."
    better = learned > known if HIGHER_IS_BETTER[metric] else learned < known
    where = "here" if better else "on valid, but not on test"
    return f"A ratio per sample pays {where}: {found}; on test it is {learned:.4f} against {known:.4f}."
