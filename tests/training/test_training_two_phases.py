"""Two phases: a ratio that is learned and stored, and the choice of its strength and level beside a constant."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_table import ROWS, make_small
from training_runs import Killed, StopsAt, run
from worker_ranks import on_ranks, train

from tgeokd_ray.artifacts import load_tensors, open_artifact
from tgeokd_ray.errors import ProvenanceError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import EncodedTable
from tgeokd_ray.feed.ratios import RatiosTable
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.training.pack import Pack, dropped
from tgeokd_ray.training.ratios import commit_known, logits_and_gates, second_half
from tgeokd_ray.training.spec import Candidate, Choice, Finished, Fusion, RunSpec
from tgeokd_ray.training.state import State

BOTH = ("train", "outer")
CONSTANT = {"kind": "constant", "value": 0.5}


def shape(small, **changes: object) -> RunSpec:  # type: ignore[no-untyped-def]
    values: dict[str, object] = {
        "kind": "ratios",
        "alone": True,
        "ratio_splits": BOTH,
        "rule": {"kind": "tgeo_shape"},
        "fusion": Fusion(every=2, batch_rows=200, warm_up=0.0, look_ahead=3),
        "exact_sums": True,
    }
    return small.spec("shape", **values | changes)


def choosing(small, ratios: str, points: list[dict[str, float]], **changes: object) -> RunSpec:  # type: ignore[no-untyped-def]
    mean = RatiosTable.open(ratios).mean
    candidates = tuple(Candidate({"kind": "given", "source": 0, "mean": mean, **one}, 2.0) for one in points)
    options: dict[str, object] = {"rule": {"kind": "tgeo"}, "ratios": (ratios,), "splits": BOTH, "metric": "nll"}
    return small.spec("tgeo", choice=Choice(candidates), **options | changes)


def stored(finished: Finished) -> dict[int, list[float]]:
    files = sorted(Path(finished.artifact).rglob("*.parquet"))
    tables = [pq.read_table(file, columns=["row_id", "ratio"]).to_pydict() for file in files]
    return {i: r for table in tables for i, r in zip(table["row_id"], table["ratio"], strict=True)}


@pytest.fixture
def learned(small):  # type: ignore[no-untyped-def]
    (finished,) = run(shape(small))
    return finished


def test_every_row_that_students_train_on_has_a_ratio_in_the_order_of_the_table(small, learned) -> None:  # type: ignore[no-untyped-def]
    ratios, table = RatiosTable.open(learned.artifact), EncodedTable.open(small.table.path)
    assert ratios.splits == BOTH
    for split in BOTH:
        for unit in table.units(split):
            own = pq.ParquetFile(ratios.artifact.file(unit.shard)).read_row_group(unit.group)
            theirs = pq.ParquetFile(table.artifact.file(unit.shard)).read_row_group(unit.group)
            assert own["row_id"].equals(theirs["row_id"])
            assert own["ratio"].combine_chunks().equals(ratios.column(unit, "ratio"))
    rows = np.asarray(list(stored(learned).values()))
    assert len(rows) == ROWS["train"] + ROWS["outer"]
    assert ratios.mean == pytest.approx(rows[:, 0].mean(), abs=1e-6) == learned.metrics["mean_logit"]
    assert rows[:, 0].std() > 0.01, "rows differ"
    np.testing.assert_allclose(rows[:, 1], 1.0, atol=1e-6)
    assert 0.3 < (1 / (1 + np.exp(-rows[:, 0]))).mean() < 0.7, "the level stays at one half"


def test_the_ratio_is_the_same_for_one_and_three_workers_and_after_a_kill(small, learned, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    elsewhere = {"root": str(tmp_path / "three"), "folder": str(tmp_path / "three")}
    ((three,), *_) = on_ranks(3, train, shape(small, **elsewhere))
    ours, theirs = stored(learned), stored(three)
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose(list(ours.values()), [theirs[i] for i in ours], atol=1e-6)
    killed = shape(small, root=str(tmp_path / "killed"), folder=str(tmp_path / "killed"), checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        run(killed, progress=StopsAt(15, Killed()))
    progress = Silent()
    (resumed,) = run(killed, progress=progress)
    assert any("continued from step" in warning for warning in progress.warnings)
    assert resumed.digest == learned.digest


def test_the_ratio_of_an_ensemble_is_the_mean_of_its_members(small) -> None:  # type: ignore[no-untyped-def]
    alone = [run(shape(small, artifact=f"shape-{seed}", model_seeds=(seed,)))[0] for seed in (0, 7)]
    (both,) = run(shape(small, artifact="shapes", model_seeds=(0, 7), ensemble=True))
    expected, found = [stored(one) for one in alone], stored(both)
    for row, (u, _) in found.items():
        ratios = [1 / (1 + np.exp(-one[row][0])) for one in expected]
        assert 1 / (1 + np.exp(-u)) == pytest.approx(np.mean(ratios), abs=1e-5)
    mean = np.mean([one.metrics["ratio"]["mean"] for one in alone])
    assert both.metrics["ratio"]["mean"] == pytest.approx(mean, abs=1e-6)
    names = load_tensors(Path(both.artifact) / "fusion.safetensors")
    for member, one in enumerate(alone):
        for name, value in load_tensors(Path(one.artifact) / "fusion.safetensors").items():
            np.testing.assert_allclose(names[f"members.{member}.{name}"], value, atol=1e-6)


def test_members_that_end_early_leave_the_ratio_to_the_others(small) -> None:  # type: ignore[no-untyped-def]
    fast = OptimizerSpec(kind="adam", learning_rate=0.1)
    spec = shape(small, epochs=8, patience=1, model_seeds=(0, 7, 11), ensemble=True, optimizer=fast)
    (found,) = run(spec)
    members = {name.rpartition(".")[0] for name in load_tensors(Path(found.artifact) / "fusion.safetensors")}
    assert 0 < len({name.split(".")[1] for name in members}) < 3
    assert len(stored(found)) == ROWS["train"] + ROWS["outer"]


def test_the_average_is_over_states_of_the_second_half_and_one_epoch_will_do(small) -> None:  # type: ignore[no-untyped-def]
    few, many = run(shape(small, epochs=1, snapshots=1)), run(shape(small, epochs=1, snapshots=3))
    assert stored(few[0]) != stored(many[0])
    assert len(stored(many[0])) == ROWS["train"] + ROWS["outer"]


@pytest.mark.parametrize(("step", "late"), [(40, [30.0, 40.0]), (19, [10.0]), (10, [10.0])])
def test_of_snapshots_those_from_the_second_half_of_the_steps_taken_count(step: int, late: list[float]) -> None:
    at = [k for k in (10, 20, 30, 40) if k <= step]
    kept = {f"{k:09d}/{part}/x": torch.full((1, 2), float(k)) for k in at for part in ("theta", "omega")}
    one, none = {"x": torch.zeros(1, 2)}, torch.zeros(1)
    state = State(one, {}, one, {}, {}, {}, {}, none, none, none, none, step=step, snapshots=kept)
    theta, omega = second_half(state)
    assert theta["x"][:, 0].tolist() == omega["x"][:, 0].tolist() == late
    assert second_half(replace(state, snapshots={}))[0]["x"].tolist() == [[0.0, 0.0]], "where there is none, the end"


def test_logits_and_gates_are_logs_of_teacher_over_label_and_the_sums_over_their_mean() -> None:
    weights = np.array([[0.25, 0.75, 0.0], [1.0, 1.0, 2.0]])
    found = logits_and_gates(weights)
    assert found[0, 0] == pytest.approx(math.log(3))
    assert found[0, 1] == pytest.approx(math.log(1e-9 / 0.25), rel=1e-6)
    np.testing.assert_allclose(found[1], [0.0, math.log(2), 4 / 2.5], atol=1e-7)
    assert found[0, 2] == pytest.approx(1 / 2.5)


def test_the_winner_is_that_candidate_as_it_ends_alone(small, learned) -> None:  # type: ignore[no-untyped-def]
    points = [{"strength": s, "shift": d} for s in (0.5, 2.0) for d in (-2.0, 0.0, 2.0)]
    spec = choosing(small, learned.artifact, points, precision="fp64")
    (chosen,) = run(spec)
    told = chosen.metrics["choice"]
    best = min(told["candidates"], key=lambda one: one["valid"])
    assert told["pays"]
    assert told["chosen"] == best
    assert chosen.metrics["valid"]["nll"] == pytest.approx(best["valid"], abs=1e-12)
    rule = {name: best[name] for name in ("kind", "source", "strength", "shift", "mean")}
    (alone,) = run(replace(spec, choice=None, rule=rule, artifact="alone", name="alone"))
    theirs = load_tensors(Path(alone.artifact) / "model.safetensors")
    for name, value in load_tensors(Path(chosen.artifact) / "model.safetensors").items():
        torch.testing.assert_close(value, theirs[name], atol=1e-12, rtol=0)
    assert chosen.metrics["history"][-1] == pytest.approx(alone.metrics["history"][-1], abs=1e-9)
    assert {p.kind for p in open_artifact(chosen.artifact).manifest.parents.values()} == {"tables", "logits", "ratios"}


def test_strength_zero_is_the_constant_of_its_level(small, learned) -> None:  # type: ignore[no-untyped-def]
    mean = RatiosTable.open(learned.artifact).mean
    points = [{"strength": 0.0, "shift": math.log(0.75 / 0.25) - mean}]
    rest: dict[str, object] = {"splits": BOTH, "metric": "nll", "precision": "fp64"}
    (level,) = run(choosing(small, learned.artifact, points, precision="fp64"))
    (constant,) = run(small.spec("constant", rule={"kind": "constant", "value": 0.75}, **rest))
    assert level.metrics["test"]["nll"] == pytest.approx(constant.metrics["test"]["nll"], abs=1e-9)


def test_a_constant_that_no_candidate_beats_is_what_the_run_leaves_behind(small, learned) -> None:  # type: ignore[no-untyped-def]
    (constant,) = run(small.spec("constant", rule=CONSTANT, splits=BOTH, metric="nll"))
    bad = choosing(small, learned.artifact, [{"strength": 2.0, "shift": -20.0}], epochs=1)
    spec = replace(bad, choice=replace(bad.choice, incumbent=constant.artifact))
    (chosen,) = run(spec)
    told = chosen.metrics["choice"]
    assert not told["pays"]
    assert told["chosen"] == told["constant"] == {**CONSTANT, "valid": constant.metrics["valid"]["nll"]}
    assert told["candidates"][0]["valid"] > told["constant"]["valid"]
    assert told["best"]["test"]["nll"] > 0
    for name in ("model.safetensors", "model.json", "encoder.json"):
        assert (Path(chosen.artifact) / name).read_bytes() == (Path(constant.artifact) / name).read_bytes()
    assert chosen.metrics["test"] == constant.metrics["test"]
    assert open_artifact(chosen.artifact).manifest.parents["constant"].digest == constant.digest
    (again,) = run(spec)
    assert again.reused


def test_a_gain_within_its_error_is_no_gain(small, learned) -> None:  # type: ignore[no-untyped-def]
    (constant,) = run(small.spec("constant", rule=CONSTANT, splits=BOTH, metric="nll", epochs=1))
    better = choosing(small, learned.artifact, [{"strength": 1.0, "shift": 1.0}], epochs=4)
    chosen = {}
    for margin in (0.0, 1.0, 1e3):
        choice = replace(better.choice, incumbent=constant.artifact, margin=margin)
        (run_,) = run(replace(better, choice=choice))
        chosen[margin] = run_.metrics["choice"]
    gain, error = chosen[0.0]["gain"], chosen[0.0]["standard_error"]
    difference = chosen[0.0]["constant"]["valid"] - chosen[0.0]["candidates"][0]["valid"]
    assert gain == pytest.approx(difference, abs=1e-6)
    assert 0 < error < gain
    assert [chosen[margin]["pays"] for margin in chosen] == [True, True, False]


def test_a_gain_of_a_metric_without_an_error_is_told_as_such(small, learned) -> None:  # type: ignore[no-untyped-def]
    (constant,) = run(small.spec("constant", rule=CONSTANT, splits=BOTH, metric="macro_f1", epochs=1))
    better = choosing(small, learned.artifact, [{"strength": 1.0, "shift": 1.0}], epochs=4)
    choice = replace(better.choice, incumbent=constant.artifact, margin=1e3)
    (run_,) = run(replace(better, choice=choice, metric="macro_f1"))
    told = run_.metrics["choice"]
    assert told["standard_error"] is None
    assert not {"gain", "margin"} & set(told)
    assert told["pays"] == (told["candidates"][0]["valid"] > told["constant"]["valid"])


def test_halving_ends_the_worst_and_leaves_the_others_as_they_were(small, learned) -> None:  # type: ignore[no-untyped-def]
    points = [{"strength": 1.0, "shift": d} for d in (-9.0, -3.0, 0.0, 1.0, 3.0, 9.0)]
    spec = choosing(small, learned.artifact, points, epochs=8, precision="fp64", patience=8)
    rounds = ((0.25, 3), (0.5, 1))
    (whole,) = run(spec)
    halved_spec = replace(spec, artifact="halved", name="halved", choice=replace(spec.choice, rounds=rounds))
    (halved,) = run(halved_spec)
    epochs = sorted(one["epochs"] for one in halved.metrics["choice"]["candidates"])
    assert epochs == [2, 2, 2, 4, 4, 8]
    last = next(one for one in halved.metrics["choice"]["candidates"] if one["epochs"] == 8)
    same = next(one for one in whole.metrics["choice"]["candidates"] if one["shift"] == last["shift"])
    assert last["valid"] == pytest.approx(same["valid"], abs=1e-12)


def test_a_round_drops_by_rank_and_only_those_that_still_train(small) -> None:  # type: ignore[no-untyped-def]
    candidates = tuple(Candidate(CONSTANT, 1.0) for _ in range(4))
    spec = small.spec("tgeo", epochs=8, choice=Choice(candidates, rounds=((0.25, 2),)))
    other = small.spec("other", epochs=8)
    pack = Pack((other, spec))
    best, running = [9.0, 0.4, 0.1, 0.3, 0.2], [-1] * 5
    assert dropped(pack, best, running, 1) == [4, 2]
    assert dropped(pack, best, [-1, -1, 0, -1, -1], 1) == [4]
    assert dropped(pack, best, running, 0) == dropped(pack, best, running, 2) == []


def test_every_candidate_is_measured_where_a_study_asks_for_it(small, learned) -> None:  # type: ignore[no-untyped-def]
    points = [{"strength": 1.0, "shift": d} for d in (-1.0, 1.0)]
    spec = choosing(small, learned.artifact, points)
    (chosen,) = run(replace(spec, choice=replace(spec.choice, measure_all=True)))
    told = chosen.metrics["choice"]["candidates"]
    place = min(range(2), key=lambda k: told[k]["valid"])
    assert told[place]["test"]["nll"] == chosen.metrics["test"]["nll"] != told[1 - place]["test"]["nll"]


def test_ratios_of_another_table_or_without_some_rows_are_refused(small, learned, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    point = [{"strength": 1.0, "shift": 0.0}]
    other = make_small(tmp_path / "other", seed=4)
    wrong = choosing(other, learned.artifact, point)
    (finished,) = run(wrong)
    assert isinstance(finished.error, ProvenanceError)
    assert "was learned on another table" in str(finished.error)
    ids = np.asarray(list(stored(learned)))
    weights = np.full((len(ids), 2), 0.5)
    only = commit_known(small.root, "only-train", small.table, ("train",), ids, weights, {"from": "a test"})
    assert commit_known(small.root, "only-train", small.table, ("train",), ids, weights, {"from": "a test"}) == only
    (finished,) = run(choosing(small, str(only.path), point))
    assert isinstance(finished.error, ProvenanceError)
    assert "has nothing for the split 'outer'" in str(finished.error)
