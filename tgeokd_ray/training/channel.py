"""How the given labels of a table came about: a channel fitted to students that judge rows they have not seen.

N rows, C classes, F folds, M teachers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tgeokd_ray.artifacts import Artifact, staging, write_json
from tgeokd_ray.events import Progress
from tgeokd_ray.feed.batches import Rows, decode
from tgeokd_ray.feed.beside import like_shard, write_beside
from tgeokd_ray.feed.channels import COLUMNS
from tgeokd_ray.feed.folds import fold_of
from tgeokd_ray.feed.rows import collect
from tgeokd_ray.feed.wanted import Wanted
from tgeokd_ray.objectives.channel import Channel, fit_channel
from tgeokd_ray.training.data import train_rows
from tgeokd_ray.training.reuse import parents
from tgeokd_ray.training.scoring import Predictor
from tgeokd_ray.training.segments import by_class, by_column
from tgeokd_ray.training.spec import RunSpec

SUSPICIOUS = 0.1  # of a denoised label: what the given class has of it


@dataclass(frozen=True)
class Judged:
    """All rows of a channel in stored order, and what is known of them: `known` [N] bool tells those that have a label
    and a teacher; `targets` and `hard_targets` [N, C] are the label itself for others, zero for those without one."""

    rows: Rows
    known: Tensor
    channel: Channel
    targets: Tensor
    hard_targets: Tensor

    @property
    def weights(self) -> Tensor:
        """What each row counts for, [N]: 0 where it is not known."""
        return self.rows.weights * self.known

    @property
    def suspicious(self) -> Tensor:
        """Whether the given label is most likely wrong, [N] bool."""
        return self.known & (self.targets.gather(1, self.rows.labels.clamp_min(0).unsqueeze(1)).squeeze(1) < SUSPICIOUS)


def fit_run(spec: RunSpec, progress: Progress) -> Artifact:
    """Fit the channel of a run of the kind "channels" and commit it: `channels/NAME` with a shard like each of the
    table's, and in `metrics.json` held-out losses, mean credibility and noise, over all rows and by segment.

    All rows of its splits are in the memory of this process, and the fit is in float64.
    """
    began = time.monotonic()
    wanted = train_rows(spec)
    progress.started(spec.name, wanted.rows)
    judged = judge(spec, wanted)
    values = {
        "credibility": judged.channel.credibility,
        "noise": judged.channel.noise,
        "teacher_part": judged.channel.teacher_part,
        "offset": judged.channel.offset,
        "target": judged.targets,
        "hard_target": judged.hard_targets,
    }
    metrics = {"channel": told(judged, wanted), "history": []}
    with staging(spec.root, spec.kind, spec.artifact, arguments=spec.arguments(), parents=parents(spec)) as stage:
        first = 0
        for shard in dict.fromkeys(unit.shard for unit in wanted.units):
            entry = wanted.table.entry(shard)
            part = slice(first, first + (entry.rows or 0))
            own = {name: value[part].float().numpy() for name, value in values.items()}
            write = partial(_shard, judged.rows.row_id[part], own, list(entry.extra["groups"]))
            stage.write(shard, write, rows=entry.rows, extra=like_shard(entry))
            first = part.stop
        stage.write("metrics.json", lambda path: write_json(path, metrics))
        schema = {"splits": list(spec.splits), "classes": list(wanted.table.classes)}
        return stage.commit(schema=schema, record={"seconds": time.monotonic() - began})


def judge(spec: RunSpec, wanted: Wanted) -> Judged:
    """The channel of all rows wanted; each is judged by the student of its own fold, which has not learned from it."""
    num_classes = len(wanted.table.classes)
    parts = (decode(piece, num_classes) for piece in wanted.direct()(wanted.units))
    first = next(parts)
    rows = collect((part for group in ([first], parts) for part in group), first, wanted.rows).as_batch()
    folds = torch.from_numpy(fold_of(rows.row_id.numpy(), spec.folds).astype(np.int64))
    student = _out_of_fold(spec, rows, folds, num_classes)
    teacher, scored = mean_teacher(rows, student)
    known = (rows.labels >= 0) & scored
    labels = rows.labels.clamp_min(0)
    features = rows.numeric if wanted.table.image is None else None  # pixels by themselves say nothing to a small net
    channel = fit_channel(
        student, teacher, labels, folds, rows=features, row_weights=rows.weights * known, seed=spec.data_seed
    )
    given = one_hot(labels, num_classes) * (rows.labels >= 0).unsqueeze(1)
    soft, hard = (torch.where(known.unsqueeze(1), q, given) for q in (channel.targets, channel.hard_targets))
    return Judged(rows, known, channel, soft, hard)


def _out_of_fold(spec: RunSpec, rows: Rows, folds: Tensor, num_classes: int) -> Tensor:
    """Probabilities [N, C] by the judge of each row's fold."""
    found = torch.empty(len(rows), num_classes, dtype=torch.float64)
    for fold, path in enumerate(spec.judges):
        own = (folds == fold).nonzero().squeeze(1)
        logits = Predictor(Path(path))(rows.numeric[own], rows.categorical[own])
        found[own] = torch.from_numpy(logits).double().softmax(-1)
    return found


def mean_teacher(rows: Rows, otherwise: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the distributions [N, C] of those teachers that scored a row, and whether any did, [N] bool;
    `otherwise` stands where none did."""
    shares = rows.covered.double() if rows.covered.shape[1] else torch.ones(rows.logits.shape[:2], dtype=torch.float64)
    scored = shares.sum(1) > 0
    mean = (rows.logits.double().softmax(-1) * shares.unsqueeze(-1)).sum(1) / shares.sum(1, keepdim=True).clamp_min(1)
    return torch.where(scored.unsqueeze(1), mean, otherwise), scored


def told(judged: Judged, wanted: Wanted) -> dict[str, Any]:
    """The diagnostics of a channel, JSON-ready: what its likelihoods, means and segments are."""
    channel, weights = judged.channel, judged.weights
    means = {"credibility": channel.credibility, "noise": channel.noise, "suspicious": judged.suspicious.double()}
    total = weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
    return {
        "rows": int(judged.known.sum()),
        "student_nll": channel.student_nll,
        "teacher_nll": channel.teacher_nll,
        "mixture_nll": channel.mixture_nll,
        **{name: float((value * weights).sum() / total) for name, value in means.items()},
        "suspicious_rows": int(judged.suspicious.sum()),
        "by_class": by_class(judged.rows.labels, means, weights, len(wanted.table.classes)),
        "by_column": by_column(judged.rows.numeric, wanted.table.schema["numeric"], means, weights),
    }


def _shard(row_ids: Tensor, values: Mapping[str, Any], groups: list[int], path: Path) -> None:
    write_beside(path, row_ids.numpy(), {name: values[name] for name in COLUMNS}, groups)
