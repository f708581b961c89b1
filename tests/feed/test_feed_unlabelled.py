"""Rows without a label in the feed: served once whatever repeats there are, in no class, and units that add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from feed_fixtures import MemoryReader, make_columns, make_units, pieces

from tgeokd_ray.artifacts import FileEntry
from tgeokd_ray.errors import IntegrityError
from tgeokd_ray.feed import Feed, Sampler, Unit
from tgeokd_ray.feed.class_means import ClassMeans, probabilities
from tgeokd_ray.feed.units import entry_units

ROWS, GROUP = 400, 16
COLUMNS = make_columns(ROWS)
HIDDEN = np.arange(ROWS) % 3 > 0
LABELS = np.where(HIDDEN, -1, COLUMNS.label).astype(np.int32)


def units() -> tuple[Unit, ...]:
    """The units of rows of which two thirds have no label."""
    return tuple(
        replace(unit, labels=tuple(int((LABELS[part] == c).sum()) for c in range(3)))
        for unit, part in zip(make_units(COLUMNS, GROUP), pieces(ROWS, GROUP), strict=True)
    )


@pytest.mark.parametrize("cache_bytes", [1 << 30, 0], ids=["held", "streamed"])
@pytest.mark.parametrize("world", [1, 3])
def test_repeats_are_of_labelled_rows_and_others_come_once(cache_bytes: int, world: int) -> None:
    repeats = (1, 2, 4)
    sampler = Sampler(units(), 50, 5, repeats=repeats)
    reader = MemoryReader(replace(COLUMNS, label=LABELS))
    feeds = [Feed(reader, sampler, rank, world, cache_bytes=cache_bytes) for rank in range(world)]
    served = Counter(int(n) for feed in feeds for rows in feed.batches(0) for n in rows.row_id)
    factor = np.where(HIDDEN, 1, np.asarray(repeats)[COLUMNS.label])
    assert served == dict(zip(COLUMNS.row_id.tolist(), factor.tolist(), strict=True))
    assert sampler.rows == factor.sum()


def test_class_means_are_those_of_labelled_rows() -> None:
    found, expected = ClassMeans(3), ClassMeans(3)
    found.add(COLUMNS.logits, LABELS)
    expected.add(COLUMNS.logits[~HIDDEN], COLUMNS.label[~HIDDEN])
    assert found.counts.tolist() == [int((c == LABELS).sum()) for c in range(3)]
    np.testing.assert_array_equal(found.means, expected.means)
    own = [probabilities(COLUMNS.logits)[c == LABELS].mean(axis=0) for c in range(3)]
    np.testing.assert_allclose(found.means, own, rtol=1e-12)


class TestEntries:
    def entry(self, **extra: object) -> FileEntry:
        facts = {"split": "train", "groups": [5, 3], "labels": [[1, 1, 0], [0, 0, 2]], "unlabelled": [3, 1], **extra}
        return FileEntry("train-00000.parquet", 10, "0" * 64, rows=8, extra=facts)

    def test_rows_of_a_group_are_labelled_or_not(self) -> None:
        found = entry_units(self.entry(), 3)
        assert [(unit.rows, unit.labels) for unit in found] == [(5, (1, 1, 0)), (3, (0, 0, 2))]

    @pytest.mark.parametrize("unlabelled", [[3, 0], [0, 0], [3], [3, 1, 0], []])
    def test_counts_that_do_not_add_up_are_refused(self, unlabelled: list[int]) -> None:
        with pytest.raises(IntegrityError, match="per row group and per class disagree"):
            entry_units(self.entry(unlabelled=unlabelled), 3)
