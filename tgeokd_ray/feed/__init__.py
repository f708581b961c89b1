"""From encoded shards and teacher logits to batches: the same rows in the same order for every number of workers."""

from tgeokd_ray.feed.batches import Feed
from tgeokd_ray.feed.ratios import RatiosTable
from tgeokd_ray.feed.reader import DirectReader, UnitReader
from tgeokd_ray.feed.rows import Rows, decode
from tgeokd_ray.feed.sampler import LANES, Sampler, oversampling_factors
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.feed.units import Unit
from tgeokd_ray.feed.wanted import Wanted

__all__ = [
    "LANES",
    "DirectReader",
    "EncodedTable",
    "Feed",
    "LogitsTable",
    "RatiosTable",
    "Rows",
    "Sampler",
    "Unit",
    "UnitReader",
    "Wanted",
    "decode",
    "oversampling_factors",
]
