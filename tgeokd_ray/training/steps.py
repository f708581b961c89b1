"""One training step: supervised, distilled or bilevel, decided by what the rule and the batch bring.

N rows, C classes, M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import torch
from torch import Tensor

from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.objectives.chunks import Gradient
from tgeokd_ray.objectives.hypergradient import InnerStep, fusion_gradient
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.points import Context, Points, teacher_share
from tgeokd_ray.objectives.short_axis import total
from tgeokd_ray.objectives.vectors import Linear
from tgeokd_ray.objectives.ways import Way
from tgeokd_ray.training import spread
from tgeokd_ray.training.batch import Batch, part
from tgeokd_ray.training.needs import Moment, met
from tgeokd_ray.training.passes import Passes, rounded
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.profile import region
from tgeokd_ray.training.state import State, Tensors
from tgeokd_ray.training.window import Window, window
from tgeokd_ray.training.worker import Worker

Measures = dict[str, Tensor]
Taken = Callable[[State, Rows, Rows | None, float, Tensor | None, Tensor | None], tuple[State, Measures]]


@dataclass(frozen=True)
class Schedule:
    """Learning rates [R] float64, which rise in proportion to the step over the first `warm_up` steps, and from each
    step of `lowered` on are a tenth of what they were. By `changes`, (step, rate) in order, all are this rate from this
    step on."""

    rates: Tensor
    warm_up: int = 0
    lowered: tuple[int, ...] = ()
    changes: tuple[tuple[int, float], ...] = ()

    def __call__(self, step: int) -> Tensor:
        changed, warmth, lowered = self.stage(step)
        rates = self.rates if changed is None else torch.full_like(self.rates, changed)
        return rates * warmth * 0.1**lowered

    def stage(self, step: int) -> tuple[float | None, float, int]:
        """What decides the rates: the last change, how far the warm-up is, and how often they were lowered."""
        changed = [rate for first, rate in self.changes if step >= first]
        warmth = min(1.0, (step + 1) / max(self.warm_up, 1))
        return changed[-1] if changed else None, warmth, sum(step >= first for first in self.lowered)

    def take(self, students: Sequence[int]) -> Schedule:
        """The learning rates of these students alone."""
        return replace(self, rates=self.rates[list(students)])


@dataclass(frozen=True)
class Step:
    """`(state, inner, outer, progress, masks, parts) -> (state, measures [R])` on one worker's part of a global batch.

    `masks` are the dropout of the inner pass; the outer loss is that of the student as it will be used, without any.
    `parts` [P, m] (`parts.places`) are what the products of a look-ahead read in turn, None: each the whole batch.
    Without parameters in the rule, or without outer rows, the outer half vanishes. Gradients, the outer gradient and
    the fusion gradient are means over all rows of all workers. If `windowed`, all of it happens on the rows of the
    tables that the batches name, in a window that may have a fixed size (`window`), and the new state is to be settled.
    `hypergradient` names the way to differentiate twice, `look_ahead` how many inner steps the outer gradient is pulled
    back through, `num_parts` how many `parts` it wants. At most `micro_rows` rows are in memory with their graph at
    once: the gradient of a batch is gathered from its chunks.
    """

    problem: Problem
    optimizer: Optimizer
    fusion_optimizer: Optimizer
    worker: Worker
    learning_rate: Schedule
    fusion_learning_rate: Schedule
    hypergradient: str = "split"
    look_ahead: int = 1
    num_parts: int = 1
    micro_rows: int | None = None
    windowed: bool = False
    fixed_window: bool = False

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of what a step measures, a number [R] each: for a ratio that is learned, also how it spreads over
        the rows [R, B]; with a look-ahead, the terms that its guard cut in this step."""
        learned = self.problem.rule.learned
        cut = ("cut_terms",) if learned and self.look_ahead > 1 else ()
        return ("loss", "ratio", *((spread.NAME,) if learned else ()), *cut)

    def totals(self, num_students: int) -> Measures:
        """The sums of all measures before the first step."""
        shapes = {name: (num_students, *((spread.BINS,) if name == spread.NAME else ())) for name in self.measures}
        return {n: torch.zeros(shape, device=self.worker.device, dtype=torch.float64) for n, shape in shapes.items()}

    def take(self, students: Sequence[int]) -> Step:
        """The step of these students alone."""
        return replace(
            self,
            problem=self.problem.take(students),
            learning_rate=self.learning_rate.take(students),
            fusion_learning_rate=self.fusion_learning_rate.take(students),
        )

    def __call__(
        self,
        state: State,
        inner: Rows,
        outer: Rows | None,
        progress: float,
        masks: Tensor | None = None,
        parts: Tensor | None = None,
    ) -> tuple[State, Measures]:
        if not self.windowed:
            return self._taken(state, inner, outer, progress, masks, parts)
        with region("window"):
            state = state.settled()
            (num_rows,) = {state.theta[name].shape[1] for name in self.optimizer.named}
            batches = [inner] if outer is None else [inner, outer]
            seen, (inner, *rest) = window(self.optimizer, num_rows, batches, self.worker, fixed=self.fixed_window)
            small = seen.entered(state)
        later = rest[0] if rest else None
        if self.optimizer.tables:
            new, measures = self._taken(small, inner, later, progress, masks, parts)
            return seen.left(state, new), measures
        return self._taken(small, inner, later, progress, masks, parts, (seen, state))

    def _taken(
        self,
        state: State,
        inner: Rows,
        outer: Rows | None,
        progress: float,
        masks: Tensor | None,
        parts: Tensor | None = None,
        beyond: tuple[Window, State] | None = None,
    ) -> tuple[State, Measures]:
        """The step on a state, or on the window of one `beyond` it, which then is what moves."""
        problem, worker, passes = self.problem, self.worker, self._passes
        bilevel = outer is not None and problem.rule.learned
        theta, omega = problem.leaves(state.theta), problem.leaves(state.omega, moved=bilevel)
        chunks = passes.chunks(inner)
        context = Context(progress=progress, generator=None, mean=worker.global_mean)
        rate = self.learning_rate(state.step)
        with region("forward"), torch.set_grad_enabled(len(chunks) == 1):
            at = passes.at(theta, inner, masks) if bilevel and len(chunks) == 1 else None
            seen = [problem.logits(theta, *part(inner, masks, c), once=not bilevel) for c in chunks if at is None]
            logits = at.logits if at is not None else seen[0] if len(seen) == 1 else torch.cat(seen, 1)
            losses = problem.losses(logits, inner, context)
        points = problem.points(logits, inner)
        if problem.rule.needs:
            with region("needs"):
                points = met(Moment(passes, state.theta, theta, inner, outer, masks, rate, points, context))
        with region("ratio"), torch.set_grad_enabled(bilevel):
            ratio = problem.mixture(omega, points, inner, context)
        with region("gradient"):
            batch = Batch(theta, inner, masks, ratio.detach(), points.row_weights, context)
            way = passes.way(batch, losses, at) if bilevel else passes.gradient(batch, losses)
            gradients = way.gradients
        weight = points.row_weights.sum()
        with region("measures"):
            measures = self._measures(losses, ratio, points)
        with region("exchange"):
            averaged = worker.mean(gradients | measures, weight)
        measures = {name: averaged.pop(name) for name in measures}
        measures["ratio"] = measures["ratio"] / measures.pop("labelled").clamp_min(torch.finfo(ratio.dtype).tiny)
        averaged = rounded(averaged, state.theta)
        with region("update"):
            new, new_theta = self._moved(state, averaged, rate, beyond)
        if bilevel:
            assert outer is not None
            assert not isinstance(way, Gradient)
            taken = InnerStep(self.optimizer, state.theta, averaged, state.moments, rate)
            with region("outer"):
                v = passes.outer_gradient(new_theta, outer)
            with region("second order"):
                w, terms = taken.pulled_back(v, self._hessian(way, batch, parts), self.look_ahead)
                slope = way.ratio_gradient(w)
            slope = slope * points.labelled.unsqueeze(-1)
            with region("fusion"):
                new = self._fused(new, worker.mean(fusion_gradient(omega, ratio, slope, points, context), weight))
            measures |= {"cut_terms": (self.look_ahead - terms).to(measures["loss"])}
        return new, {name: measures.get(name, torch.zeros_like(measures["loss"])) for name in self.measures}

    @property
    def _passes(self) -> Passes:
        return Passes(self.problem, self.worker, self.hypergradient, self.micro_rows)

    def _moved(
        self, state: State, gradients: Tensors, rate: Tensor, beyond: tuple[Window, State] | None
    ) -> tuple[State, Tensors]:
        """The state after the inner step, and theta as the outer batch sees it."""
        if beyond is not None:
            seen, whole = beyond
            new = seen.moved(whole, gradients, self.optimizer, rate)
            return new, seen.entered(new).theta
        theta, moments = self.optimizer.update(state.theta, gradients, state.moments, rate)
        return replace(state, theta=theta, moments=moments, step=state.step + 1), theta

    def _fused(self, state: State, gradient: Tensors) -> State:
        """The state after an outer step of the fusion network along its global gradient."""
        gradient = rounded(gradient, state.omega)
        omega, moments = self.fusion_optimizer.update(
            state.omega, gradient, state.omega_moments, self.fusion_learning_rate(state.step - 1)
        )
        return replace(state, omega=omega, omega_moments=moments)

    def _hessian(self, way: Way, batch: Batch, parts: Tensor | None) -> Linear:
        """Global products with the Hessian of the inner loss: of the whole batch, whose `way` is there, or of one of
        its `parts` after the other, as real steps have other rows each."""
        ways = repeat((way, batch.row_weights.sum())) if parts is None else self._in_turn(batch, parts)

        def hessian(direction: Tensors) -> Tensors:
            own, weight = next(ways)
            return self.worker.mean(own.hessian(direction), weight)

        return hessian

    def _in_turn(self, batch: Batch, parts: Tensor) -> Iterator[tuple[Way, Tensor]]:
        """The ways of the parts, with their weights, one for each product. None is kept that does not come again."""
        kept: dict[int, tuple[Way, Tensor]] = {}
        products = self.look_ahead - 1
        for turn in range(products):
            place = turn % len(parts)
            if place not in kept:
                own = batch.take(parts[place])
                kept[place] = self._passes.way(own, several=True), own.row_weights.sum()
            yield kept[place] if turn + len(parts) < products else kept.pop(place)

    @torch.no_grad()
    def _measures(self, losses: Tensor, ratio: Tensor, points: Points) -> Measures:
        """Weighted means over the local rows [R]; they travel with the gradients, so that all workers see one value.

        The ratio is counted over the `labelled` share of them alone: elsewhere it is no choice.
        """
        weights, known = points.row_weights, points.row_weights * points.labelled
        all_weight = weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
        share = teacher_share(ratio)
        counted = {spread.NAME: spread.rows_by_ratio(share, known / all_weight)} if self.problem.rule.learned else {}
        return {
            "loss": (total(losses * ratio) * weights).sum(-1) / all_weight,
            "ratio": (share * known).sum(-1) / all_weight,
            "labelled": known.sum() / all_weight,
            **counted,
        }


def as_it_is(step: Step) -> Taken:
    """Take a step as it stands."""
    return step
