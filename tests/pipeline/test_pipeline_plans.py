"""What a plan takes over from a job's options into the specs of its runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.objectives.settings import KINDS
from tgeokd_ray.pipeline.plans import Grid, StudentsPlan, chosen, students_plan
from tgeokd_ray.training.spec import Finished, RunSpec


def plan(*settings: str) -> StudentsPlan:
    job, _ = resolve({}, settings=settings)
    artifact = SimpleNamespace(path=Path("somewhere"), manifest=SimpleNamespace(schema={}))
    return students_plan(job, "small", artifact, [artifact], Path("root"), Path("folder"))  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize("way", ["split", "forward", "finite"])
def test_the_first_phase_takes_way_and_look_ahead_from_the_job(way: str) -> None:
    (shape,) = plan(f"distill.fusion.hypergradient={way}", "distill.fusion.look_ahead=7").shapes
    assert (shape.fusion.hypergradient, shape.fusion.look_ahead) == (way, 7)


def test_the_first_phase_has_members_of_its_own_or_those_of_the_student() -> None:
    assert [(spec.ensemble, len(spec.model_seeds)) for spec in (plan().learned, *plan().shapes)] == [(False, 1)] * 2
    several = plan("distill.fusion.members=3")
    assert [(spec.ensemble, len(spec.model_seeds)) for spec in (several.learned, *several.controls)] == [(False, 1)] * 7
    (shape,) = several.shapes
    assert (shape.ensemble, len(set(shape.model_seeds)), shape.model_seeds[0]) == (
        True,
        3,
        plan().shapes[0].model_seeds[0],
    )
    (shape,) = plan("distill.fusion.members=3", "student.model.members=4").shapes
    assert len(shape.model_seeds) == 4


def test_one_step_stays_one_step_in_the_way_of_the_job() -> None:
    fusion = plan("distill.rule=tgeo_one_step", "distill.fusion.hypergradient=forward").learned.fusion
    assert (fusion.hypergradient, fusion.look_ahead) == ("forward", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_students_and_fusion_networks_take_any_optimizer(kind: str) -> None:
    found = plan(f"student.training.optimizer.kind={kind}", f"distill.fusion.optimizer.kind={kind}")
    assert {found.learned.optimizer.kind, *(shape.fusion.optimizer.kind for shape in found.shapes)} == {kind}


@pytest.mark.parametrize("setting", ["hypergradient=spilt", "look_ahead=0"])
def test_a_wrong_option_is_named_before_anything_starts(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"distill.fusion.{setting.partition('=')[0]}"):
        resolve({}, settings=[f"distill.fusion.{setting}"])


def finished(name: str, auc: float | None, error: DataError | None = None) -> Finished:
    return Finished(name, "", "", {"valid": {"auc": auc}}, False, 0.0, error=error)


def test_the_plan_sets_the_level_to_the_constant_that_won_on_valid() -> None:
    def spec(name: str, **rule: object) -> RunSpec:
        return RunSpec(name=name, kind="students", artifact=name, root="", folder="", table="", rule=rule)

    constants = [spec(f"constant-{v:g}", kind="constant", value=v) for v in (0.25, 1.0)]
    learned = spec("tgeo", kind="tgeo_one_step", level="chosen")
    plan = StudentsPlan(
        (spec("labels", kind="labels"), *constants), (), learned, "auc", Grid((1.0,), (0.0,), 0.0, False)
    )
    assert [s.name for s in plan([])] == ["labels", "constant-0.25", "constant-1"]
    done = [finished("labels", 0.9), finished("constant-0.25", 0.6), finished("constant-1", 0.7)]
    (learned,) = plan(done)
    assert learned.rule["level"] == 0.95, "a level of 1 would leave nothing to learn"
    done[1] = finished("constant-0.25", 0.8)
    assert plan(done)[0].rule["level"] == 0.25
    assert plan([*done, finished("tgeo", 0.8)]) == ()
    assert chosen([finished("a", None), finished("b", 0.1, DataError("x"))], ["a", "b"], "auc") is None
