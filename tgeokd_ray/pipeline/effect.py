"""What the learned ratio did, for results.json: the sums of all shards as means that a reader can look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tgeokd_ray.artifacts import Artifact, file_sha256, inputs_digest, open_artifact, read_json, write_json
from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import ConfigError, IntegrityError, Problem, UserError
from tgeokd_ray.pipeline.engine import Engine
from tgeokd_ray.pipeline.segments import segments_of
from tgeokd_ray.training.reuse import load_metrics
from tgeokd_ray.training.spec import Finished

if TYPE_CHECKING:
    from tgeokd_ray.training.effect import Segment, Sums, Truth

EFFECT = 1  # raised when the same ratios are to be told otherwise than before
HISTOGRAM_BINS = 20
MOST_COLUMNS, MOST_VALUES = 4, 10
CURVES = ("ratio", "ratio_p10", "ratio_p50", "ratio_p90")

Record = dict[str, Any]


@dataclass(frozen=True)
class Learned:
    """The stored ratio that a choice tells of: the chosen one, or the best candidate where a constant was chosen."""

    ratios: Artifact
    choice: Mapping[str, Any]

    @classmethod
    def of(cls, students: Sequence[Finished], root: Path) -> Learned | None:
        """None where no run chose among stored ratios, which are parents of what it left behind."""
        run = next((run for run in students if "choice" in run.metrics), None)
        if run is None:
            return None
        choice, parents = run.metrics["choice"], open_artifact(Path(run.artifact)).manifest.parents
        source = choice.get("best", choice["chosen"])["source"]
        parent = parents["ratios"] if "ratios" in parents else parents[f"ratios_{source}"]
        return cls(open_artifact(root / parent.label), choice)

    @property
    def point(self) -> Mapping[str, Any]:
        """The candidate: its strength, shift, temperature and source."""
        best: Mapping[str, Any] = self.choice.get("best", self.choice["chosen"])
        return best

    @property
    def told(self) -> Record:
        """Strength, shift and temperature, where the ratio lies, and its course over the epochs of the first phase."""
        point = {name: self.point[name] for name in ("strength", "shift", "temperature")}
        learned = any(entry.path == "metrics.json" for entry in self.ratios.manifest.files)
        history = load_metrics(self.ratios)["history"] if learned else ()
        training = [{"epoch": entry["epoch"], **{key: entry.get(key) for key in CURVES}} for entry in history]
        return {**point, "artifact": self.ratios.label, "training": training}


def check_truth(job: Job) -> None:
    """ConfigError where `distill.truth` is no Parquet file with the columns row_id, region and ratio_teacher_0."""
    if job.distill.truth is None:
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(job.distill.truth).names
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"distill.truth: {job.distill.truth} can not be read: {error}") from None
    missing = [name for name in ("row_id", "region", "ratio_teacher_0") if name not in names]
    if missing:
        raise ConfigError([Problem("this column is missing", job.distill.truth, name) for name in missing])


def ratio_effect(
    job: Job,
    table: Artifact,
    logits: Sequence[Artifact],
    learned: Learned,
    engine: Callable[[], Engine],
    folder: Path,
) -> Record:
    """What the ratio does on the rows that it was learned on and that have a label.

    The answer is kept in `folder`, and given again where the question is the same.
    """
    question = {"effect": EFFECT, "point": dict(learned.point), "segments": list(job.distill.segments)}
    question |= {} if job.distill.truth is None else {"truth": file_sha256(Path(job.distill.truth))}
    parents = {"table": table, "ratios": learned.ratios, **{f"logits_{m}": one for m, one in enumerate(logits)}}
    digest = inputs_digest("effect", question, {role: one.as_parent() for role, one in parents.items()})
    kept = folder / f"{digest[:16]}.json"
    with suppress(FileNotFoundError, IntegrityError):
        return dict(read_json(kept))
    segments = segments_of(table, job.distill.segments)
    truth = _truth(job)
    sums = _counted(table, logits, learned, [segment for segment, _ in segments], truth, engine)
    classes = table.manifest.schema["classes"]
    means, medians = _means(sums, "class"), learned.ratios.manifest.schema.get("median_distances", ())
    told = {
        "rows": int(sums["rows/class"].sum()),
        "mean": _mean(sums["sums/class"].sum(), sums["rows/class"].sum()),
        "histogram": _histogram(sums["rows/bins"]),
        "by_class": {name: one["mean"] for name, one in zip(classes, means, strict=True)},
        "geometry": [{"median_distance": median, **_geometry(sums, m)} for m, median in enumerate(medians)],
        "segments": _by_column(sums, segments, asked=bool(job.distill.segments)),
        **({} if truth is None else {"truth": _against(sums, truth)}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(kept, told)
    return told


def _truth(job: Job) -> Truth | None:
    if job.distill.truth is None:
        return None
    import pyarrow.parquet as pq

    from tgeokd_ray.training.effect import Truth

    regions = pq.read_table(job.distill.truth, columns=["region"]).column("region").unique().to_pylist()
    return Truth(str(Path(job.distill.truth).resolve()), tuple(sorted(regions)))


def _counted(
    table: Artifact,
    logits: Sequence[Artifact],
    learned: Learned,
    segments: Sequence[Segment],
    truth: Truth | None,
    engine: Callable[[], Engine],
) -> Sums:
    from tgeokd_ray.objectives.rules import Given
    from tgeokd_ray.training.effect import CountEffect, add_up

    paths = tuple(str(one.path) for one in logits)
    rule = Given(0, learned.point["strength"], learned.point["shift"], learned.ratios.manifest.schema["mean"])
    count = CountEffect(str(table.path), paths, str(learned.ratios.path), rule, tuple(segments), truth)
    shards = [entry.path for entry in learned.ratios.manifest.files if "split" in entry.extra]
    parts = []
    for part in engine().map(count, sorted(shards), stage="ratio"):
        if isinstance(part, UserError):
            raise part
        parts.append(part)
    return add_up(parts)


def _mean(total: float, rows: float) -> float | None:
    return float(total / rows) if rows else None


def _means(sums: Sums, name: str) -> list[Record]:
    """Rows and mean ratio of each group; the mean of no rows is null."""
    pairs = zip(sums[f"rows/{name}"], sums[f"sums/{name}"], strict=True)
    return [{"rows": int(rows), "mean": _mean(total, rows)} for rows, total in pairs]


def _histogram(rows: np.ndarray[Any, np.dtype[np.float64]]) -> Record:
    counts = rows.reshape(HISTOGRAM_BINS, -1).sum(1)
    return {"edges": [k / HISTOGRAM_BINS for k in range(HISTOGRAM_BINS + 1)], "counts": [int(one) for one in counts]}


def _geometry(sums: Sums, teacher: int) -> Record:
    """Table 4 of the paper for one teacher: right or wrong by its first choice, the student near or far by the median
    of their distance."""
    from tgeokd_ray.training.effect import GEOMETRY

    return dict(zip(GEOMETRY, _means(sums, f"geometry_{teacher}"), strict=True))


def _by_column(sums: Sums, segments: Sequence[tuple[Segment, list[str]]], *, asked: bool) -> list[Record]:
    """The columns asked for, or the four between whose values the mean ratio differs most; of each its ten most
    frequent values and the others together."""
    found = []
    for k, (segment, names) in enumerate(segments):
        groups = [{"value": name, **one} for name, one in zip(names, _means(sums, f"segment_{k}"), strict=True)]
        there = [one for one in groups if one["rows"]]
        ordered = there if segment.cuts else sorted(there, key=lambda one: -one["rows"])
        found.append({"column": segment.name, "spread": _spread(there), **_most(ordered)})
    return found if asked else sorted(found, key=lambda one: -one["spread"])[:MOST_COLUMNS]


def _spread(groups: Sequence[Record]) -> float:
    """The standard deviation of the groups' means over rows."""
    rows, means = (np.array([one[key] for one in groups], dtype=np.float64) for key in ("rows", "mean"))
    centre = (rows * means).sum() / max(rows.sum(), 1)
    return float(np.sqrt((rows * (means - centre) ** 2).sum() / max(rows.sum(), 1)))


def _most(groups: Sequence[Record]) -> Record:
    shown, rest = groups[:MOST_VALUES], groups[MOST_VALUES:]
    rows = sum(one["rows"] for one in rest)
    others = {"values": len(rest), "rows": rows, "mean": _mean(sum(one["rows"] * one["mean"] for one in rest), rows)}
    return {"values": list(shown), "rest": others if rest else None}


def _against(sums: Sums, truth: Truth) -> Record:
    """Correlation with the known ratio, by teacher, null where either is constant; means of both by region."""
    regions = [
        {"region": region, **one, "known": _mean(known, one["rows"])}
        for region, one, known in zip(truth.regions, _means(sums, "region"), sums["known"], strict=True)
    ]
    rows, a, r, aa, rr, ar = sums["moments"].T
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (rows * ar - a * r) / np.sqrt((rows * aa - a * a) * (rows * rr - r * r))
    correlation = [float(one) if np.isfinite(one) else None for one in found]
    return {"rows": int(sums["rows/region"].sum()), "correlation": correlation, "regions": regions}
