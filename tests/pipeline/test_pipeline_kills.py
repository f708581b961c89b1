"""Kills of the writers of tables and logits and of precompute: the benchmark of faults at a small size."""

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from faults_children import end, start
from faults_crashes import Call, crashes, out_of_order, recorded
from faults_kills import Trial
from faults_precompute import forked_kills
from faults_steps import Announcing, Board
from faults_work import Writer, grown_writer, logits_writer, make_inputs, table_writer, warm

from tgeokd_ray.artifacts import DISK

pytestmark = [
    pytest.mark.forks,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]
SHOWING = ("write manifest", "sync manifest", "sync folder", "publish rename", "sync parent", "clear")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small table and two teachers, made in a child, so that no thread of torch is in the way of the forks."""
    folder = tmp_path_factory.mktemp("inputs")
    warm()
    assert end(start(lambda: make_inputs(folder)), 60) == 0
    return folder


@pytest.fixture(params=["table", "grown", "logits"])
def writer(request: pytest.FixtureRequest, inputs: Path, tmp_path: Path) -> Writer:
    makers = {"table": table_writer, "grown": lambda: grown_writer(tmp_path), "logits": lambda: logits_writer(inputs)}
    return makers[request.param]()


@pytest.fixture
def calls(tmp_path: Path, writer: Writer) -> list[Call]:
    assert end(start(lambda: writer.prepare(tmp_path / "recorded"))) == 0
    return recorded(lambda: writer.write(tmp_path / "recorded"), tmp_path / "calls.json")


def test_k1_k3_k6_k7_sigkills_of_writers_leave_absent_or_whole(tmp_path: Path, writer: Writer):
    trial = Trial(writer, tmp_path, Board(), random.Random(4), measured=1)
    trial.random_kills(10)
    for step in SHOWING:
        trial.kill_in(step)
    trial.close()
    assert trial.faults == []
    assert trial.at_random.total() == 10
    assert {step: trial.held[step] for step in SHOWING} == dict.fromkeys(SHOWING, 1)


def test_k1_a_writer_that_shows_its_version_too_early_is_caught(tmp_path: Path):
    class Early(Announcing):
        def publish(self, source: Path, target: Path) -> None:
            self.call("publish rename", target, os.mkdir)
            for file in source.iterdir():
                file.rename(target / file.name)

    def write(root: Path) -> None:
        if type(DISK) is Announcing:
            DISK.__class__ = Early
        plain.write(root)

    plain = table_writer()
    trial = Trial(replace(plain, write=write), tmp_path, Board(), random.Random(0), measured=1)
    while trial.held["publish rename"] < 3:
        trial.kill_in("publish rename")
    assert any("there is no manifest.json" in fault for fault in trial.faults)


def test_k1_k6_k7_a_crash_at_some_calls_leaves_absent_or_whole(tmp_path: Path, writer: Writer):
    points, _, faults = crashes(writer, tmp_path, every=90)
    assert points > 2
    assert faults == []


def without(name: str, ending: str) -> Callable[[list[Call]], list[Call]]:
    """The calls but the first of this name on a path with this ending."""

    def change(calls: list[Call]) -> list[Call]:
        at = next(n for n, call in enumerate(calls) if call.name == name and call.paths[-1].endswith(ending))
        return calls[:at] + calls[at + 1 :]

    return change


def late(name: str, ending: str) -> Callable[[list[Call]], list[Call]]:
    """The same calls, with the first of this name on a path with this ending made last."""

    def change(calls: list[Call]) -> list[Call]:
        at = next(n for n, call in enumerate(calls) if call.name == name and call.paths[-1].endswith(ending))
        return [*calls[:at], *calls[at + 1 :], calls[at]]

    return change


def test_k1_the_order_of_writes_syncs_and_renames(calls: list[Call]):
    assert out_of_order(calls) == []


@pytest.mark.parametrize(
    "change",
    [
        without("sync", ".parquet"),
        without("remove", ".parquet.entry"),
        without("sync", "manifest.json"),
        without("sync_folder", "files"),
        without("publish", ""),
        late("link", "owner.json"),
        late("sync_folder", "files"),
        late("replace", ".parquet"),
        lambda calls: [*calls, Call("write", ("/root/tables/small/v000001/part.parquet",))],
    ],
)
@pytest.mark.parametrize("writer", ["logits"], indirect=True)
def test_a_broken_order_is_found(calls: list[Call], change: Callable[[list[Call]], list[Call]]):
    assert out_of_order(change(calls))


def test_k3_a_killed_precompute_scores_no_finished_shard_again(tmp_path: Path, inputs: Path):
    tally = forked_kills(inputs, tmp_path, 2, random.Random(2))
    assert tally.kills == 2
    assert tally.faults == []
    assert tally.again == 0
