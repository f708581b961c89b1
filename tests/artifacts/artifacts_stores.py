"""Stores that record, fail or die."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CALLS = ("put", "create", "read", "get", "list", "remove")


class Crash(BaseException):
    """The process is dead: nothing catches it, and no later call reaches the store."""


class FaultyStore:
    """A store, or the folder `below` one, that records each call as (name, key). At call number `at`, counted from 0,
    it raises `error`: `before` it does what it should, or `after`. A Crash is raised by every later call too."""

    def __init__(
        self,
        inner: Any,
        at: int = -1,
        fault: str = "before",
        error: Callable[[], BaseException] = Crash,
        below: str = "",
    ) -> None:
        self.calls: list[tuple[str, str]] = []
        self.url = f"{inner.url}/{below}".rstrip("/")
        self._inner, self._at, self._fault, self._error, self._below = inner, at, fault, error, below
        self._dead = False

    def run(self, name: str, key: str, *rest: Any) -> Any:
        if self._dead:
            raise Crash
        number = len(self.calls)
        self.calls.append((name, key))
        if number != self._at:
            return getattr(self._inner, name)(self._below + key, *rest)
        if self._fault == "after":
            getattr(self._inner, name)(self._below + key, *rest)
        error = self._error()
        self._dead = isinstance(error, Crash)
        raise error


def _wrap(name: str) -> Callable[..., Any]:
    return lambda self, key, *rest: self.run(name, key, *rest)


for one in CALLS:
    setattr(FaultyStore, one, _wrap(one))
