"""The default sweep of every card: whole, and what the card has now is tried first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.config.sweep import resolve_sweep, trial_job

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CARDS = sorted((REPOSITORY / "datasets").glob("*.yaml"))


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_g_the_present_default_is_a_known_point(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    resolved = resolve_sweep(str(card.parent / "sweeps" / card.name), {})
    (known,) = resolved.sweep.known_points
    job, _ = resolve({"card": f"datasets/{card.name}"})
    mine = trial_job(resolved.job, known).model_copy(update={"device": job.device})
    assert mine == job
    assert resolved.sweep.scheduler == "asha"
