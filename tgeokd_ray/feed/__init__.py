"""From encoded shards and teacher logits to batches: the same rows in the same order for every number of workers."""

from tgeokd_ray.feed.batches import Feed
from tgeokd_ray.feed.reader import DirectReader, UnitReader
from tgeokd_ray.feed.rows import Rows, decode
from tgeokd_ray.feed.sampler import LANES, Sampler, oversampling_factors
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.feed.units import Unit

__all__ = [
    "LANES",
    "DirectReader",
    "EncodedTable",
    "Feed",
    "LogitsTable",
    "Rows",
    "Sampler",
    "Unit",
    "UnitReader",
    "decode",
    "oversampling_factors",
]
