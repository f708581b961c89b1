"""Columns of very many distinct texts: bounded work before the error, and buckets that list nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from raw_files import make_card

from tgeokd_ray.errors import DataError
from tgeokd_ray.tables.encoders import Partial, fit_encoder, fit_partial

ROWS = 100_000


def part(card, number: int) -> Partial:  # type: ignore[no-untyped-def]
    """Texts that no other part has."""
    numbers = np.arange(number * ROWS, (number + 1) * ROWS)
    return fit_partial(card, pa.table({"c": pa.array(numbers).cast(pa.string())}), numbers)


def test_d12_of_five_million_distinct_texts_no_more_are_read_than_the_limit_allows() -> None:
    card = make_card(columns={"categorical": ["c"]})
    taken = 0

    def parts() -> Iterator[Partial]:
        nonlocal taken
        for taken in range(1, 51):
            yield part(card, taken)

    with pytest.raises(DataError, match="at most 300000; got at least 1100000") as caught:
        fit_encoder(card, parts(), max_distinct=300_000)
    assert taken == 11, "a million rows are gathered before they are counted together"
    assert "`buckets`" in str(caught.value.fix)


def test_d12_buckets_keep_no_list_of_values() -> None:
    card = make_card(columns={"categorical": [{"name": "c", "buckets": 1000}]})
    encoder = fit_encoder(card, (part(card, number) for number in range(3)), max_distinct=10)
    assert len(json.dumps(encoder.to_json())) < 1000
    ids = encoder.transform(pa.table({"c": pa.array(np.arange(3 * ROWS)).cast(pa.string())}))[1][:, 0]
    assert np.bincount(ids, minlength=encoder.num_ids)[-1000:].min() > 200, "about 300 in each"
