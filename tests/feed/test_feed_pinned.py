"""Batches for a GPU: the same rows, in memory that it copies by itself."""

from __future__ import annotations

import threading

import pytest
import torch
from feed_fixtures import Columns, make_columns
from test_feed_batches import HELD, STREAM, assert_contract, feed


@pytest.fixture(scope="module")
def columns() -> Columns:
    return make_columns(700)


@pytest.mark.parametrize("cache", [STREAM, HELD])
def test_pinned_batches_are_the_same_and_pinned_on_the_thread(
    columns: Columns, cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU there is no such memory: a copy stands for it."""
    threads = []
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda value: threads.append(threading.current_thread().name) or value.clone()
    )
    for epoch in (0, 1):
        expected = list(feed(columns, cache=cache).batches(epoch, start_step=3))
        found = list(feed(columns, cache=cache, pinned=True).batches(epoch, start_step=3))
        for one, other in zip(found, expected, strict=True):
            assert all(map(torch.equal, one.tensors(), other.tensors()))
            assert_contract(one)
    assert len(threads) == 2 * len(expected) * len(found[0].tensors())
    assert all(name.startswith("batches") for name in threads)
