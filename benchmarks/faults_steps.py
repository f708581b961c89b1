"""The steps of the commit protocol, told by a process that will be killed, through memory that its parent shares.

The calls of `Disk` and the file that each touches say which step it is; the code under test is as it is.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tgeokd_ray.artifacts.files as files_module
from tgeokd_ray.artifacts import DISK, Disk
from tgeokd_ray.artifacts.names import MANIFEST
from tgeokd_ray.artifacts.owner import FILES, LOCK

# `elsewhere` is what happens between the calls: reading, encoding, scoring.
STEPS = (
    "elsewhere",
    "make folder",
    "take lock",
    "remove strays",
    "write shard",
    "sync shard",
    "hash shard",
    "remove old entry",
    "rename shard",
    "write entry",
    "rename entry",
    "write manifest",
    "sync manifest",
    "sync folder",
    "publish rename",
    "sync parent",
    "clear",
)
HOW = ("before", "half", "after")
_STEP, _HELD, _BEGAN, _ENDED, _COUNTS = 0, 1, 2, 3, 8


@dataclass(frozen=True)
class Hold:
    """Stop in the `number`-th call (from 0) of a step: before it, after it, or with a part of the bytes of a write."""

    step: str
    number: int
    how: str


class Board:
    """What a forked child says while it runs: its step, calls per step, nanoseconds of its first call and its end."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, 4096)).cast("q")

    def clear(self) -> None:
        for cell in range(_COUNTS + len(STEPS)):
            self._cells[cell] = 0

    def enter(self, step: str) -> int:
        """Say that a call of this step begins; its number, from 0."""
        if not self._cells[_BEGAN]:
            self._cells[_BEGAN] = time.monotonic_ns()
        number = STEPS.index(step)
        self._cells[_COUNTS + number] += 1
        self._cells[_STEP] = number
        return int(self._cells[_COUNTS + number]) - 1

    def leave(self) -> None:
        self._cells[_STEP] = 0

    def hold(self) -> None:
        """Wait for the signal."""
        self._cells[_HELD] = 1
        time.sleep(30)

    def end(self) -> None:
        self._cells[_ENDED] = time.monotonic_ns()

    @property
    def step(self) -> str:
        return STEPS[self._cells[_STEP]]

    @property
    def held(self) -> bool:
        return bool(self._cells[_HELD])

    @property
    def began(self) -> bool:
        return bool(self._cells[_BEGAN])

    @property
    def ended(self) -> bool:
        return bool(self._cells[_ENDED])

    @property
    def seconds(self) -> float:
        """From the first call to the return."""
        return float(self._cells[_ENDED] - self._cells[_BEGAN]) / 1e9

    @property
    def counts(self) -> dict[str, int]:
        return {step: int(self._cells[_COUNTS + number]) for number, step in enumerate(STEPS)}


class Announcing(Disk):
    """A disk that says each step on a board before and after it, and stops where it was told to."""

    def begin(self, board: Board, hold: Hold | None) -> None:
        self.board, self.stop, self.published = board, hold, False
        self.local = threading.local()

    def make_folder(self, path: Path) -> None:
        self.call("make folder", path, super().make_folder)

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        self.call(self._written(path), path, super().write, write)

    def sync(self, path: Path) -> None:
        self.call(_of(path, "sync manifest", "sync shard"), path, super().sync)

    def sync_folder(self, path: Path) -> None:
        self.call("sync folder" if path.name == FILES else "sync parent", path, super().sync_folder)

    def replace(self, source: Path, target: Path) -> None:
        entry = target.name.endswith(files_module.ENTRY)
        self.call("rename entry" if entry else "rename shard", source, super().replace, target)
        self.local.replaced = None if entry else source

    def link(self, source: Path, target: Path) -> None:
        self.call("take lock", source, super().link, target)

    def publish(self, source: Path, target: Path) -> None:
        self.call("publish rename", source, super().publish, target)
        self.published = True

    def remove(self, path: Path) -> None:
        self.call(self._removed(path), path, super().remove)

    def remove_folder(self, path: Path) -> None:
        self.call("clear", path, super().remove_folder)

    def call(self, step: str, path: Path, act: Callable[..., Any], *arguments: Any) -> Any:
        """One call of the protocol; those that it makes itself belong to it."""
        if getattr(self.local, "inside", False):
            return act(path, *arguments)
        self.local.inside = True
        try:
            number = self.board.enter(step)
            stop = self.stop if self.stop and (step, number) == (self.stop.step, self.stop.number) else None
            if stop and stop.how == "before":
                self.board.hold()
            result = act(path, *arguments)
            if stop and stop.how == "half" and path.stat().st_nlink == 1:  # a file taken over is another version's too
                os.truncate(path, path.stat().st_size // 2)
            if stop:
                self.board.hold()
            return result
        finally:
            self.local.inside = False
            self.board.leave()

    def _written(self, path: Path) -> str:
        entry = path == getattr(self.local, "replaced", None)
        self.local.writing = path.name not in (MANIFEST,)
        return "write entry" if entry else _of(path, "write manifest", "write shard")

    def _removed(self, path: Path) -> str:
        if self.published:
            return "clear"
        if path.name.endswith(LOCK):
            return "take lock"
        old = path.name.endswith(files_module.ENTRY) and getattr(self.local, "writing", False)
        return "remove old entry" if old else "remove strays"


def announce(board: Board, hold: Hold | None = None) -> None:
    """From now on this process says its steps on the board. Only for a child that ends by itself or is killed."""
    DISK.__class__ = Announcing
    disk: Any = DISK
    disk.begin(board, hold)
    plain = files_module.file_sha256
    files_module.file_sha256 = lambda path: disk.call("hash shard", path, plain)


def _of(path: Path, manifest: str, shard: str) -> str:
    if path.name.endswith(LOCK):
        return "take lock"
    return manifest if path.name == MANIFEST else shard
