"""Real processes that die in the middle of a checkpoint or of a bilevel step, disks that are full, hostile files."""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_table import Small
from training_runs import Killed, StopsAt, run
from worker_ranks import on_ranks, train_while_rank_1_dies

from tgeokd_ray.artifacts import load_tensors, open_artifact, read_json
from tgeokd_ray.artifacts.names import versions
from tgeokd_ray.errors import IntegrityError, ResourceError
from tgeokd_ray.events import Silent
from tgeokd_ray.objectives.pearlmutter import Pearlmutter
from tgeokd_ray.training import checkpoint, loop, steps
from tgeokd_ray.training.reuse import run_inputs
from tgeokd_ray.training.spec import RunSpec

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


def killed(work: Callable[[], object], seconds: int = 30) -> int:
    """The signal that ends a forked child that does `work`; 0 if it came to its end."""
    child = os.fork()
    if not child:
        try:
            signal.alarm(seconds)
            work()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def die(*arguments: Any, **options: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at(call: int, then: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, and `then` in its place at this call, counted from 1."""
    calls = iter(range(1, 10_000))
    return lambda *a, **o: then(*a, **o) if next(calls) == call else function(*a, **o)


def home(small: Small, spec: RunSpec) -> Path:
    return small.root / "runs" / "small" / "checkpoints" / f"{spec.name}-{run_inputs(spec)[:12]}"


def steps_of(folder: Path) -> list[int]:
    """The step of each visible checkpoint, newest first; every one is whole."""
    return [read_json(open_artifact(path, level="full").file("cursor.json"))["step"] for path in versions(folder)]


def undisturbed(small: Small) -> str:
    place = str(small.root / "reference")
    return run(small.spec(epochs=2, root=place, folder=place))[0].digest


def continued(spec: RunSpec, step: int) -> str:
    """The digest that the same run ends with; it says that it went on from this step."""
    progress = Silent()
    (finished,) = run(spec, progress=progress)
    assert f"{spec.name}: continued from step {step}" in progress.warnings
    return finished.digest


def test_k4_a_process_killed_half_way_through_a_checkpoint(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small.spec(epochs=2, checkpoint_seconds=0.0)

    def half(path: Path, tensors: Any) -> None:
        save(path, tensors)
        os.truncate(path, path.stat().st_size // 2)
        die()

    save = checkpoint.save_tensors
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_tensors", at(9, half, save))
        assert killed(lambda: run(spec)) == signal.SIGKILL
    assert list(home(small, spec).glob(".staging-*/tmp-*")), "it died in the middle of a file"
    assert steps_of(home(small, spec)) == [8, 7], "the torn one is never offered"
    assert continued(spec, 8) == undisturbed(small)


def test_k4_rank_1_killed_while_rank_0_writes_a_checkpoint(small: Small) -> None:
    spec = small.spec(epochs=2, checkpoint_seconds=0.0, precision="fp64")
    (told,) = on_ranks(2, train_while_rank_1_dies, spec, lost=(1,))
    assert told == "ended with its peer"
    assert steps_of(home(small, spec))[0] == 3, "the one that was being written is whole"
    continued(spec, 3)


def test_k5_killed_after_a_checkpoint_loses_less_than_an_interval_and_says_so(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that is read twice a step: the first step is late already, then every fourth is kept."""
    clock = itertools.count(time.monotonic() + 1000)
    spec = small.spec(epochs=2, checkpoint_seconds=8.0)

    class Dies(Silent):
        steps = 0

        def advanced(self, stage: str, amount: int, note: str = "") -> None:
            self.steps += amount
            if self.steps == 11:
                die()

    with monkeypatch.context() as patched:
        patched.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        assert killed(lambda: run(spec, progress=Dies())) == signal.SIGKILL
    assert steps_of(home(small, spec)) == [9, 5]
    assert continued(spec, 9) == undisturbed(small)


@pytest.mark.parametrize(("owner", "place"), [(steps, "fusion_gradient"), (Pearlmutter, "ratio_gradient")])
def test_k13_killed_between_the_inner_and_the_outer_update(
    small: Small, monkeypatch: pytest.MonkeyPatch, owner: object, place: str
) -> None:
    spec = small.spec(epochs=2, checkpoint_seconds=0.0)
    with monkeypatch.context() as patched:
        patched.setattr(owner, place, at(5, die, getattr(owner, place)))
        assert killed(lambda: run(spec)) == signal.SIGKILL
    assert steps_of(home(small, spec))[0] == 8, "an outer step at every other one: the fifth is step 9, which is lost"
    assert continued(spec, 8) == undisturbed(small)


def test_s5_a_disk_that_is_full_at_a_checkpoint_keeps_the_one_before(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small.spec(epochs=2, checkpoint_seconds=0.0)

    def full(path: Path, tensors: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_tensors", at(6, full, checkpoint.save_tensors))
        (finished,) = run(spec)
    assert isinstance(finished.error, ResourceError)
    assert "no space left on device" in str(finished.error)
    assert steps_of(home(small, spec)) == [5, 4]
    assert continued(spec, 5) == undisturbed(small)


class Hostile:
    """Makes a folder where it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.ran),)


def test_x1_x2_pickles_of_other_libraries_in_a_run_folder_are_never_opened(small: Small, tmp_path: Path) -> None:
    """torch.distributed.checkpoint and Ray Tune would execute theirs."""
    bomb = pickle.dumps(Hostile(tmp_path / "ran"))
    spec = small.spec(epochs=2, checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        run(spec, progress=StopsAt(9, Killed()))
    folder = small.root / "runs" / "small"
    newest, before = versions(home(small, spec))
    foreign = home(small, spec) / "v000099"
    foreign.mkdir()
    places = [folder, folder / "checkpoints", home(small, spec), newest, foreign, small.root]
    for place in places:
        for name in (".metadata", "tuner.pkl", "__0_0.distcp"):
            (place / name).write_bytes(bomb)
    for name in ("manifest.json", "state.safetensors", "cursor.json"):
        (foreign / name).write_bytes(bomb)
    (folder / "results.json").write_bytes(bomb)
    step = read_json(open_artifact(before, level="full").file("cursor.json"))["step"]
    assert continued(spec, step) == undisturbed(small), "a strange file makes a checkpoint one that is not whole"
    for name in ("state.safetensors", "x.json", "x.onnx"):
        (tmp_path / name).write_bytes(bomb)
        with pytest.raises(IntegrityError):
            (read_json if name.endswith("json") else load_tensors)(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    pickle.loads(bomb)
    assert (tmp_path / "ran").exists(), "it would have run"
