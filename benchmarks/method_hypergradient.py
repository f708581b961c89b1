"""Bar a: the hypergradient of every optimizer against its oracles, three ways, and several workers against one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from figures import Figure
from method_student import Student, make_student
from method_workers import difference
from torch import Tensor

from tgeokd_ray.objectives.settings import KINDS, OptimizerSpec
from tgeokd_ray.objectives.ways import WAYS

SIZE = 1e-3
RATES = {"sgd": 0.05, "momentum": 0.005, "nesterov": 0.005, "adagrad": 0.05, "adam": 0.01, "adamw": 0.01}
CLIPS = {"free": None, "clipped": 0.05}


def optimizer(kind: str, clip: float | None = None) -> OptimizerSpec:
    return OptimizerSpec(kind, RATES[kind], weight_decay=0.01, clip_norm=clip)


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest error of an entry, in units of the largest entry."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def differenced(student: Student) -> Tensor:
    """dJ/da [1, N, 2] by central differences of the whole step, at two sizes, extrapolated to none."""
    numeric = torch.zeros_like(student.ratio)
    for index in range(numeric.numel()):
        for size, share in ((SIZE, -1 / 3), (SIZE / 2, 4 / 3)):
            values = []
            for sign in (1, -1):
                ratio = student.ratio.clone()
                ratio.view(-1)[index] += sign * size
                values.append(student.outer_after(ratio))
            numeric.view(-1)[index] += share * (values[0] - values[1]) / (2 * size)
    return numeric


def hypergradient(quick: bool) -> Iterator[Figure]:
    """Weight decay everywhere, with and without clipping that is active, moments after 30 steps."""
    rows = 16 if quick else 48
    for kind in KINDS:
        students = {name: make_student(optimizer(kind, clip), rows, 2 * rows) for name, clip in CLIPS.items()}
        found = {name: student.slope()[0] for name, student in students.items()}
        finite = {name: relative(found[name], differenced(student)) for name, student in students.items()}
        unroll = {name: relative(found[name], student.unrolled()) for name, student in students.items()}
        for oracle, errors, bar in (("central_differences", finite, 1e-6), ("unroll", unroll, 1e-12)):
            worst = max(errors.values())
            name = f"method.hypergradient.{kind}.vs_{oracle}"
            yield Figure(name, worst, "relative", f"<= {bar:g}", worst <= bar, list(errors.values()))
    yield from _ways(rows)
    for world in (2, 3):
        errors = [difference(world, look_ahead) for look_ahead in (1, 5)]
        name = f"method.hypergradient.{world}_workers_vs_1"
        context = {"look_ahead": [1, 5], "rows": "unequal, an empty part"}
        yield Figure(name, max(errors), "absolute", "<= 1e-12", max(errors) <= 1e-12, errors, context)


def _ways(rows: int) -> Iterator[Figure]:
    """Every way against split reverse in float64, through one step and through five."""
    students = [make_student(optimizer(kind, 0.05), rows, 2 * rows) for kind in KINDS]
    steps = (1, 5)
    expected = {(s.spec.kind, k): s.slope(num_steps=k)[0] for s in students for k in steps}
    for way, bar in (("forward", 1e-12), ("finite", 1e-7)):
        errors = [relative(s.slope(way, k)[0], expected[s.spec.kind, k]) for s in students for k in steps]
        yield Figure(f"method.hypergradient.{way}_vs_split", max(errors), "relative", f"<= {bar:g}", max(errors) <= bar)
    for way in WAYS:
        single = [relative(s.in_float32().slope(way)[0].double(), expected[s.spec.kind, 1]) for s in students]
        worst, bar = max(single), 5e-2 if way == "finite" else 1e-5  # a ReLU may turn between the two sides
        yield Figure(f"method.hypergradient.{way}_in_float32", worst, "relative", f"<= {bar:g}", worst <= bar, single)
