"""Rules that ask a step for more than its logits: MGDA, RW and BiKD against brute force and central differences, and
every rival on several workers, in chunks, in windows and in packs."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training_bilevel import CLASSES, INNER, OUTER, Tensors, make_state, make_step, moved, part, unit
from test_training_packs import assert_same
from test_training_window import row_wise
from torch import Tensor
from training_runs import run
from worker_ranks import on_ranks, parameters, train
from worker_threads import Threads

from tgeokd_ray.artifacts import load_tensors
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.objectives.points import Context
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import ANL, DIST, DKD, MGDA, RW, BiKD, Constant, Rule
from tgeokd_ray.training import needs
from tgeokd_ray.training.needs import Moment
from tgeokd_ray.training.pack import packed
from tgeokd_ray.training.spec import Finished, Fusion
from tgeokd_ray.training.state import State
from tgeokd_ray.training.steps import Step

RIVALS: list[Rule] = [ANL(), RW(), MGDA(), BiKD(hidden=6), DKD(), DIST()]
EVERY_STEP = Fusion(every=1, batch_rows=100, warm_up=0.0)
KINDS = [rule.kind for rule in RIVALS]


def with_rule(rule: Rule, step: Step | None = None, state: State | None = None) -> tuple[Step, State]:
    """Two students after seven steps, under the rule from now on."""
    step = step or make_step()
    state = state or make_state(make_step())
    step = replace(step, problem=replace(step.problem, rule=RulePack.of([rule] * 2)))
    omega = {k: 2 * v.double() for k, v in step.problem.rule.init((0, 1), CLASSES, 1).items()}
    zeros = {name: torch.zeros(2, dtype=torch.float64) for name in step.measures}
    moments = step.fusion_optimizer.init(omega) if omega else {}
    return step, replace(state, omega=omega, best_omega=omega, omega_moments=moments, totals=zeros)


def moment(step: Step, state: State, inner: Rows = INNER, outer: Rows | None = OUTER) -> Moment:
    problem = step.problem
    leaves = problem.leaves(state.theta)
    points = problem.points(problem.logits(leaves, inner), inner)
    rate = step.learning_rate(state.step)
    return Moment(step._passes, state.theta, leaves, inner, outer, None, rate, points, Context(0.5))


def mean_loss(step: Step, theta: Tensors, rows: Rows, ratio: Tensor) -> Tensor:
    weights = step.problem.row_weights(rows)
    losses = step.problem.losses(step.problem.logits(theta, rows), rows)
    return ((losses * ratio).sum(-1) * weights).sum(-1) / weights.sum()


def some_missing() -> Rows:
    """Rows of which every fourth has no label and every third no teacher, none of them neither."""
    places = torch.arange(len(INNER))
    labels = torch.where(places % 4 == 1, -1, INNER.labels)
    return replace(INNER, labels=labels, covered=((places % 3 != 0) | (labels < 0)).to(torch.uint8).unsqueeze(1))


@pytest.mark.parametrize("rows", [INNER, some_missing()], ids=["whole", "without some labels and teachers"])
def test_no_constant_has_a_shorter_gradient_than_mgda(rows: Rows) -> None:
    step, state = with_rule(MGDA())
    points = needs.met(moment(step, state, rows))
    found = step.problem.mixture({}, points, rows, Context(0.5))

    def length(ratio: Tensor) -> Tensor:
        leaves = step.problem.leaves(state.theta)
        loss = mean_loss(step, leaves, rows, ratio).sum()
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        return sum(g.flatten(1).square().sum(1) for g in slopes).sqrt()  # type: ignore[union-attr,return-value]

    def constant(level: float) -> Tensor:
        return RulePack.of([Constant(level)] * 2).mixture({}, points, rows.covered, Context(0.5))

    lengths = torch.stack([length(constant(k / 200)) for k in range(201)])
    assert (length(found) <= lengths.min(0).values + 1e-9).all()
    torch.testing.assert_close(length(found), lengths.min(0).values, rtol=1e-3, atol=0)
    inside = found[:, 2, 1]
    assert 0.01 < inside[0] < 0.99
    assert inside[1] == 1, "and one student at an end of the segment"


@pytest.mark.parametrize("way", ["split", "forward"])
def test_slopes_of_rw_are_finite_differences_through_the_virtual_step(way: str) -> None:
    """theta - rate sum eps_im grad loss_im for each single eps, either way; both students at once."""
    step, state = with_rule(RW(), make_step(way))
    now = moment(step, state)
    found = needs.outer_slopes(now)
    assert found is not None
    size = 1e-4
    for row in (0, 5, 23):
        for source in (0, 1):
            leaves = step.problem.leaves(state.theta)
            loss = step.problem.losses(step.problem.logits(leaves, INNER), INNER)[:, row, source].sum()
            slopes = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

            def outer(eps: float, slopes: Tensors = slopes) -> Tensor:
                shape = {name: (-1, *[1] * (v.dim() - 1)) for name, v in slopes.items()}
                later = {n: v - eps * now.rate.reshape(shape[n]) * slopes[n] for n, v in state.theta.items()}
                each = [step.problem.outer_loss({n: v[r : r + 1] for n, v in later.items()}, OUTER) for r in range(2)]
                return torch.stack(each)

            expected = -(outer(size) - outer(-size)) / (2 * size)
            torch.testing.assert_close(found[:, row, source], expected, rtol=1e-6, atol=1e-10)
    assert (found > 0).any()
    assert (found < 0).any()
    weights = RW().weights({}, replace(now.points, outer_slopes=found), Context(0.5))
    assert weights.std() > 0.2


def test_omega_of_bikd_moves_along_central_differences() -> None:
    """Of the outer loss after the real inner step (clipped Adam with decay), by every number of its network."""
    step, state = with_rule(BiKD(hidden=4))
    new, _ = step(state, INNER, OUTER, 0.5)
    size, slopes = 1e-5, {}

    def outer(name: str, place: int, eps: float) -> Tensor:
        """[R]; a student's loss depends on its own network alone."""
        value = state.omega[name].clone()
        value.reshape(2, -1)[:, place] += eps
        later, _ = step(replace(state, omega=state.omega | {name: value}), INNER, None, 0.5)
        each = [step.problem.outer_loss({n: v[r : r + 1] for n, v in later.theta.items()}, OUTER) for r in range(2)]
        return torch.stack(each)

    for name, value in state.omega.items():
        places = range(value[0].numel())
        columns = [(outer(name, k, size) - outer(name, k, -size)) / (2 * size) for k in places]
        slopes[name] = torch.stack(columns, 1).reshape(value.shape)
    torch.testing.assert_close(moved(state, new), unit(slopes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", RIVALS, ids=KINDS)
@pytest.mark.parametrize(("inner", "outer"), [([9, 15], [4, 11]), ([1, 0, 23], [15, 0, 0])], ids=["two", "three"])
def test_workers_end_where_one_process_does(rule: Rule, inner: list[int], outer: list[int]) -> None:
    step, state = with_rule(rule)
    rows = some_missing()
    alone, measures = step(state, rows, OUTER, 0.5)
    threads = Threads(len(inner))

    def work(rank: int) -> tuple[State, Tensors]:
        own = replace(step, worker=threads, problem=replace(step.problem, module=copy.deepcopy(step.problem.module)))
        shards = (
            part(whole, slice(sum(sizes[:rank]), sum(sizes[: rank + 1])))
            for whole, sizes in ((rows, inner), (OUTER, outer))
        )
        return own(state, *shards, 0.5)

    for new, found in threads.run(work):  # type: ignore[misc]
        torch.testing.assert_close(new.theta, alone.theta, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(new.omega, alone.omega, rtol=0, atol=1e-11)
        torch.testing.assert_close(found, measures, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rule", RIVALS[:-1], ids=KINDS[:-1])
def test_chunks_change_nothing(rule: Rule) -> None:
    step, state = with_rule(rule)
    whole, expected = step(state, some_missing(), OUTER, 0.5)
    found, measures = replace(step, micro_rows=7)(state, some_missing(), OUTER, 0.5)
    torch.testing.assert_close(found.theta, whole.theta, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.omega, whole.omega, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(measures, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", RIVALS, ids=KINDS)
def test_a_window_changes_nothing(rule: Rule) -> None:
    step, state = with_rule(rule, *row_wise("rowwise_adagrad"))
    whole, expected = step._taken(copy.deepcopy(state), INNER, OUTER, 0.5, None)
    new, measures = step(state, INNER, OUTER, 0.5)
    torch.testing.assert_close(new.settled().theta, whole.theta, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(measures, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", [rule for rule in RIVALS if not rule.learned], ids=lambda rule: rule.kind)
def test_what_stands_in_the_logits_of_rows_without_a_teacher_does_not_matter(rule: Rule) -> None:
    step, state = with_rule(rule)
    rows = some_missing()
    filled = replace(rows, logits=torch.where(rows.covered.bool().unsqueeze(-1), rows.logits, 50.0))
    one, other = (step(state, given, OUTER, 0.5)[0] for given in (rows, filled))
    torch.testing.assert_close(one.theta, other.theta, rtol=0, atol=1e-14)


def test_every_rival_trains_and_packs_end_as_alone(small) -> None:  # type: ignore[no-untyped-def]
    options: dict[str, object] = {"precision": "fp64", "epochs": 2, "fusion": EVERY_STEP}
    rules: list[dict[str, object]] = [{"kind": kind} for kind in KINDS] + [{"kind": "dkd", "beta": 1.0}]
    rules += [{"kind": "constant", "value": 0.5}]
    specs = [small.spec(f"s{k}", rule=rule, model_seeds=(k,), **options) for k, rule in enumerate(rules)]
    specs += [small.spec(f"again-{k}", rule={"kind": k}, model_seeds=(9,), **options) for k in ("rw", "mgda", "bikd")]
    sizes = {pack.specs[0].rule["kind"]: len(pack.specs) for pack in packed(specs)}
    assert sizes == {"anl": 5, "rw": 2, "mgda": 2, "bikd": 2}, "who asks nothing of a step pays nothing for who does"
    for one, spec in zip(run(*specs), specs, strict=True):
        assert one.error is None
        alone = run(replace(spec, root=str(small.root / "alone")))[0]
        assert_same(one, alone, 1e-11)
        assert ("ratio" in one.metrics) == (spec.rule["kind"] not in ("rw", "mgda")), "a ratio of a step has no end"
        assert 0 <= one.metrics["history"][0]["ratio"] < 1


@pytest.mark.parametrize("kind", KINDS)
def test_several_teachers_share_what_one_has(small, kind: str) -> None:  # type: ignore[no-untyped-def]
    """Two teachers of one opinion: the student of one, but for the networks of BiKD, which have an input for each."""
    options: dict[str, object] = {"precision": "fp64", "epochs": 1, "fusion": EVERY_STEP, "rule": {"kind": kind}}
    logits = str(small.logits.path)
    one, two = run(small.spec("one", **options), small.spec("two", logits=(logits, logits), **options))
    assert two.error is None
    if kind in ("bikd", "rw"):  # each source has a weight of its own
        return
    found, wanted = model(two), model(one)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10)


@pytest.mark.timeout(180)
def test_two_processes_end_where_one_does(small, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Through gloo, with dropout: the same parameters, and one artifact on both ranks."""
    options: dict[str, object] = {"precision": "fp64", "epochs": 1, "fusion": EVERY_STEP}
    specs = [small.spec(kind, rule={"kind": kind}, **options) for kind in ("dist", "dkd", "rw", "mgda", "bikd", "anl")]
    alone = run(*specs)
    places = {"root": str(tmp_path / "two"), "folder": str(tmp_path / "two" / "run")}
    first, second = on_ranks(2, train, *[replace(spec, **places) for spec in specs])
    for one, other, expected in zip(first, second, alone, strict=True):
        assert one.digest == other.digest
        wanted = parameters(expected) if expected.name == "bikd" else model(expected)
        for name, value in (parameters(one) if one.name == "bikd" else model(one)).items():
            slack = 1e-11 if name.startswith("model/") else 1e-9  # Adam magnifies rounding in the fusion network
            assert (value - wanted[name]).abs().max() <= slack, (expected.name, name)


def model(finished: Finished) -> Tensors:
    tensors = load_tensors(Path(finished.artifact) / "model.safetensors")
    return {f"model/{name}": value for name, value in tensors.items()}


def test_rows_of_a_batch_that_are_compared_are_not_taken_apart(small) -> None:  # type: ignore[no-untyped-def]
    (failed,) = run(small.spec(rule={"kind": "dist"}, micro_rows=30))
    assert isinstance(failed.error, ConfigError)
    assert "rule 'dist' compares the rows of a batch: micro_rows=30" in str(failed.error)


def test_rw_without_an_outer_batch_says_what_to_set(small) -> None:  # type: ignore[no-untyped-def]
    (failed,) = run(small.spec(rule={"kind": "rw"}, fusion=Fusion(every=2, batch_rows=100, warm_up=0.0)))
    assert isinstance(failed.error, ConfigError)
    assert "fusion.every=1" in str(failed.error)
