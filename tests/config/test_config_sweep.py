"""Sweep files: what is searched, in which order, and every refusal before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tgeokd_ray.config.space import Parameter, effective, grid_points, order_of, random_points
from tgeokd_ray.config.sweep import Resolved, resolve_sweep, rule_of, trial_job
from tgeokd_ray.errors import ConfigError

RATE = "student.training.optimizer.learning_rate"
EPOCHS = "student.training.epochs"
SPACE = {
    RATE: {"log_uniform": ["1e-4", 1e-1]},  # YAML reads 1e-4 as text
    "constant": {"uniform": [0, 1], "when": {"rule": "constant"}},
    "rule": {"choice": ["labels", "constant", "tgeo_one_step"]},
    "student.model.hidden": {"choice": [[8], [16, 8]]},
}


def resolved(folder: Path, **keys: object) -> Resolved:
    path = folder / "first.yaml"
    path.write_text(yaml.safe_dump({"space": SPACE, **keys}))
    return resolve_sweep(str(path), {})


def refused(folder: Path, **keys: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolved(folder, **keys)
    return str(caught.value)


def test_points_are_a_function_of_the_seed_and_more_of_them_change_none(tmp_path: Path) -> None:
    few, many, other = (resolved(tmp_path, trials=n, seed=s).sweep.points for n, s in ((5, 1), (9, 1), (5, 2)))
    assert few is not None
    assert many is not None
    assert len(few) == 5
    assert few == many[:5]
    assert few != other
    assert all(1e-4 <= point[RATE] <= 1e-1 for point in many)


def test_a_parameter_whose_condition_does_not_hold_is_left_out(tmp_path: Path) -> None:
    points = resolved(tmp_path, trials=40).sweep.points
    assert points is not None
    assert {point["rule"] for point in points} == {"labels", "constant", "tgeo_one_step"}
    assert all(("constant" in point) == (point["rule"] == "constant") for point in points)


def test_a_grid_has_every_effective_combination_once() -> None:
    space = {
        "rule": Parameter(choice=("labels", "constant")),
        "constant": Parameter(grid=(0.25, 0.75), when={"rule": ["constant"]}),
    }
    assert grid_points(space) == [
        {"rule": "labels"},
        {"rule": "constant", "constant": 0.25},
        {"rule": "constant", "constant": 0.75},
    ]
    assert len(random_points({"a": Parameter(grid=(1, 2)), "b": Parameter(uniform=(0, 1))}, 3, 0)) == 6


def test_values_survive_the_way_to_a_search_algorithm_and_back() -> None:
    widths = Parameter(choice=([8], [16, 8]))
    assert [widths.decoded(widths.encoded(value)) for value in ((8,), [16, 8])] == [[8], [16, 8]]
    assert Parameter(uniform=(0, 1)).encoded(0.5) == 0.5
    with pytest.raises(ValueError):
        widths.encoded([4])


def test_conditions_that_hang_on_others_hold_only_with_them() -> None:
    space = {
        "c": Parameter(choice=(1,), when={"b": 1}),
        "b": Parameter(choice=(1, 2), when={"a": 1}),
        "a": Parameter(choice=(1, 2)),
    }
    assert order_of(space) == ["a", "b", "c"]
    ordered = {name: space[name] for name in order_of(space)}
    assert effective(ordered, {"a": 2, "b": 1, "c": 1}) == {"a": 2}
    with pytest.raises(ValueError, match="circle"):
        order_of({"a": Parameter(choice=(1,), when={"b": 1}), "b": Parameter(choice=(1,), when={"a": 1})})


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    """Also within lists and conditions; other text stays text."""
    space = {
        RATE: {"choice": ["1e-3", 0.01]},
        "student.training.optimizer.weight_decay": {"uniform": [0, "1e-3"], "when": {RATE: "1E-3"}},
        "rule": {"choice": ["labels"]},
    }
    known = [{RATE: "1e-3", "student.training.optimizer.weight_decay": "1e-4", "rule": "labels"}]
    points = resolved(tmp_path, space=space, known=known, trials=1).sweep.points
    assert points == [{RATE: 0.001, "student.training.optimizer.weight_decay": 0.0001, "rule": "labels"}]
    assert "must lie in the space, got 0.002" in refused(tmp_path, space=space, known=[{**known[0], RATE: "2e-3"}])


@pytest.mark.parametrize(
    ("space", "most"),
    [
        ({RATE: {"choice": [0.1]}}, 7),
        ({EPOCHS: {"int_uniform": [2, 5]}}, 5),
        ({EPOCHS: {"int_uniform": [2, 9]}}, 9),
        ({"rule": {"choice": ["labels", "ada"]}, EPOCHS: {"choice": [2, 5], "when": {"rule": "ada"}}}, 7),
        ({"student.training": {"choice": [{"epochs": 3}, {"epochs": 12}]}}, 12),
        ({"student.training": {"choice": [{"batch_rows": 64}]}}, 7),
    ],
)
def test_no_trial_trains_more_epochs_than_the_most(tmp_path: Path, space: dict[str, object], most: int) -> None:
    """Where the condition of their number does not hold, it is that of the base."""
    found = resolved(tmp_path, space=space, base={"student": {"training": {"epochs": 7}}})
    assert found.most_epochs == most
    points = found.sweep.points
    assert points is not None
    assert max(trial_job(found.job, point).student.training.epochs for point in points) <= most


def test_known_points_come_first(tmp_path: Path) -> None:
    known = {"rule": "labels", RATE: 0.01, "student.model.hidden": [8]}
    points = resolved(tmp_path, trials=4, known=[known]).sweep.points
    assert points is not None
    assert len(points) == 4
    assert points[0] == known


def test_a_trial_is_the_base_with_the_values_of_its_point(tmp_path: Path) -> None:
    found = resolved(tmp_path, base={"student": {"training": {"epochs": 3}}}, metric="valid.nll")
    job = trial_job(found.job, {RATE: 0.5, "rule": "labels", "student.model.hidden": [16, 8]})
    assert (job.student.training.optimizer.learning_rate, job.student.model.hidden) == (0.5, (16, 8))
    assert (job.student.training.epochs, found.metric, found.name) == (3, "nll", "first")
    assert [rule_of(job, point) for point in ({"rule": "labels"}, {"constant": 0.5}, {})] == [
        "labels", "constant", "tgeo",
    ]  # fmt: skip


def test_the_identity_of_a_sweep_is_not_how_much_of_it_is_done_or_where(tmp_path: Path) -> None:
    first = resolved(tmp_path, trials=4, concurrency=2)
    assert first.identity == resolved(tmp_path, trials=8, concurrency=1, budget_minutes=3).identity
    assert first.identity != resolved(tmp_path, seeds=2).identity


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"serch": "tpe"}, "unknown key 'serch'; did you mean 'search'?"),
        ({"space": {}}, "space must name at least one parameter, got none"),
        ({"space": {RATE: {"choice": []}}}, "choice must name at least one value"),
        ({"space": {RATE: {"uniform": [1, 0]}}}, "from the smaller to the larger end, got [1.0, 0.0]"),
        ({"space": {RATE: {"log_uniform": [0, 1]}}}, "log_uniform must be > 0"),
        ({"space": {RATE: {}}}, "needs one of log_uniform, uniform, int_uniform, choice, grid, got none"),
        ({"metric": "test_auc"}, "a sweep chooses on valid"),
        ({"metric": "aucc"}, "metric must be"),
        ({"space": {"student.training.optimizer.learning_rat": {"uniform": [0, 1]}}}, "did you mean 'learning_rate'?"),
        ({"space": {RATE: {"uniform": [-1, 1]}}}, "learning_rate must be greater than 0, got -1.0"),
        ({"space": {"teacher.folds": {"choice": [1]}}}, "paths begin with student. or distill."),
        ({"space": {"rule": {"choice": ["constnt"]}}}, "did you mean 'constant'?"),
        ({"space": {"constant": {"choice": [0.5], "when": {"rulle": 1}}}}, "'rulle' is not in the space"),
        ({"space": {"student.training.batch_rows": {"log_uniform": [64, 512]}}}, "got a number with a fractional part"),
        ({"space": {EPOCHS: {"uniform": [1, 3]}}}, "epochs must be a valid integer"),
        ({"space": {"distill.more_temperatures": {"choice": [[2.0]]}}}, "one student: search distill.temperature"),
        ({"space": {"distill.rivals": {"choice": [["ada"]]}}}, "a trial is of one student: search rule"),
        ({"space": {"distill.rule": {"choice": ["tgeo"]}}}, "a trial is of one student: search rule"),
        ({"space": {"distill.constants": {"choice": [[0.1, 0.9]]}}}, "a trial is of one student: search constant"),
        ({"memory_mib": 8}, "memory_mib must be greater than or equal to 32, got 8"),
        ({"search": "grid"}, "a grid needs choice or grid, got log_uniform"),
        ({"search": "tpe", "space": {"constant": {"grid": [0, 1]}}}, "use choice in place of grid"),
        ({"known": [{"rule": "labels"}]}, f"known point 1 lacks {RATE}"),
        ({"known": [{"rle": "labels"}]}, "'rle' is not in the space; did you mean 'rule'?"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_place_and_the_way_out(
    tmp_path: Path, keys: dict[str, object], told: str
) -> None:
    text = refused(tmp_path, **keys)
    assert told in text
    assert "first.yaml" in text or "metric" in keys


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = refused(tmp_path, space={RATE: {"uniform": [-1, 1]}, "rule": {"choice": ["x"]}}, known=[{"y": 1}])
    assert all(part in text for part in ("greater than 0", "must be one of labels", "'y' is not in the space"))
