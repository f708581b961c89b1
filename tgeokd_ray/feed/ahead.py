"""An iterator on a thread of its own, a few items ahead of the consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Generator[Item, None, None], depth: int) -> Iterator[Item]:
    """The same items, up to `depth` of them made before they are asked for; `items` is advanced by one thread alone.

    An error is raised where its item would have come; closing this iterator closes `items` and ends the thread.
    """
    try:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
            pending: deque[Future[list[Item]]] = deque(thread.submit(_next, items) for _ in range(depth))
            try:
                while found := pending.popleft().result():
                    pending.append(thread.submit(_next, items))
                    yield found[0]
            finally:
                for future in pending:
                    future.cancel()
    finally:
        items.close()  # its thread has ended


def _next(items: Generator[Item, None, None]) -> list[Item]:
    """The next item, or none."""
    return [item for _, item in zip(range(1), items, strict=False)]
