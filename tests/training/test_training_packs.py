"""Packs: runs side by side end as they end alone, each with what it has for itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import Killed, StopsAt, run

from tgeokd_ray.artifacts import load_tensors
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.training.pack import MOST_STUDENTS, packed
from tgeokd_ray.training.spec import Finished

ADAM = OptimizerSpec(kind="adam", learning_rate=3e-2)


def parameters(finished: Finished) -> dict[str, torch.Tensor]:
    files = [Path(finished.artifact) / f"{name}.safetensors" for name in ("model", "fusion")]
    return {f"{file.stem}/{k}": v for file in files if file.exists() for k, v in load_tensors(file).items()}


def assert_same(one: Finished, other: Finished, tolerance: float) -> None:
    ours, theirs = parameters(one), parameters(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=tolerance, rtol=0)
    for key in ("epoch", "steps", "rule", "parameters"):
        assert one.metrics[key] == other.metrics[key]
    assert len(one.metrics["history"]) == len(other.metrics["history"])
    for mine, yours in zip(one.metrics["history"], other.metrics["history"], strict=True):
        assert mine == pytest.approx(yours, abs=1e-6)
    assert one.metrics.get("ratio", {}).get("mean") == pytest.approx(other.metrics.get("ratio", {}).get("mean"))


def test_bilevel_runs_of_other_seeds_rates_and_temperatures_end_as_alone(small) -> None:  # type: ignore[no-untyped-def]
    options: dict[str, object] = {"precision": "fp64"}  # with dropout, whose masks are each student's own
    specs = [
        small.spec("a", **options),
        small.spec("b", model_seeds=(1,), temperature=1.0, **options),
        small.spec("c", optimizer=ADAM, rule={"kind": "tgeo_one_step", "level": 0.3}, **options),
        small.spec("d", rule={"kind": "tgeo_one_step", "features": "paper", "centred": False}, **options),
    ]
    assert len(packed(specs)) == 1
    side_by_side = run(*specs)
    alone = [run(replace(spec, root=str(small.root / "alone")))[0] for spec in specs]
    for one, other in zip(side_by_side, alone, strict=True):
        assert_same(one, other, 1e-12)


def test_rules_without_parameters_beside_a_frozen_network_end_as_alone(small) -> None:  # type: ignore[no-untyped-def]
    rules = [
        {"kind": "labels"},
        {"kind": "constant", "value": 0.3},
        {"kind": "frozen"},
        {"kind": "constant", "value": 1},
    ]
    specs = [small.spec(f"s{i}", rule=rule, precision="fp64") for i, rule in enumerate(rules)]
    assert len(packed(specs)) == 1
    for one, spec in zip(run(*specs), specs, strict=True):
        assert_same(one, run(replace(spec, root=str(small.root / "alone")))[0], 1e-12)


def test_with_exact_sums_packs_and_runs_alone_end_in_the_same_bits(small) -> None:  # type: ignore[no-untyped-def]
    specs = [small.spec(name, model_seeds=(seed,), exact_sums=True) for seed, name in enumerate("abc")]
    for one, spec in zip(run(*specs), specs, strict=True):
        assert one.digest == run(replace(spec, root=str(small.root / "alone")))[0].digest


def test_exact_sums_keep_float32_parameters_near_those_of_float64(small) -> None:  # type: ignore[no-untyped-def]
    rule = {"rule": {"kind": "constant", "value": 0.5}}
    exact, plain = run(small.spec("exact", exact_sums=True, **rule), small.spec("plain", **rule))
    (double,) = run(small.spec("double", precision="fp64", **rule))
    apart = {"exact": 0.0, "plain": 0.0}
    for name, value in parameters(double).items():
        assert parameters(exact)[name].dtype == torch.float32
        torch.testing.assert_close(parameters(exact)[name].double(), value, atol=1e-4, rtol=0)
        for kind, finished in (("exact", exact), ("plain", plain)):
            apart[kind] += float((parameters(finished)[name].double() - value).abs().sum())
    assert apart["exact"] < apart["plain"], "what is left is the rounding of parameters and moments alone"


def test_each_stops_by_its_own_patience_and_the_pack_shrinks(small) -> None:  # type: ignore[no-untyped-def]
    rates = (0.3, 0.1, 0.03, 0.001)
    specs = [
        small.spec(
            f"rate-{rate}",
            rule={"kind": "constant", "value": 0.5},
            optimizer=replace(ADAM, learning_rate=rate),
            epochs=12,
            patience=1,
            metric="nll",
            precision="fp64",
        )
        for rate in rates
    ]
    side_by_side = run(*specs)
    lengths = [len(one.metrics["history"]) for one in side_by_side]
    assert len(set(lengths)) > 2, lengths
    for one, spec in zip(side_by_side, specs, strict=True):
        assert_same(one, run(replace(spec, root=str(small.root / "alone")))[0], 1e-12)


@pytest.mark.parametrize("step", [3, 17, 33])
def test_a_pack_that_was_killed_ends_with_the_same_bits(small, step: int) -> None:  # type: ignore[no-untyped-def]
    specs = [
        small.spec(f"s{i}", rule={"kind": "labels"}, optimizer=replace(ADAM, learning_rate=rate), epochs=8, patience=1)
        for i, rate in enumerate((0.3, 0.1, 0.001))
    ]
    elsewhere = str(small.root / "undisturbed")
    undisturbed = run(*[replace(spec, root=elsewhere, folder=elsewhere) for spec in specs])
    specs = [replace(spec, checkpoint_seconds=0.0) for spec in specs]
    with pytest.raises(Killed):
        run(*specs, progress=StopsAt(step, Killed()))
    progress = Silent()
    resumed = run(*specs, progress=progress)
    assert any("continued from step" in warning for warning in progress.warnings)
    assert [one.digest for one in resumed] == [one.digest for one in undisturbed]


def test_a_run_that_fails_leaves_the_others_of_its_pack(small) -> None:  # type: ignore[no-untyped-def]
    wrong = small.spec("wrong", rule={"kind": "constant", "value": 2})
    right = small.spec("right", rule={"kind": "constant", "value": 0.5}, epochs=4)
    assert len(packed([wrong, right])) == 1
    failed, finished = run(wrong, right)
    assert isinstance(failed.error, ConfigError)
    assert finished.error is None
    assert finished.metrics["steps"] == 24


def test_what_must_be_shared_is_never_packed(small) -> None:  # type: ignore[no-untyped-def]
    base = small.spec("base", rule={"kind": "labels"})
    for change in (
        {"epochs": 9},
        {"batch_rows": 50},
        {"data_seed": 1},
        {"model": {"kind": "mlp", "hidden": [9]}},
        {"metric": "nll"},
        {"optimizer": replace(base.optimizer, clip_norm=1.0)},
        {"rule": {"kind": "tgeo_one_step"}},
        {"ensemble": True, "model_seeds": (0, 1)},
    ):
        assert len(packed([base, replace(base, name="other", **change)])) == 2, change
    ensemble = replace(base, ensemble=True, model_seeds=(0, 1))
    assert len(packed([ensemble, replace(ensemble, name="other", temperature=3.0)])) == 2
    many = [replace(base, name=str(seed), model_seeds=(seed,)) for seed in range(MOST_STUDENTS + 1)]
    assert [len(pack.students) for pack in packed(many)] == [MOST_STUDENTS, 1]
