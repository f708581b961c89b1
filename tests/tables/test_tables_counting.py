"""Counts of very many distinct texts: exact whatever lies on disk, in bounded memory, and dictionaries that tell texts
apart as plain Python does."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_files import make_card

from tgeokd_ray.errors import DataError
from tgeokd_ray.tables import coding
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.coding import Lookup, coded, coded_texts
from tgeokd_ray.tables.counting import Counter, Counts, counts_of, merge_counts
from tgeokd_ray.tables.encoders import Encoder, count_values, fit_encoder, fit_partial

RNG = np.random.default_rng(6)
WIDE = st.sampled_from(["01234567", "0123456é", "abcdefgh", "é234567", "76543210", "\0\0\0\0\0\0\0\0"])
TEXTS = st.one_of(st.lists(st.none() | WIDE, max_size=40), st.lists(st.none() | st.text(max_size=9), max_size=40))


def columns(rows: int) -> pa.Table:
    """A column of hex digits, one of texts of any length and two that share a space, most values rare."""
    ranks = (5000 ** RNG.random((4, rows))).astype(int)
    texts = [[f"{n:08x}" for n in ranks[0]], [f"v{n}" for n in ranks[1]], *([str(n) for n in row] for row in ranks[2:])]
    return pa.table(dict(zip("abcd", texts, strict=True)))


def card(min_count: int) -> Card:
    shared = [{"name": name, "shared": "s", "min_count": min_count} for name in "cd"]
    return make_card(columns={"categorical": [*({"name": name, "min_count": min_count} for name in "ab"), *shared]})


def fitted(frame: pa.Table, min_count: int, **options: Any) -> Encoder:
    pieces = [(frame[first : first + 700], np.arange(700)) for first in range(0, frame.num_rows, 700)]
    made = card(min_count)
    return fit_encoder(made, (fit_partial(made, piece, ids) for piece, ids in pieces), **options)


@pytest.mark.parametrize("min_count", [1, 2, 4])
@pytest.mark.parametrize("max_held", [0, 500, 3000])
def test_an_encoder_whose_counts_lay_on_disk_is_the_same(min_count: int, max_held: int, tmp_path: Path) -> None:
    frame = columns(7000)
    expected = fitted(frame, min_count).to_json()
    assert fitted(frame, min_count, max_held=max_held, folder=tmp_path).to_json() == expected
    assert list(tmp_path.iterdir()) == []


def test_no_more_counts_are_in_memory_than_allowed(tmp_path: Path) -> None:
    frame = columns(7000)
    counters = {name: Counter(f"column:{name}") for name in "ab"}
    files = 0
    with Counts(counters, tmp_path, 1000) as counts:
        for first in range(0, 7000, 700):
            counts.add((name, count_values(frame[first : first + 700], name)) for name in "ab")
            assert sum(counter.held for counter in counters.values()) <= 1000
        files = len(list(tmp_path.rglob("*.arrow")))
        for name, counter in counters.items():
            found = {v: n for part in counter.parts() for v, n in zip(*part.to_pydict().values(), strict=True)}
            assert found == dict(collections.Counter(frame[name].to_pylist()))
    assert files > 2
    assert list(tmp_path.iterdir()) == []


def test_the_limit_is_of_values_that_are_frequent_enough(tmp_path: Path) -> None:
    made = make_card(columns={"categorical": [{"name": "c", "min_count": 2}]})
    numbers = np.arange(300)
    frame = pa.table({"c": [str(n) for n in [*numbers, *numbers[:100]]]})
    parts = [fit_partial(made, frame, np.arange(400))]
    for max_held in (10, 1000):
        options = {"max_held": max_held, "folder": tmp_path}
        assert fit_encoder(made, parts, max_distinct=100, **options).num_ids == 102
        with pytest.raises(DataError, match=r"that occur 2 times or more.*at most 99; got at least") as caught:
            fit_encoder(made, parts, max_distinct=99, **options)
        assert "`min_count`" in str(caught.value.fix)
        assert list(tmp_path.iterdir()) == []


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_merged_counts_are_those_of_plain_python(lists: list[list[str | None]]) -> None:
    parts = [count_values(pa.table({"c": pa.array(texts, pa.large_string())}), "c") for texts in lists]
    merged = merge_counts(parts)
    plain = collections.Counter(text for texts in lists for text in texts if text is not None)
    assert dict(zip(*merged.to_pydict().values(), strict=True)) == plain
    assert merged.num_rows == len(plain), "each once"


@given(TEXTS, st.integers(0, 3))
def test_dictionaries_hold_what_the_column_held(texts: list[str | None], skipped: int) -> None:
    for kind in (pa.binary(), pa.large_string(), pa.string()):
        column = pa.array([None if text is None else text.encode() for text in texts], pa.binary()).cast(kind)[skipped:]
        for given_column in (column, pa.chunked_array([column, column[1:]])):
            found = coded_texts(given_column)
            words = found.dictionary.cast(pa.large_string())
            assert (
                pa.DictionaryArray.from_arrays(found.indices, words).to_pylist()
                == given_column.cast(pa.large_string()).to_pylist()
            )
            assert len(set(words.to_pylist())) == len(words)


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    raw = [b"\xff" * 8, b"01234567", None]
    found = coded_texts(pa.array(raw, pa.binary()))
    assert found.cast(pa.large_binary()).to_pylist() == raw


@given(st.lists(WIDE, unique=True), st.lists(st.text(max_size=2), unique=True), TEXTS, st.booleans())
def test_a_lookup_finds_what_is_there(wide: list[str], short: list[str], asked: list[str | None], narrow: bool) -> None:
    known = wide if narrow else [*short, *(text for text in wide if text not in short)]
    words = list(dict.fromkeys(text for text in asked if text is not None))
    found = Lookup(pa.array(known, pa.large_string())).find(pa.array(words, pa.large_string()))
    assert found.tolist() == [known.index(word) if word in known else -1 for word in words]


def test_hashes_that_collide_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    known, asked = [f"v{n}" for n in range(50)], [f"v{n}" for n in range(40, 60)]
    expected = [*range(40, 50), *[-1] * 10]
    for distinct in (1, 7, 55):  # hashes that a text of the list has in common with another, or with one asked for

        def few(texts: pa.Array, distinct: int = distinct) -> Any:
            numbers = [int(text[1:]) % distinct for text in texts.to_pylist()]
            return np.array(numbers, dtype=np.uint64)

        monkeypatch.setattr(coding, "in_process_hash", few)
        found = Lookup(pa.array(known, pa.large_string())).find(pa.array(asked, pa.large_string()))
        assert found.tolist() == expected


def test_words_that_no_row_has_are_not_counted() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([2, None, 2], pa.int16()), pa.array(["a", "b", "c"]))
    codes, words = coded(pa.table({"c": column}), "c")
    assert (codes.tolist(), words.to_pylist()) == ([2, 3, 2], ["a", "b", "c"])
    assert count_values(pa.table({"c": column}), "c").to_pylist() == [{"value": "c", "count": 2}]
    assert counts_of(pa.array(["a"], pa.large_string()), np.zeros(1)).num_rows == 0


def test_the_hash_tells_texts_apart() -> None:
    texts = pa.array([f"{n}" for n in range(100_000)], pa.large_string())
    assert pl.Series(coding.in_process_hash(texts)).n_unique() == 100_000
