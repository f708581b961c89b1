"""The paper's ablations in a regime whose good ratio is known: features, class means, hidden size, temperature.

python benchmarks/method_ablation.py [synth.soft] [--quick] [--json]

Each variant learns its ratio and chooses strength, shift or a constant on valid, beside seven constants on the same
rows. A gain is test NLL less that of the constant chosen on valid (negative: better), the correlation that of the
chosen ratio with the known one over the rows that it was learned on. Three seeds (--quick: one), in this process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from figures import Figure, main

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.tables.regimes.catalogue import build
from tgeokd_ray.tables.regimes.writing import Written, write

REGIME = "synth.soft"
SEEDS = (0, 1, 2)
COMMON = ["distill.constants=[0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]"]
VARIANTS: Mapping[str, list[str]] = {
    "default: label-aligned, 32 hidden, temperature 1": [],
    "label-aligned without class means": ["distill.fusion.features=without_means"],
    "label-free": ["distill.fusion.features=label_free"],
    "paper: vertices and edges": ["distill.fusion.features=paper"],
    "paper: vertices": ["distill.fusion.features=vertices"],
    "paper: edges": ["distill.fusion.features=edges"],
    "4 hidden": ["distill.fusion.hidden=4"],
    "128 hidden": ["distill.fusion.hidden=128"],
    "temperature 2": ["distill.temperature=2"],
}


def learned(written: Written, root: Path, settings: list[str]) -> dict[str, Any]:
    """results.json of one job; runs that variants have in common are trained once."""
    told = [f"teacher.imported.file={written.teachers[0]}", f"distill.truth={written.truth}"]
    options = {"card": str(written.card), "data": [str(written.rows)], "root": str(root)}
    job, card = resolve(options, settings=[*told, *COMMON, *settings])
    return run_job(job, card, Place(local=True), Silent())[0]


def gain_and_correlation(results: Mapping[str, Any]) -> tuple[float, float]:
    """Test NLL of the learned student less that of the best constant, and the correlation with the known ratio."""
    constant = next(model for model in results["models"] if model.get("chosen"))
    tgeo = next(model for model in results["models"] if model["name"] == "tgeo")
    (correlation,) = results["extra"]["ratio"]["effect"]["truth"]["correlation"]
    return tgeo["nll"] - constant["nll"], correlation


def ablation(quick: bool) -> Iterator[Figure]:
    regime = build(REGIME)
    with tempfile.TemporaryDirectory() as folder:
        places = [(Path(folder) / str(seed), seed) for seed in (SEEDS[:1] if quick else SEEDS)]
        seeds = [(write(regime, seed, place), place / "artifacts") for place, seed in places]
        for name, settings in VARIANTS.items():
            pairs = [gain_and_correlation(learned(written, root, settings)) for written, root in seeds]
            for measure, values in zip(("gain", "correlation"), zip(*pairs, strict=True), strict=True):
                unit = "nats" if measure == "gain" else "r"
                spread = [min(values), max(values)]
                yield Figure(f"{REGIME}, {name}: {measure}", mean(values), unit, "", None, spread, {"reason": ""})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main("Ablations of the method.", {REGIME: ablation})
