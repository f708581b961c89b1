"""The rows of one run on one worker: train batches, outer batches, and sequential passes over any split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tgeokd_ray.errors import DataError
from tgeokd_ray.feed.batches import Feed, Rows, as_stored
from tgeokd_ray.feed.channels import ChannelColumn, ChannelTable
from tgeokd_ray.feed.folds import HiddenFold, of_fold
from tgeokd_ray.feed.ratios import RatiosTable
from tgeokd_ray.feed.reader import UnitReader
from tgeokd_ray.feed.sampler import Sampler, oversampling_factors
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.feed.wanted import Wanted
from tgeokd_ray.objectives.settings import OUTER_RULES
from tgeokd_ray.training.augment import Augmentation
from tgeokd_ray.training.scoring import Predictor
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.worker import Worker

OUTER_SEED = 7_919
EVALUATED_IMAGES = 512  # at once: the maps of a network on an image are a hundred times as large as the image


class Source(Protocol):
    """Where rows and class means come from: the files themselves, or a cluster's streams and its object store."""

    def reader(self, wanted: Wanted) -> UnitReader:
        """A reader of the units wanted, with logits and ratios beside the rows."""

    def rows(self, wanted: Wanted) -> Rows | None:
        """The rows in stored order where they lie in memory that workers share; None: read them."""

    def class_means(self, logits: LogitsTable) -> NDArray[np.float32]:
        """Mean teacher distribution per class, [C, C]."""


class DirectSource:
    """Files on a disk that this process sees, read ahead by a thread."""

    def reader(self, wanted: Wanted) -> UnitReader:
        return wanted.direct()

    def rows(self, wanted: Wanted) -> Rows | None:
        del wanted
        return None

    def class_means(self, logits: LogitsTable) -> NDArray[np.float32]:
        return np.asarray(logits.class_means, dtype=np.float32)


@dataclass
class OuterStream:
    """Random access to the outer batches in their endless order: batch j is step j mod S of epoch j div S."""

    feed: Feed
    _next: int = 0
    _batches: Iterator[Rows] = field(default_factory=lambda: iter(()))

    def at(self, index: int) -> Rows:
        """The rows of outer batch `index` on this worker; consecutive indices read on, any other index seeks."""
        epoch, step = divmod(index, self.feed.steps_per_epoch)
        if index != self._next or step == 0:
            self._batches = self.feed.batches(epoch, start_step=step)
        self._next = index + 1
        return next(self._batches)


@dataclass(frozen=True)
class RunData:
    """Opened artifacts of a run and its feeds. `outer` is None where no rule asks for such rows; `class_means`
    [M, C, C] holds the mean teacher distribution of the train rows of every class. With `held_out`, (fold, folds), the
    pass over valid is over the train rows of that fold. `augmentation` is of inner batches alone; a `live` teacher is
    asked of those."""

    table: EncodedTable
    logits: tuple[LogitsTable, ...]
    train: Feed
    outer: OuterStream | None
    passes: dict[str, Feed]
    class_means: Tensor
    evaluation_rows: int
    held_out: tuple[int, int] | None = None
    augmentation: Augmentation | None = None
    live: Predictor | None = None

    def taught(self, rows: Rows, epoch: int, device: torch.device) -> Rows:
        """The rows of an inner batch on the device as they teach: images moved, a live teacher's logits beside them."""
        rows = (rows if self.augmentation is None else self.augmentation(rows, epoch)).to(device)
        if self.live is None:
            return rows
        return replace(rows, logits=self.live.tensor(rows.numeric, rows.categorical).unsqueeze(1))

    def sequential(self, split: str) -> Iterator[Rows]:
        """This worker's share of the split, in stored order, without logits."""
        batches = self.passes[split].sequential(self.evaluation_rows)
        if split != "valid" or self.held_out is None:
            return batches
        fold, folds = self.held_out
        return (of_fold(rows, fold, folds) for rows in batches)


def train_rows(spec: RunSpec) -> Wanted:
    """What the inner steps of a run read."""
    table = EncodedTable.open(Path(spec.table), model=spec.kind)
    logits = tuple(LogitsTable.open(Path(path), table) for path in spec.logits)
    ratios = tuple(RatiosTable.open(Path(path), table) for path in spec.ratios)
    offset = _channel(spec, table, "offset") if spec.rule.get("offset") else None
    return Wanted(table, spec.splits, logits, ratios, offset)


def outer_rows(spec: RunSpec, table: EncodedTable) -> Wanted:
    """What the outer steps read: labels as they are, or denoised."""
    return Wanted(table, (spec.outer_split,), channel=_channel(spec, table, "target"))


def valid_rows(spec: RunSpec, table: EncodedTable) -> Wanted:
    """What the best epoch is chosen on, the rows of a held-out fold among others."""
    if spec.held_out:
        return Wanted(table, spec.splits)
    return Wanted(table, ("valid",), channel=_channel(spec, table, "hard_target"))


def _channel(
    spec: RunSpec, table: EncodedTable, name: Literal["target", "hard_target", "offset"]
) -> ChannelColumn | None:
    return None if spec.channel is None else ChannelColumn(ChannelTable.open(Path(spec.channel), table), name)


def all_wanted(spec: RunSpec) -> list[Wanted]:
    """All that `open_data` will ask for, also where there are no rows, which is refused there."""
    train = train_rows(spec)
    outer = [outer_rows(spec, train.table)] if spec.rule["kind"] in OUTER_RULES else []
    test = [Wanted(train.table, ("test",))] if spec.measured else []
    return [train, valid_rows(spec, train.table), *test, *outer]


def open_data(spec: RunSpec, worker: Worker, source: Source, *, outer: bool) -> RunData:
    """Open the artifacts that `spec` names and set up the feeds; DataError for a split without rows."""
    train = train_rows(spec)
    table, logits = train.table, train.logits
    needed = [*spec.splits, *(() if spec.held_out else ("valid",)), *(("test",) if spec.measured else ())]
    for split in (*needed, *((spec.outer_split,) if outer else ())):
        if not table.splits.get(split):
            raise DataError(
                f"split {split!r} of table {table.label} has no rows, and run {spec.name} needs them",
                fix="give it a share under `splits` in the card",
            )

    def feed(wanted: Wanted, rows: int, seed: int, repeats: Sequence[int] | None = None) -> Feed:
        return Feed(
            source.reader(wanted),
            Sampler(wanted.units, rows, seed, repeats=repeats),
            rank=worker.rank,
            world=worker.size,
            cache_bytes=spec.cache_bytes,
            shared=source.rows(wanted),
            prepare=HiddenFold(spec.fold, spec.folds) if spec.folds > 1 and wanted is train else as_stored,
            pinned=worker.device.type == "cuda",
        )

    at_once = spec.evaluation_rows if table.image is None else min(spec.evaluation_rows, EVALUATED_IMAGES)
    counts = table.label_counts(*spec.splits)
    repeats = oversampling_factors(counts, spec.oversample) if spec.oversample > 1 else None
    most = min(spec.fusion.batch_rows, table.splits.get(spec.outer_split, 0))
    passes = {"valid": valid_rows(spec, table)} | ({"test": Wanted(table, ("test",))} if spec.measured else {})
    return RunData(
        table=table,
        logits=logits,
        train=feed(train, spec.batch_rows, spec.data_seed, repeats),
        outer=OuterStream(feed(outer_rows(spec, table), most, spec.data_seed + OUTER_SEED)) if outer else None,
        passes={split: feed(wanted, at_once, 0) for split, wanted in passes.items()},
        class_means=_class_means(logits, source, len(table.classes)),
        evaluation_rows=at_once,
        held_out=(spec.fold, spec.folds) if spec.held_out else None,
        augmentation=Augmentation.of(spec.augment, table.image, spec.data_seed),
        live=None if spec.live is None else Predictor(Path(spec.live), str(worker.device), spec.precision),
    )


def _class_means(logits: Sequence[LogitsTable], source: Source, num_classes: int) -> Tensor:
    """Mean teacher distribution per class, [M, C, C] float32; M = 0 for a teacher's own run."""
    if not logits:
        return torch.zeros(0, num_classes, num_classes)
    return torch.stack([torch.tensor(source.class_means(table), dtype=torch.float32) for table in logits])
