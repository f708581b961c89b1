"""A bilevel step of DCN-V2 in bf16 ends with the bits that torch's own operations in its cross layers give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import student_steps
import torch
from student_steps import Running, Student, table
from torch import Tensor

from tgeokd_ray.models import layers
from tgeokd_ray.models.crossing import cross

STEPS, ROWS = 12, 128


def by_torch(features: Tensor, product: Tensor, crossed: Tensor) -> tuple[Tensor, Tensor]:
    total = features * product + crossed
    return total, total.to(product.dtype)


@pytest.mark.parametrize("hidden", [(), (16, 8)])
@pytest.mark.parametrize(
    ("way", "embedding", "look_ahead"),
    [("split", "rowwise_adagrad", 1), ("split", "dense", 3), ("forward", "rowwise_adagrad", 3), ("finite", "dense", 1)],
)
def test_twelve_steps_with_an_outer_batch_at_every_second(
    way: str, embedding: str, look_ahead: int, hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"kind": "dcnv2", "hidden": hidden, "embedding": 4, "cross_layers": 3}
    monkeypatch.setitem(student_steps.MODELS, "dcnv2", model)

    def trained(by: Callable[..., tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        monkeypatch.setattr(layers, "cross", by)
        rule = (("kind", "tgeo_one_step"),)
        student = Student("dcnv2", 500, embedding, True, rule, look_ahead, hypergradient=way)
        running = Running(student, table(1024, 500), batch_rows=ROWS, every=2, outer_rows=ROWS)
        start = {name: value.clone() for name, value in running.state.omega.items()}
        for _ in range(STEPS):
            running.step()
        state = running.state.settled()
        assert any(not torch.equal(value, state.omega[name]) for name, value in start.items())
        return {**state.theta, **state.omega}

    ours, theirs = trained(cross), trained(by_torch)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
