"""The networks' own derivatives against reverse mode twice and forward mode, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tgeokd_ray.models import build
from tgeokd_ray.models.embedding import gathered, scattered
from tgeokd_ray.objectives.losses import source_losses
from tgeokd_ray.objectives.pearlmutter import Pearlmutter, Sources
from tgeokd_ray.objectives.stacking import apply, stack
from tgeokd_ray.objectives.ways import Forward, Inner, Split

ROWS, NUMERIC, CATEGORICAL, IDS, CLASSES = 15, 5, 3, 11, 4
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "hidden": [7, 6], "embedding": 3},
    "linear": {"kind": "mlp", "hidden": [], "embedding": 3},
    "wide_deep": {"kind": "wide_deep", "hidden": [7], "embedding": 3},
}
Tensors = dict[str, Tensor]


class Case:
    """A network with random parameters far from its start, a batch, ratios, and the same batch as a function."""

    def __init__(self, kind: str, students: int, teachers: int, *, masked: bool = False, columns: str = "both") -> None:
        draw = torch.Generator().manual_seed(3)
        numeric, categorical = (0 if columns == "ids" else NUMERIC), (0 if columns == "numbers" else CATEGORICAL)
        shape = {"num_numeric": numeric, "num_categorical": categorical, "num_ids": IDS, "num_classes": CLASSES}
        self.module = build(NETWORKS[kind], generator=draw, **shape).double()
        start = stack([self.module] * students)
        self.theta = {n: v + 0.5 * self.normal(v.shape, draw) for n, v in start.items()}
        self.direction = {n: self.normal(v.shape, draw) for n, v in start.items()}
        self.numeric = self.normal((ROWS, numeric), draw)
        self.categorical = torch.randint(IDS, (ROWS, categorical), generator=draw)
        self.labels = torch.randint(-1, CLASSES, (ROWS,), generator=draw)
        self.logits = 2 * self.normal((ROWS, teachers, CLASSES), draw).float() if teachers else None
        self.temperature = torch.linspace(0.7, 3.0, students).double() if students > 1 else 2.5
        self.ratio = torch.rand(students, ROWS, 1 + teachers, generator=draw, dtype=torch.float64)
        self.weights = torch.rand(ROWS, generator=draw, dtype=torch.float64) + 0.1
        units = sum(NETWORKS[kind]["hidden"])
        kept = torch.rand(students, ROWS, units, generator=draw, dtype=torch.float64) > 0.3
        self.masks = kept / 0.7 if masked else None

    @staticmethod
    def normal(shape: Any, draw: torch.Generator) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    def losses(self, theta: Tensors) -> Tensor:
        own = () if self.masks is None else (self.masks,)
        logits = apply(self.module, theta, self.numeric, self.categorical, own=own)
        teachers = None if self.logits is None else self.logits.double()
        return source_losses(logits, teachers, self.labels, temperature=self.temperature)

    def inner(self) -> Inner:
        leaves = {name: value.clone().requires_grad_() for name, value in self.theta.items()}
        return Inner(leaves, self.losses(leaves), self.losses, self.ratio, self.weights)

    def own(self) -> Pearlmutter:
        at = self.module.at(self.theta, self.numeric, self.categorical, self.masks)  # type: ignore[operator]
        return Pearlmutter(at, Sources(self.labels, self.logits, self.temperature), self.ratio, self.weights)


def close(found: Tensors, expected: Tensors) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-13, msg=name)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("teachers", [0, 1, 2])
@pytest.mark.parametrize("students", [1, 3])
@pytest.mark.parametrize("kind", NETWORKS)
def test_they_are_those_of_reverse_mode_twice(kind: str, students: int, teachers: int, masked: bool) -> None:
    """Gradient, two products with the Hessian and the ratios' gradient; rows without a label, temperatures apart."""
    case = Case(kind, students, teachers, masked=masked and kind != "linear")
    own, split = case.own(), Split(case.inner())
    close(own.gradients, {name: value.detach() for name, value in split.gradients.items()})
    for scale in (1.0, -3.0):
        direction = {name: scale * value for name, value in case.direction.items()}
        close(own.hessian(direction), split.hessian(direction))
    torch.testing.assert_close(
        own.ratio_gradient(case.direction), split.ratio_gradient(case.direction), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("columns", ["ids", "numbers"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_tables_without_numbers_or_without_ids(kind: str, columns: str) -> None:
    case = Case(kind, 2, 1, columns=columns)
    own, forward = case.own(), Forward(case.inner())
    close(own.gradients, forward.gradients)
    close(own.hessian(case.direction), forward.hessian(case.direction))
    torch.testing.assert_close(
        own.ratio_gradient(case.direction), forward.ratio_gradient(case.direction), rtol=1e-12, atol=1e-14
    )


def test_the_logits_are_those_of_the_module_bit_for_bit() -> None:
    for kind in NETWORKS:
        for students in (1, 3):
            case = Case(kind, students, 1)
            at = case.module.at(case.theta, case.numeric, case.categorical)  # type: ignore[operator]
            assert torch.equal(at.logits, apply(case.module, case.theta, case.numeric, case.categorical))


def test_an_empty_batch_moves_nothing() -> None:
    case = Case("wide_deep", 2, 1)
    for name in ("numeric", "categorical", "labels", "logits", "weights"):
        setattr(case, name, getattr(case, name)[:0])
    case.ratio = case.ratio[:, :0]
    own = case.own()
    for found in (own.gradients, own.hessian(case.direction)):
        assert all(value.shape == case.theta[name].shape and not value.any() for name, value in found.items())
    assert own.ratio_gradient(case.direction).shape == (2, 0, 2)


def test_a_direction_may_come_in_another_type() -> None:
    case = Case("mlp", 1, 1)
    short = {name: value.float() for name, value in case.direction.items()}
    close(case.own().hessian(short), case.own().hessian({name: value.double() for name, value in short.items()}))


@pytest.mark.parametrize("shape", [(IDS, 3), (2, IDS, 3)])
def test_scattering_is_the_adjoint_of_gathering(shape: tuple[int, ...]) -> None:
    table = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(IDS, (ROWS, CATEGORICAL), generator=torch.Generator().manual_seed(2))
    rows = gathered(table, ids)
    values = torch.randn(*rows.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close((rows * values).sum(), (table * scattered(values, ids, IDS)).sum())
