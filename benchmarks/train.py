"""How fast students train: against FuxiCTR, DeepCTR-Torch, FBGEMM's embedding, and the dense part alone.

python benchmarks/train.py [peers bound growth rows] [--quick] [--json]

peers: whole training loops on the same generated rows, rows per CPU-second and AUC on held-out rows; needs `make peers`
(CONTRIBUTING.md). bound: our step over its own dense part on fixed input. growth: a step on a table of 1 M ids over
one of 200 k, and row by row over dense. rows: adding gradients up, gathering narrow and crossing, over torch's one way.
Every side in a process of its own but for rows, in turns, one thread.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from figures import Figure, main
from peers_run import Absent, run
from student_steps import BATCH, WIDTH, Running, Student, in_turns, table
from workload import write

from tgeokd_ray.models.crossing import cross
from tgeokd_ray.objectives.rows import added, read

HERE = Path(__file__).resolve().parent
STEPS, TURNS = {200_000: 100, 1_000_000: 60}, 3
HELD_OUT = 65_536
SIZES = {200_000: "200k", 1_000_000: "1m"}
# Times FuxiCTR's rows per CPU-second; AUC must not be lower.
BARS = {("dnn", 200_000): 5.0, ("dnn", 1_000_000): 13.0, ("dcnv2", 200_000): 3.5, ("wide_deep", 200_000): 5.0}
BOUND_BARS, FBGEMM_BAR = {False: 0.82, True: 0.87}, 0.95  # of the bound: as it is, and compiled


def precisions() -> list[str]:
    """What this processor can be asked for: bfloat16 products are emulated, and slower, where it has none."""
    return ["fp32", "bf16"] if _has_bf16() else ["fp32"]


def _has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return "avx512_bf16" in flags or "amx_bf16" in flags


def peers(quick: bool) -> Iterator[Figure]:
    """Bars a and b: whole loops, each turn ours and every peer once on the same file."""
    if quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        for num_ids, steps in STEPS.items():
            path = Path(folder) / f"{num_ids}.npz"
            write(path, steps * BATCH, num_ids, HELD_OUT)
            for model in ("dnn", "dcnv2", "wide_deep"):
                if (model, num_ids) in BARS:
                    yield from _against_loops(path, model, num_ids)
            yield from _against_fbgemm(path, num_ids)


def _tried(path: Path, model: str, precision: str, *options: str) -> dict[str, Any] | Absent:
    """Our line of JSON, or why there is none."""
    script = HERE / "train_ours.py"
    return run(str(script), path, "--model", model, "--precision", precision, *options, python=Path(sys.executable))


def _ours(path: Path, model: str, precision: str, *options: str) -> dict[str, Any]:
    """Our line of JSON; SystemExit with the reason where it failed."""
    found = _tried(path, model, precision, *options)
    if isinstance(found, Absent):
        raise SystemExit(found.reason)
    return found


def _against_loops(path: Path, model: str, num_ids: int) -> Iterator[Figure]:
    scripts = {"fuxictr": "fuxictr_train.py", "deepctr": "deepctr_train.py"}
    best = precisions()[-1]
    turns: list[dict[str, dict[str, Any] | Absent]] = []
    for _ in range(TURNS):
        turn: dict[str, dict[str, Any] | Absent] = {"ours": _ours(path, model, best)}
        turn["compiled"] = _tried(path, model, best, "--compile")
        turns.append(turn | {peer: run(script, path, "--model", model) for peer, script in scripts.items()})
    name = f"train.{model}.{SIZES[num_ids]}"
    for peer in scripts:
        bar = BARS[model, num_ids] if peer == "fuxictr" else None
        yield from _ratios(f"{name}.vs_{peer}", turns, peer, bar, best)
    compiled = [turn | {"ours": turn["compiled"]} for turn in turns]
    yield next(_ratios(f"{name}.compiled.vs_fuxictr", compiled, "fuxictr", None, best))  # without its AUC


def _ratios(
    name: str, turns: list[dict[str, dict[str, Any] | Absent]], peer: str, bar: float | None, precision: str
) -> Iterator[Figure]:
    """The ratio of rows per CPU-second, and the difference of AUC."""
    bound = "reported" if bar is None else f">= {bar:g}"
    absent = next((turn[side] for turn in turns for side in ("ours", peer) if isinstance(turn[side], Absent)), None)
    if isinstance(absent, Absent):
        yield Figure(name, None, "ratio", bound, None, context={"reason": absent.reason})
        return
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [(turn["ours"], turn[peer]) for turn in turns]  # type: ignore[misc]
    speeds = [(mine["rows_per_cpu_second"], theirs["rows_per_cpu_second"]) for mine, theirs in pairs]
    ratios = [mine / theirs for mine, theirs in speeds]
    value = median(ratios)
    context = {
        "precision": precision,
        "bf16_in_hardware": _has_bf16(),
        "ours_rows_per_cpu_second": round(median(mine for mine, _ in speeds)),
        "theirs_rows_per_cpu_second": round(median(theirs for _, theirs in speeds)),
        "steps": pairs[0][0]["steps"],
    }
    ok = True if bar is None else value >= bar
    yield Figure(name, value, "ratio", bound, ok, [min(ratios), max(ratios)], context)
    gains = [mine["auc"] - theirs["auc"] for mine, theirs in pairs]
    gain, both = median(gains), {"ours": pairs[0][0]["auc"], "theirs": pairs[0][1]["auc"]}
    yield Figure(f"{name}.auc", gain, "difference", ">= 0", gain >= 0, [min(gains), max(gains)], both)


def _against_fbgemm(path: Path, num_ids: int) -> Iterator[Figure]:
    """Row-wise Adagrad on both sides, the same dense part; at each precision that the processor has, and at the last
    one with both dense parts compiled."""
    forms: list[tuple[str, list[str]]] = [(precision, []) for precision in precisions()]
    for precision, options in [*forms, (precisions()[-1], ["--compile"])]:
        turns: list[dict[str, dict[str, Any] | Absent]] = [
            {
                "ours": _ours(path, "dnn", precision, *options),
                "fbgemm": run("fbgemm_train.py", path, "--precision", precision, *options),
            }
            for _ in range(TURNS)
        ]
        name = f"train.dnn.{SIZES[num_ids]}.{precision}.{'compiled.' if options else ''}vs_fbgemm"
        yield from _ratios(name, turns, "fbgemm", FBGEMM_BAR, precision)


def bound(quick: bool) -> Iterator[Figure]:
    """Bar b: the dense part alone, as plain torch does it on fixed input with fused Adam, over our whole step."""
    data = table(8 * BATCH, 200_000)
    for model in ("dnn",) if quick else ("dnn", "dcnv2"):
        for precision in precisions():
            works = [_dense(model, precision)]
            kinds = (False,) if quick else (False, True)
            for compiled in kinds:
                student = Student(model, 200_000, bf16=precision == "bf16", compile=compiled)
                works.append(Running(student, data).step)
            turns = in_turns(works, times=3 if quick else 10, turns=3 if quick else 5)
            for place, compiled in enumerate(kinds, 1):
                ratios = [turn[0] / turn[place] for turn in turns]
                value, bar = median(ratios), BOUND_BARS[compiled]
                name = f"train.{model}.200k.{precision}.{'compiled.' if compiled else ''}vs_bound"
                context = {"rows_per_cpu_second": round(BATCH / median(turn[place] for turn in turns))}
                yield Figure(name, value, "ratio", f">= {bar}", value >= bar, [min(ratios), max(ratios)], context)


def _dense(model: str, precision: str) -> Callable[[], None]:
    """A step of the dense part alone: embedded rows are given, and need a gradient."""
    sys.path.insert(0, str(HERE / "peers"))
    from dense import Dense, trainer
    from rows import EMBEDDING

    numeric, embedded = torch.randn(BATCH, 13), torch.randn(BATCH, 26 * EMBEDDING).mul_(0.1).requires_grad_()
    labels = (torch.rand(BATCH) < 0.3).float()
    step = trainer(Dense(model, 13, 26), precision)

    def work() -> None:
        embedded.grad = None
        step(numeric, embedded, labels)

    return work


def growth(quick: bool) -> Iterator[Figure]:
    """A step over one on a fifth of the ids, and the step of a dense table over one row by row."""
    data = {num_ids: table(4 * BATCH, num_ids) for num_ids in SIZES}

    def running(num_ids: int, embedding: str = "rowwise_adagrad") -> Callable[[], None]:
        return Running(Student(num_ids=num_ids, embedding=embedding), data[num_ids]).step

    works = [running(200_000), running(1_000_000), running(1_000_000, "lazy_adam"), running(1_000_000, "dense")]
    turns = in_turns(works, times=2 if quick else 8, turns=3, warm=2)
    wanted = {
        "train.dnn.1m_over_200k": (1, 0, "<= 1.15", lambda x: x <= 1.15),
        "train.dnn.1m.lazy_adam_over_rowwise_adagrad": (2, 1, "reported", lambda _: True),
        "train.dnn.1m.dense_over_row_wise": (3, 1, "reported", lambda _: True),
    }
    for name, (above, below, bar, holds) in wanted.items():
        ratios = [turn[above] / turn[below] for turn in turns]
        value = median(ratios)
        yield Figure(name, value, "ratio", bar, holds(value), [min(ratios), max(ratios)])


def _crossed(by: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Callable[[], torch.Tensor]:
    """A cross layer's step on a batch of DCN-V2's features, forward and backward, all gradients side by side."""
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(BATCH, 13 + 26 * WIDTH, generator=generator) for _ in range(5)]
    leaves = [
        value.to(dtype).requires_grad_()
        for value, dtype in zip(values[:3], (torch.float32, torch.bfloat16, torch.float32), strict=True)
    ]

    def work() -> torch.Tensor:
        wide, narrow = by(*leaves)
        pulled = torch.autograd.grad((wide, narrow), leaves, (values[3], values[4].to(torch.bfloat16)))
        return torch.cat([wide, *(one.float() for one in pulled)])

    return work


def _cross_by_torch(
    features: torch.Tensor, product: torch.Tensor, crossed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    total = features * product + crossed
    return total, total.to(product.dtype)


def rows(quick: bool) -> Iterator[Figure]:
    """Gradients of a batch added up by row, embeddings of a batch gathered narrow, and a cross layer, each over the
    plain way; the same bits."""
    ids = table(BATCH, 200_000).categorical
    seen, places = ids.flatten().unique(return_inverse=True)
    values, window = torch.randn(len(places), WIDTH), torch.randn(len(seen), WIDTH)
    ways: dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]] = {
        "added": (
            lambda: added(values, places, len(seen)),
            lambda: values.new_zeros(len(seen), WIDTH).index_add_(0, places, values),
        ),
        "narrow": (
            lambda: read(window, places, torch.bfloat16),
            lambda: window.index_select(0, places).to(torch.bfloat16),
        ),
        "cross": (_crossed(cross), _crossed(_cross_by_torch)),
    }
    for name, (ours, plain) in ways.items():
        turns = in_turns([ours, plain], times=10, turns=5 if quick else 40)
        ratios = [turn[0] / turn[1] for turn in turns]
        same = torch.equal(ours(), plain())
        context = {"milliseconds": round(1e3 * median(turn[0] for turn in turns), 2)}
        yield Figure(f"train.rows.{name}.vs_plain", median(ratios), "ratio", "printed, same bits", same,
                     [min(ratios), max(ratios)], context)  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    main("How fast students train.", {"peers": peers, "bound": bound, "growth": growth, "rows": rows})
