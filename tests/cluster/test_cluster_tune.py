"""Trials by Ray Tune: how many, how often, which are stopped, which are lost, and what is left of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tune_toys import EPOCHS, Heard, Toy, ToyMember, ToyUnit, at_once

from tgeokd_ray.cluster import tune
from tgeokd_ray.cluster.connect import Connection
from tgeokd_ray.cluster.source import ClusterSource
from tgeokd_ray.cluster.store import share
from tgeokd_ray.config.proposals import Asked, Listed, Round
from tgeokd_ray.config.space import Parameter
from tgeokd_ray.config.sweep import Sweep

pytestmark = [pytest.mark.ray, pytest.mark.timeout(100)]
HALVING = {"scheduler": "asha", "asha": {"grace_epochs": 1, "reduction": 2}}


@pytest.fixture
def toy(cluster: Connection, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Toy]:
    """A folder for notes; Ray has left nothing beside it, and has said nothing."""
    (tmp_path / "notes").mkdir()
    yield Toy(tmp_path / "notes")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    told = capfd.readouterr().out.splitlines()
    assert [line for line in told if "(raylet)" not in line] == [], "of a killed process Ray speaks in any case"


def run(
    toy: Toy, what: Listed | Asked, heard: Heard | None = None, seconds: float | None = None, **keys: Any
) -> tuple[bool, Heard]:
    sweep = Sweep.model_validate({"space": {"x": {"uniform": [0, 1]}}, "search": "random", **keys})
    heard = heard or Heard({"before": [0.6] * (EPOCHS - 1)} if sweep.scheduler == "asha" else {})
    one = Round(toy, what, sweep, EPOCHS, (), heard, seconds)
    whole = tune.run_trials(one, ClusterSource("direct", share({})), toy.folder.parent)
    return whole, heard


def test_t2_each_runs_once_and_lost_ones_again(toy: Toy) -> None:
    """A process that dies is tried again twice, then given up; the others do not suffer. One that tells nothing, as a
    trial that failed, is over like any other."""
    # The first two meet, however late one of their processes is.
    meets = ("plain1", "plain0", None, None)
    plain = [ToyUnit(f"plain{k}", (0.1, 0.2), pause=0.2, meets=other) for k, other in enumerate(meets)]
    units = (*plain[:2], ToyUnit("always", kills=9), *plain[2:], ToyUnit("mute", ()))
    whole, heard = run(toy, Listed(units), concurrency=2)
    assert whole
    assert {unit.name: len(toy.notes(unit.name)) for unit in units} == {u.name: 1 for u in plain} | {
        "always": 3,
        "mute": 1,
    }
    assert at_once(toy.notes()) == 2
    ended = dict(heard.of("ended"))
    assert len(ended) == len(heard.of("ended")) == len(units)
    assert {name for name, lost in ended.items() if lost is not None} == {"always"}
    assert "died" in ended["always"]
    assert len(ended["always"].splitlines()) == 1
    assert [more for name, more in heard.of("told") if name == "plain3"] == [(1, 0.1), (2, 0.2), (EPOCHS, 0.2)]
    assert [name for name, _ in heard.of("began")].count("always") == 3


def test_hopeless_ones_are_stopped_and_finished_ones_stay_finished(toy: Toy) -> None:
    """By what was over before as well: a trial below its curve ends after its first epoch."""
    units = (
        ToyUnit("below", (0.5, 0.9, 0.9)),
        ToyUnit("good", (0.7, 0.8, 0.9)),
        ToyUnit("fading", (0.8, 0.8)),  # its last value lies below that of the good one, and counts for no rung
        ToyUnit("late", (0.75, 0.4)),
    )
    whole, heard = run(toy, Listed(units), concurrency=1, **HALVING)
    assert whole
    by_name = {note["name"]: note for note in toy.notes()}
    assert {name for name, note in by_name.items() if "stopped" in note} == {"below", "late"}
    assert {name for name, note in by_name.items() if "ended" in note} == {"good", "fading"}
    assert [more for name, more in heard.of("told") if name == "below"] == [(1, 0.5)]
    assert [more for name, more in heard.of("told") if name == "fading"][-1] == (EPOCHS, 0.8)
    assert heard.of("ended") == [(unit.name, None) for unit in units]


def test_tpe_asks_its_first_points_first_and_learns_from_what_is_known(toy: Toy) -> None:
    space = {"x": Parameter(uniform=(0.0, 1.0))}
    known = [({"x": k / 20}, 1 - abs(k / 20 - 0.8)) for k in range(21)]
    asked = Asked(
        space=space,
        number=6,
        seed=3,
        first=({"x": 0.125}, {"x": 0.25}),
        known=(*known, ({"x": 0.01}, None)),
        make=lambda raw: ToyUnit(f"x{raw['x']:.6f}", (raw["x"],)),
        key=lambda raw: f"{raw['x']}",
    )
    whole, heard = run(toy, asked, concurrency=1, search="tpe")
    assert whole
    tried = [float(name[1:]) for name, _ in heard.of("began")]
    assert tried[:2] == [0.125, 0.25]
    assert len(tried) == len({*tried}) == 6
    assert all(abs(x - 0.8) < 0.25 for x in tried[2:]), tried


def test_tpe_never_runs_equal_points_at_once(toy: Toy) -> None:
    """Nor is one forgotten whose process was lost once."""
    space = {"x": Parameter(choice=("a", "b")), "y": Parameter(uniform=(0.0, 1.0))}
    asked = Asked(
        space=space,
        number=6,
        seed=0,
        first=({"x": 0, "y": 0.1}, {"x": 0, "y": 0.2}, {"x": 0, "y": 0.3}),
        known=(),
        make=lambda raw: ToyUnit("ab"[raw["x"]], (0.1 + raw["x"],), pause=0.3, kills=raw["x"]),
        key=lambda raw: "ab"[raw["x"]],
    )
    whole, heard = run(toy, asked, concurrency=2, search="tpe")
    assert whole
    assert len(heard.of("ended")) == 6
    assert at_once(toy.notes("a")) == 1
    assert len(toy.notes("b")) == 1 + [name for name, _ in heard.of("ended")].count("b") > 1
    assert {lost for _, lost in heard.of("ended")} == {None}


def test_the_budget_ends_it_in_time_and_nobody_is_over(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is up when two trials are on their way, whenever that is."""
    heard, told_in_time = Heard(), list[int]()

    def now() -> float:
        told = [name for name, _ in heard.of("told")]
        if len(told) <= 8 or len({*told}) < 2:
            return 0.0
        told_in_time.append(len(told))
        return 60.0

    clock = SimpleNamespace(monotonic=now)
    monkeypatch.setattr(tune, "time", clock)
    units = tuple(ToyUnit(f"long{k}", (0.5,) * 400, pause=0.2) for k in range(3))
    whole, _ = run(toy, Listed(units), heard, seconds=50, concurrency=2)
    assert not whole
    assert len(heard.of("told")) - told_in_time[0] < 11
    assert heard.of("ended") == []
    assert {note["name"] for note in toy.notes() if "stopped" in note} == {"long0", "long1"}, "with a checkpoint each"


def test_the_worst_of_a_population_go_on_from_the_best(toy: Toy) -> None:
    """Every member ends with all its epochs; a rate that is good is taken over with what was trained by it."""
    rate = {"distill.fusion.optimizer.learning_rate": {"log_uniform": [1e-3, 1.0]}}
    firsts = (0.001, 0.002, 0.5, 0.9)
    units = tuple(SimpleNamespace(name=f"u{k}", points=({next(iter(rate)): first},)) for k, first in enumerate(firsts))
    keys: dict[str, Any] = {"space": rate, "scheduler": "pbt", "pbt": {"every_epochs": 2}, "concurrency": 2}
    whole, heard = run(ToyMember(toy.folder), Listed(units), **keys)  # type: ignore[arg-type]
    assert whole
    pasts = [json.loads(path.read_text()) for path in toy.folder.glob("*.json")]
    assert [len(past) for past in pasts] == [EPOCHS - 1] * len(units)
    assert len(heard.of("ended")) == len(units)
    assert {lost for _, lost in heard.of("ended")} == {None}
    begun = {past[0][0] for past in pasts}
    assert "u0" not in begun or "u1" not in begun, "nobody went on from a better one"
    moved = [past for past in pasts if len({rate for _, rate in past}) > 1]
    assert moved
    assert all(1e-4 <= rate <= 2.0 for past in pasts for _, rate in past)
