"""The columns by which a report splits the learned ratio: which they are, and what their groups are called."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.validation import did_you_mean

if TYPE_CHECKING:
    from tgeokd_ray.tables.categorical import Space
    from tgeokd_ray.training.effect import Segment

FEW_VALUES = 50  # of a column that is looked at unasked
QUARTERS = (25, 50, 75)
SAMPLED_ROWS = 1 << 17  # of the train split, from which the quarters of a number are cut
RESERVED = ("(missing)", "(rare or unseen)")


def check_segments(job: Job, card: Card) -> None:
    """ConfigError for a column under `distill.segments` that the student does not see."""
    features = [c.name for c in card.columns.numeric] + [c.name for c in card.columns.categorical]
    seen = [name for name in features if name not in card.teacher_only]
    problems = [
        Problem(f"distill.segments: the student sees no column {name!r}{did_you_mean(name, seen)}")
        for name in job.distill.segments
        if name not in seen
    ]
    if problems:
        raise ConfigError(problems, fix=f"name columns of the card {card.name}: {', '.join(seen)}")


def segments_of(table: Artifact, names: Sequence[str]) -> list[tuple[Segment, list[str]]]:
    """The columns called `names`, each with the names of its groups; without any, all categorical columns of at most 50
    values. Groups are the values as they stand in the raw rows, or for a number quarters of the train rows."""
    schema = table.manifest.schema
    places = {item["name"]: index for index, item in enumerate(schema["categorical"])}
    few = [item["name"] for item in schema["categorical"] if item["size"] <= FEW_VALUES + len(RESERVED)]
    spaces = _spaces(table) if places else {}
    return [
        _by_value(name, places[name], spaces[name])
        if name in places
        else _by_quarter(name, schema["numeric"].index(name), table)
        for name in names or few
    ]


def _spaces(table: Artifact) -> dict[str, Space]:
    from tgeokd_ray.tables.views import ENCODER, Encoders

    return dict(Encoders.read([table.file(ENCODER)]).student.categorical)


def _by_value(name: str, index: int, space: Space) -> tuple[Segment, list[str]]:
    from tgeokd_ray.training.effect import Segment

    buckets = [f"bucket {bucket}" for bucket in range(space.size - len(RESERVED))]
    values = buckets if space.values is None else space.values
    return Segment(name, index, offset=space.offset, size=space.size), [*RESERVED, *values]


def _by_quarter(name: str, index: int, table: Artifact) -> tuple[Segment, list[str]]:
    """Quarters with one value between them are one group: of a column that is mostly 0, `0 to 75 %` and the rest."""
    from tgeokd_ray.training.effect import Segment

    cuts = {float(np.quantile(_sample(table, index), q / 100)): q for q in QUARTERS}  # of equal cuts the last
    ends = [0, *cuts.values(), 100]
    return Segment(name, index, cuts=tuple(cuts)), [f"{low} to {high} %" for low, high in pairwise(ends)]


def _sample(table: Artifact, index: int) -> NDArray[np.float32]:
    """A numeric column of the first train rows."""
    from tgeokd_ray.feed.parquet import read_shard

    parts, count = [], 0
    for entry in table.manifest.files:
        if entry.extra.get("split") == "train" and count < SAMPLED_ROWS:
            lists = read_shard(table.file(entry.path), entry.rows or 0, ["numeric"]).column("numeric").combine_chunks()
            parts.append(lists.flatten().to_numpy().reshape(len(lists), -1)[:, index])
            count += len(lists)
    return np.concatenate(parts)
