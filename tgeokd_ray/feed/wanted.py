"""What a run asks of a table: which rows, and what stands beside them."""

from __future__ import annotations

from dataclasses import dataclass

from tgeokd_ray.feed.channels import ChannelColumn
from tgeokd_ray.feed.ratios import RatiosTable
from tgeokd_ray.feed.reader import DirectReader
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.feed.units import Unit

Key = tuple[str, bool, tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Wanted:
    """Rows of one or more splits, as the table shows them, with each teacher's logits and each stored ratio beside, and
    what a channel says of them."""

    table: EncodedTable
    splits: tuple[str, ...]
    logits: tuple[LogitsTable, ...] = ()
    ratios: tuple[RatiosTable, ...] = ()
    channel: ChannelColumn | None = None

    @property
    def units(self) -> tuple[Unit, ...]:
        """The row groups, split by split, in stored order."""
        return tuple(unit for split in self.splits for unit in self.table.units(split))

    @property
    def rows(self) -> int:
        return sum(unit.rows for unit in self.units)

    def direct(self) -> DirectReader:
        """What reads them, from files that this process sees."""
        return DirectReader(self.table, self.logits, *self.splits, ratios=self.ratios, channel=self.channel)

    @property
    def key(self) -> Key:
        """What tells it from others: equal for the same rows with the same beside them."""
        logits, ratios = (tuple(str(one.artifact.path) for one in part) for part in (self.logits, self.ratios))
        told = self.channel
        channel = () if told is None else (str(told.channel.artifact.path), told.name)
        return str(self.table.artifact.path), self.table.whole, logits, ratios, channel, self.splits
