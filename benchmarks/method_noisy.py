"""Wrong labels in outer and valid rows too, and nobody to vouch for any: what the channel model gains.

Each regime is written without trust and runs through the ordinary chain, once with its labels as given and once
denoised. Controls are chosen on the labels as given, by their mean over the seeds.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.parquet as pq
from figures import Figure
from quality import REPOSITORY, data

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.metrics import paired_difference
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.tables.cards import load_card
from tgeokd_ray.tables.regimes.catalogue import build, table_of
from tgeokd_ray.tables.regimes.writing import Written, write

# Test NLL of the learned ratio with a channel less that of the constant chosen on noisy valid rows, on record.
RECORD = {
    "synth.flip": -0.1604,
    "digits.both.noisy": -0.3430,
    "nsl_kdd.flip": -0.2433,
    "gas.flip": -0.2328,
    "gas.both.noisy": -0.1912,
}
NULL = "synth.null"
FILES = {
    "nsl_kdd": ("nsl_kdd/KDDTrain+.txt.gz",),
    "gas": ("msu_gas/gas_pipeline_10pct.arff.gz",),
}
PART = 0.8  # of the figure on record
UNHARMED = 0.002  # nats
SEEDS, QUICK_SEEDS = (0, 1, 2, 3, 4), (0, 1)
GRID = (
    "distill.constants=[0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]",
    "distill.more_temperatures=[2]",
    "distill.rivals=[ada, wls]",
)
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """One seed: results by given and by denoised labels, and the suspicious ones against those that were made wrong."""

    given: Results
    denoised: Results
    precision: float
    recall: float


def noisy(quick: bool) -> Iterator[Figure]:
    """Every regime without trust over the seeds; --quick: the synthetic ones, two seeds."""
    for name in [*RECORD, NULL]:
        table = table_of(name)
        files = [] if table is None else data(*FILES[table])
        if files is None or (quick and not name.startswith("synth.")):
            reason = "needs its raw file" if files is None else "not with --quick"
            yield Figure(f"{name}: gain", None, "nats", "", None, context={"reason": reason})
            continue
        yield from _figures(name, [_pair(name, seed, files) for seed in (QUICK_SEEDS if quick else SEEDS)])


def _pair(name: str, seed: int, files: Sequence[str]) -> Pair:
    table = table_of(name)
    card = None if table is None else load_card(str(REPOSITORY / "datasets" / f"{table}.yaml"))
    regime = build(name, card, [Path(file) for file in files])
    kept = os.environ.get("TGEOKD_ROOT")
    with nullcontext(kept) if kept else tempfile.TemporaryDirectory() as place:
        written = write(regime, seed, Path(place) / f"{name}-{seed}", trust=False)
        given, denoised = (_run(written, Path(place), name, seed, channel) for channel in ("off", "on"))
        suspicious = pq.read_table(denoised[1] / "suspicious.parquet")["row_id"].to_pylist()
        truth = pq.read_table(written.truth, columns=["row_id", "flipped"]).to_pydict()
    flipped = {row for row, wrong in zip(truth["row_id"], truth["flipped"], strict=True) if wrong}
    hits = len(flipped & set(suspicious))
    return Pair(given[0], denoised[0], hits / max(len(suspicious), 1), hits / max(len(flipped), 1))


def _run(written: Written, place: Path, name: str, seed: int, channel: str) -> tuple[Results, Path]:
    options = {"card": str(written.card), "data": [str(written.rows)], "root": str(place / f"root-{name}-{seed}")}
    settings = [*GRID, f"seed={seed}", f"run={name}-{seed}-{channel}", f"distill.channel={channel}"]
    settings += [f"teacher.imported.file={path}" for path in written.teachers]
    job, card = resolve(options, settings=settings)
    return run_job(job, card, Place(local=True), Silent())


def _figures(name: str, pairs: Sequence[Pair]) -> Iterator[Figure]:
    given, denoised = [pair.given for pair in pairs], [pair.denoised for pair in pairs]
    learned = [_model(one, "tgeo")["nll"] for one in denoised]
    constant, ada, wls = (_chosen(given, kind) for kind in ("constant", "ada", "wls"))
    context = {"seeds": len(pairs), "constant": mean(constant), "learned": mean(learned)}
    context |= {"learned, labels as given": mean(_model(one, "tgeo")["nll"] for one in given)}
    context |= {f"{kind}, denoised": mean(_chosen(denoised, kind)) for kind in ("constant", "ada", "wls")}
    if name == NULL:
        bar = f"<= {UNHARMED} above the same with labels as given"
        yield _difference(
            f"{name}: harm", learned, [_model(one, "tgeo")["nll"] for one in given], UNHARMED, bar, context
        )
        return
    least = PART * RECORD[name]
    yield _difference(f"{name}: gain", learned, constant, least, f"<= {PART:g} x {RECORD[name]}", context, below=True)
    for kind, figures in (("ADA", ada), ("WLS", wls)):
        yield _difference(f"{name}: against {kind}", learned, figures, 0.0, "interval below 0", {}, below=True)
    for what, shares in (("precision", [p.precision for p in pairs]), ("recall", [p.recall for p in pairs])):
        yield Figure(f"{name}: suspicious, {what}", mean(shares), "share", "", None, shares, {"reason": "told"})


def _difference(
    name: str,
    these: Sequence[float],
    those: Sequence[float],
    most: float,
    bar: str,
    context: dict[str, Any],
    *,
    below: bool = False,
) -> Figure:
    """The paired mean difference with its 95 % interval; `below`: the interval must not hold 0 either."""
    value, low, high = paired_difference(list(these), list(those))
    ok = value <= most and not (below and high >= 0)
    return Figure(name, value, "nats", bar, ok, [low, high], context)


def _model(results: Results, name: str) -> Results:
    return next(one for one in results["models"] if one["name"] == name)


def _chosen(found: Sequence[Results], kind: str) -> list[float]:
    """Test NLL by seed of the model whose rule is of this kind that is best on valid in the mean over the seeds."""
    names = [one["name"] for one in found[0]["models"] if (one["rule"] or {}).get("kind") == kind]
    best = min(names, key=lambda name: mean(_model(one, name)["valid"]["nll"] for one in found))
    return [_model(one, best)["nll"] for one in found]
