"""Batches made ahead on a thread are the same ones; errors and ends come where they would have."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from tgeokd_ray.feed.ahead import ahead


class Source:
    """Numbers up to `count`, then an error if there is one; notes what was made, by which threads, and its end."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.made: list[int] = []
        self.threads: set[str] = set()
        self.closed = False

    def items(self) -> Generator[int, None, None]:
        try:
            for item in range(self.count):
                self.threads.add(threading.current_thread().name)
                self.made.append(item)
                yield item
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_same_items_in_the_same_order(count: int, depth: int) -> None:
    source = Source(count)
    assert list(ahead(source.items(), depth)) == list(range(count))
    assert source.closed
    assert threading.main_thread().name not in source.threads


def test_no_more_than_asked_for_are_made_ahead() -> None:
    source = Source(50)
    items = ahead(source.items(), 2)
    assert next(items) == 0
    until = time.monotonic() + 20
    while len(source.made) < 3 and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.05)
    assert source.made == [0, 1, 2]
    items.close()


def test_closing_ends_source_and_thread() -> None:
    source, before = Source(50), threading.active_count()
    items = ahead(source.items(), 2)
    next(items)
    items.close()
    assert source.closed
    assert threading.active_count() == before


def test_an_error_comes_where_its_item_would() -> None:
    source = Source(3, ValueError("damaged"))
    items = ahead(source.items(), 5)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="damaged"):
        next(items)
    assert source.closed
