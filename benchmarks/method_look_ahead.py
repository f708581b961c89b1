"""The look-ahead: exact on a quadratic, and how far it is from a real unroll of the optimizer elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from figures import Figure
from method_hypergradient import optimizer, relative
from method_student import make_student
from torch import Tensor

from tgeokd_ray.objectives.look_ahead import look_ahead
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.settings import KINDS, OptimizerSpec

SIZE, ROWS, STEPS = 40, 20, 20


def quadratic(spec: OptimizerSpec) -> float:
    """The relative error of dJ/da against steps `theta - P g(theta, a) - D theta` that autograd unrolls."""
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    ours, theta = Optimizer(spec), {"x": normal(1, SIZE)}
    rates, moments = torch.tensor([spec.learning_rate], dtype=torch.float64), ours.init(theta)
    for _ in range(10):
        theta, moments = ours.update(theta, {"x": 0.1 * normal(1, SIZE)}, moments, rates)
    preconditioner = ours.preconditioner(theta, {"x": 0.1 * normal(1, SIZE)}, moments, rates)
    scale, decay = preconditioner.scale, preconditioner.decay
    axes, _ = torch.linalg.qr(normal(SIZE, SIZE))
    root = scale["x"][0].rsqrt()
    hessian = root[:, None] * (axes * torch.linspace(0.01, 1.5, SIZE, dtype=torch.float64)) @ axes.T * root
    along, v, position = normal(ROWS, SIZE), normal(1, SIZE), theta["x"]
    ratio = torch.rand(ROWS, generator=generator, dtype=torch.float64).requires_grad_()
    for _ in range(STEPS):
        shrunk = position if decay is None else position - decay["x"] * position
        position = shrunk - scale["x"] * (position @ hessian + ratio @ along)
    (expected,) = torch.autograd.grad((position * v).sum(), ratio)
    w, _ = look_ahead({"x": v}, preconditioner, lambda d: {"x": d["x"] @ hessian}, STEPS)
    return relative(-(w["x"] @ along.T)[0], expected)


def centred_cosine(found: Tensor, expected: Tensor) -> float:
    """Of teacher minus label, centred over the rows: what a centred ratio per row can follow."""
    shapes = [(d[..., 1] - d[..., 0] - (d[..., 1] - d[..., 0]).mean()).reshape(-1) for d in (found, expected)]
    return torch.nn.functional.cosine_similarity(*shapes, dim=0).item()


def look_ahead_figures(quick: bool) -> Iterator[Figure]:
    """Error of d against the unroll of torch.optim through 20 steps, at its best scale, beside that of one step."""
    errors = [quadratic(optimizer(kind, clip)) for kind in KINDS for clip in (None, 0.05)]
    yield Figure("method.look_ahead.quadratic", max(errors), "relative", "<= 1e-10", max(errors) <= 1e-10, errors)
    rows = 64 if quick else 256
    for kind in KINDS:
        student = make_student(optimizer(kind), rows, 4 * rows)
        expected = student.unrolled(STEPS)
        (one, _), (ahead, terms) = student.slope(num_steps=1), student.slope(num_steps=STEPS)
        late, _ = student.slope(num_steps=STEPS, outer_after=STEPS)
        cosines = {
            "one step": centred_cosine(one, expected),
            "look-ahead": centred_cosine(ahead, expected),
            "look-ahead in four parts": centred_cosine(student.slope(num_steps=STEPS, num_parts=4)[0], expected),
            "look-ahead, outer gradient after all steps": centred_cosine(late, expected),
        }
        context = {"terms": terms} | {name: round(value, 6) for name, value in cosines.items()}
        error = relative(ahead * (ahead * expected).sum() / ahead.square().sum(), expected)
        yield Figure(f"method.look_ahead.{kind}.error", error, "relative", "reported", True, context=context)
        name = f"method.look_ahead.{kind}.cosine"
        yield Figure(name, cosines["look-ahead"], "centred cosine", "reported", True, list(cosines.values()), context)
