"""Compiled students: the same numbers up to rounding, and a way out where nothing can be compiled."""

from __future__ import annotations

import shutil

import pytest
import torch
from training_runs import run
from worker_ranks import parameters

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.models import compiled
from tgeokd_ray.objectives.settings import OptimizerSpec

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_student_is_the_same_up_to_rounding(small) -> None:  # type: ignore[no-untyped-def]
    """Ten bilevel steps of every second one, on windows of the table of any size, in float64."""
    optimizer = OptimizerSpec("sgd", 0.05, embedding="rowwise_adagrad")
    spec = small.spec(epochs=2, precision="fp64", optimizer=optimizer)
    (plain,) = run(spec)
    (fast,) = run(small.spec("fast", epochs=2, precision="fp64", optimizer=optimizer, compile=True))
    assert fast.error is None
    assert fast.digest != plain.digest
    expected = parameters(plain)
    for name, value in parameters(fast).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9, msg=name)


def test_without_a_compiler_the_setting_is_named(small, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    (refused,) = run(small.spec(epochs=1, compile=True))
    assert isinstance(refused.error, ConfigError)
    assert "training.compile needs a C++ compiler" in str(refused.error)
    assert "leave training.compile out" in str(refused.error)
