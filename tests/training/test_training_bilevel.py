"""The outer half of a step of the loop: against the textbook, on several workers, and the options that steer it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import small_table
import torch
from torch import Tensor
from training_runs import run
from worker_ranks import parameters
from worker_threads import Threads

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.models import build
from tgeokd_ray.objectives.losses import cross_entropy
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.points import Context
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import TGeoOneStep
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.objectives.stacking import stack
from tgeokd_ray.objectives.ways import WAYS
from tgeokd_ray.training import loop
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.spec import Fusion
from tgeokd_ray.training.state import State
from tgeokd_ray.training.steps import Schedule, Step
from tgeokd_ray.training.worker import LocalWorker

IDS, CLASSES, ROWS, OUTER_ROWS = 7, 3, 24, 15
CLIP = 0.05
Tensors = dict[str, Tensor]


def some_rows(rows: int, seed: int) -> Rows:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Rows(
        row_id=torch.arange(rows),
        numeric=normal(rows, 4),
        categorical=torch.randint(IDS, (rows, 2), generator=generator),
        labels=torch.randint(CLASSES, (rows,), generator=generator),
        weights=normal(rows).abs() + 0.1,
        logits=2 * normal(rows, 1, CLASSES),
        covered=torch.empty(rows, 0, dtype=torch.uint8),
        ratios=torch.empty(rows, 0, 2),
        targets=torch.empty(rows, 0),
        offset=torch.empty(rows, 0),
    )


def part(rows: Rows, which: slice) -> Rows:
    return Rows(**{name: getattr(rows, name)[which] for name in Rows.__dataclass_fields__})


def network(seed: int) -> torch.nn.Module:
    options = {"num_numeric": 4, "num_ids": IDS, "num_categorical": 2, "num_classes": CLASSES}
    generator = torch.Generator().manual_seed(seed)
    return build({"kind": "dcnv2", "hidden": [6], "embedding": 3}, generator=generator, **options).double()


def make_step(way: str = "split", look_ahead: int = 1, worker: object = None, level: float = 0.3) -> Step:
    """The warm-up's rate at step 7 is eight tenths; omega moves by its gradient itself."""
    means = torch.rand(1, CLASSES, CLASSES, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    rule, temperature = RulePack.of([TGeoOneStep(level=level)] * 2), torch.full((2,), 2.0, dtype=torch.float64)
    problem = Problem(network(0), rule, temperature, means / means.sum(-1, keepdim=True))
    spec = OptimizerSpec("adam", 0.02, weight_decay=0.01, clip_norm=CLIP)
    rate = torch.tensor([0.02, 0.05], dtype=torch.float64)
    return Step(
        problem=problem,
        optimizer=Optimizer(spec),
        fusion_optimizer=Optimizer(OptimizerSpec("sgd", 1.0)),
        worker=worker or LocalWorker(),  # type: ignore[arg-type]
        learning_rate=Schedule(rate, warm_up=10),
        fusion_learning_rate=Schedule(torch.ones_like(rate)),
        hypergradient=way,
        look_ahead=look_ahead,
    )


def make_state(step: Step) -> State:
    """Two students after seven inner steps."""
    theta = stack([network(seed) for seed in (0, 1)])
    omega = {k: 3 * v.double() for k, v in step.problem.rule.init((0, 1), CLASSES, 1).items()}
    zeros = {name: torch.zeros(2, dtype=torch.float64) for name in step.measures}
    best, epoch = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    moments, none = step.optimizer.init(theta), step.fusion_optimizer.init(omega)
    state = State(theta, moments, omega, none, theta, omega, zeros, best, epoch, epoch - 1, torch.arange(2))
    alone = replace(step, worker=LocalWorker())
    for seed in range(7):
        state, _ = alone(state, some_rows(ROWS, 100 + seed), None, 0.0)
    return state


INNER, OUTER = some_rows(ROWS, 1), some_rows(OUTER_ROWS, 2)


def weighted_mean(values: Tensor, rows: Rows) -> Tensor:
    return (values * rows.weights).sum(-1) / rows.weights.sum()


def after_adam(step: Step, state: State, grads: Tensors) -> Tensors:
    """theta' by the textbook formulas of clipped Adam, differentiable by the gradients."""
    spec, t = step.optimizer.spec, 8
    (b1, b2), new = spec.betas, {}
    rate = step.learning_rate(state.step)
    size = sum(g.flatten(1).square().sum(1) for g in grads.values()).sqrt()
    for name, value in state.theta.items():
        shape = (-1, *[1] * (value.dim() - 1))
        g = grads[name] * (CLIP / (size + 1e-6)).reshape(shape) + spec.weight_decay * value
        first = (b1 * state.moments[f"first.{name}"] + (1 - b1) * g) / (1 - b1**t)
        second = (b2 * state.moments[f"second.{name}"] + (1 - b2) * g * g) / (1 - b2**t)
        new[name] = value - rate.reshape(shape) * first / (second.sqrt() + spec.eps)
    assert (size > 2 * CLIP).all(), "clipping must be active"
    return new


def unrolled(step: Step, state: State) -> Tensors:
    """dJ/domega of one step by reverse mode through everything but the features, which the rule detaches."""
    problem = step.problem
    theta = {name: value.clone().requires_grad_() for name, value in state.theta.items()}
    omega = {name: value.clone().requires_grad_() for name, value in state.omega.items()}
    logits = problem.logits(theta, INNER)
    points = problem.points(logits, INNER)
    ratio = problem.mixture(omega, points, INNER, Context(0.5))
    loss = weighted_mean((ratio * problem.losses(logits, INNER)).sum(-1), INNER).sum()
    grads = dict(zip(theta, torch.autograd.grad(loss, list(theta.values()), create_graph=True), strict=True))
    later = after_adam(step, state, grads)
    outer = weighted_mean(cross_entropy(problem.logits(later, OUTER), OUTER.labels), OUTER).sum()
    return dict(zip(omega, torch.autograd.grad(outer, list(omega.values())), strict=True))


def moved(state: State, new: State) -> Tensors:
    """What omega moved by, for each student as one vector of length 1 in all its tensors together."""
    return unit({name: state.omega[name] - value for name, value in new.omega.items()})


def unit(tensors: Tensors) -> Tensors:
    size = sum(value.flatten(1).square().sum(1) for value in tensors.values()).sqrt()
    return {name: value / size.reshape(-1, *[1] * (value.dim() - 1)) for name, value in tensors.items()}


@pytest.mark.parametrize(("way", "bound"), [("split", 1e-11), ("forward", 1e-11), ("finite", 1e-6)])
def test_omega_moves_along_the_textbook_hypergradient(way: str, bound: float) -> None:
    """Warm-up, clipping, decay, class-free row weights and embeddings, for two students at once."""
    step = make_step(way)
    state = make_state(step)
    new, _ = step(state, INNER, OUTER, 0.5)
    torch.testing.assert_close(moved(state, new), unit(unrolled(step, state)), rtol=0, atol=bound)


@pytest.mark.parametrize("look_ahead", [1, 5])
@pytest.mark.parametrize("way", ["split", "finite"])
@pytest.mark.parametrize(
    ("inner", "outer"), [([9, 15], [4, 11]), ([1, 0, 23], [15, 0, 0])], ids=["two", "three, one empty"]
)
def test_workers_move_omega_as_one_process_does(inner: list[int], outer: list[int], way: str, look_ahead: int) -> None:
    """Centring, mean |d|, v and products with the Hessian are global; nobody waits for a collective alone."""
    step = make_step(way, look_ahead)
    state = make_state(step)
    alone, measures = step(state, INNER, OUTER, 0.5)
    threads = Threads(len(inner))

    def work(rank: int) -> tuple[State, Tensors]:
        own = replace(step, worker=threads, problem=replace(step.problem, module=copy.deepcopy(step.problem.module)))
        shards = (
            part(rows, slice(sum(sizes[:rank]), sum(sizes[: rank + 1])))
            for rows, sizes in ((INNER, inner), (OUTER, outer))
        )
        return own(state, *shards, 0.5)

    exact = way == "split"
    for new, found in threads.run(work):  # type: ignore[misc]
        torch.testing.assert_close(new.theta, alone.theta, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(new.omega, alone.omega, rtol=0, atol=1e-12 if exact else 1e-6)
        torch.testing.assert_close(found, measures, rtol=1e-12, atol=1e-12)


def test_a_look_ahead_is_another_direction_and_every_way_takes_it() -> None:
    states = {}
    for way in WAYS:
        for look_ahead in (1, 4):
            step = make_step(way, look_ahead)
            state = make_state(step)
            new, _ = step(state, INNER, OUTER, 0.5)
            states[way, look_ahead] = moved(state, new)
    for way in WAYS:
        torch.testing.assert_close(states[way, 4], states["split", 4], rtol=0, atol=1e-5)
    assert (
        max((a - b).abs().max() for a, b in zip(states["split", 1].values(), states["split", 4].values(), strict=True))
        > 0.01
    )


def test_dropout_is_the_same_in_every_pass() -> None:
    masks = (torch.rand(2, ROWS, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64) > 0.4) / 0.6
    directions = []
    for way in WAYS:
        step = make_step(way, look_ahead=3)
        state = make_state(step)
        new, _ = step(state, INNER, OUTER, 0.5, masks.double())
        directions.append(moved(state, new))
    for found in directions[1:]:
        torch.testing.assert_close(found, directions[0], rtol=0, atol=1e-5)


def test_the_terms_that_the_guard_cut_are_measured() -> None:
    step = make_step(look_ahead=30)
    steep = replace(step, learning_rate=lambda _: torch.tensor([1e-3, 3.0], dtype=torch.float64))
    state = make_state(step)
    _, plain = step(state, INNER, None, 0.5)
    _, cut = steep(state, INNER, OUTER, 0.5)
    assert plain["cut_terms"].tolist() == [0, 0]
    assert cut["cut_terms"][0] == 0
    assert 20 < cut["cut_terms"][1] <= 29
    assert set(make_step().measures) == {"loss", "ratio", "ratio_spread"}


def test_a_run_takes_the_options_of_its_spec(small) -> None:  # type: ignore[no-untyped-def]
    """Forward mode gives split's parameters, a look-ahead others; its history counts cut terms."""

    def trained(**options: object):  # type: ignore[no-untyped-def]
        spec = small.spec(precision="fp64", epochs=2, fusion=Fusion(every=2, batch_rows=100, warm_up=0.0, **options))
        (finished,) = run(spec)
        return finished

    split, forward, ahead = trained(), trained(hypergradient="forward"), trained(look_ahead=3)
    assert len({finished.digest for finished in (split, forward, ahead)}) == 3
    expected = parameters(split)
    for name, value in parameters(forward).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-9)
    assert max((value - expected[name]).abs().max() for name, value in parameters(ahead).items()) > 1e-4
    assert all(0 <= entry["cut_terms"] <= 2 for entry in ahead.metrics["history"])
    assert "cut_terms" not in split.metrics["history"][0]


def test_a_run_cuts_its_batches_as_they_are(small, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """All rows of the table in one step, far fewer than a batch may have: parts of 100 of these."""
    asked, laid_out = [], loop.places

    def watched(shares, num_parts, device):  # type: ignore[no-untyped-def]
        asked.append((sum(rows for _, rows in shares), num_parts))
        return laid_out(shares, num_parts, device)

    monkeypatch.setattr(loop, "places", watched)
    fusion = Fusion(every=1, batch_rows=100, warm_up=0.0, look_ahead=3, hessian_rows=100)
    run(small.spec(epochs=1, batch_rows=100_000, fusion=fusion))
    assert asked == [(small_table.ROWS["train"], small_table.ROWS["train"] // 100)]


@pytest.mark.parametrize("way", ["forward", "finite"])
def test_steps_may_be_computed_in_a_wider_type_than_parameters(small, way: str) -> None:  # type: ignore[no-untyped-def]
    """Float32 parameters with exact sums: directions come in float32, the losses are in float64."""

    def fusion(hypergradient: str) -> dict[str, Tensor]:
        options = Fusion(every=2, batch_rows=100, warm_up=0.0, look_ahead=3, hypergradient=hypergradient)
        (finished,) = run(small.spec(epochs=1, exact_sums=True, fusion=options))
        return parameters(finished)

    found, expected = fusion(way), fusion("split")
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)


def test_an_unsupported_student_ends_its_run_with_the_way_out(small, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    class Bag(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = torch.nn.EmbeddingBag(12, 4), torch.nn.Linear(8, 3)

        def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
            return self.head(torch.cat([numeric, self.bag(categorical)], 1))

    monkeypatch.setattr("tgeokd_ray.training.run._build", lambda spec, data, seed: Bag())
    spec = small.spec(epochs=1, model={"kind": "mlp", "hidden": [8], "embedding": 3, "dropout": 0.0})
    (refused,) = run(spec)
    assert isinstance(refused.error, ConfigError)
    assert "--set distill.fusion.hypergradient=finite" in str(refused.error)
    (finished,) = run(replace(spec, fusion=replace(spec.fusion, hypergradient="finite", look_ahead=2)))
    assert finished.error is None
