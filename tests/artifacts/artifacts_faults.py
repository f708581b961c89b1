"""Disks that record, fail or die, and one small artifact to write on them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import DISK, Artifact, Disk, digest, staging

CALLS = ("make_folder", "write", "sync", "sync_folder", "replace", "link", "publish", "remove", "remove_folder")
DATA = {"part-0.bin": b"0" * 3000, "part-1.bin": b"1" * 2000, "part-2.bin": b""}


class Crash(BaseException):
    """The process is dead: nothing catches it, and no later call reaches the disk."""


class TestDisk(Disk):
    """Records each call as (name, last path). At call number `at`, counted from 0, it does as `fault` says.

    `before`: raise and do nothing. `after`: do it, then raise. `half`: leave half of the bytes of a write, then raise.
    An OSError as `error` is raised once; a Crash is raised by every later call too.
    """

    __test__ = False

    def __init__(self, at: int = -1, fault: str = "before", error: Callable[[], BaseException] = Crash) -> None:
        self.calls: list[tuple[str, Path]] = []
        self._at, self._fault, self._error, self._dead = at, fault, error, False

    def run(self, name: str, *arguments: Any) -> None:
        if self._dead:
            raise Crash
        number = len(self.calls)
        self.calls.append((name, next(value for value in reversed(arguments) if isinstance(value, Path))))
        if number != self._at:
            return getattr(Disk, name)(self, *arguments)
        if self._fault != "before":
            getattr(Disk, name)(self, *arguments)
        path = arguments[0]
        if self._fault == "half" and name == "write" and path.stat().st_nlink == 1:  # a linked file is another's too
            os.truncate(path, path.stat().st_size // 2)
        error = self._error()
        self._dead = isinstance(error, Crash)
        raise error


def _wrap(name: str) -> Callable[..., None]:
    return lambda self, *arguments: self.run(name, *arguments)


for call in CALLS:
    setattr(TestDisk, call, _wrap(call))


def make(root: Path, disk: Disk = DISK, *, name: str = "demo", value: int = 0) -> Artifact:
    """Write the artifact ROOT/tables/NAME of three files; finished files of a dead attempt are kept."""
    with staging(root, "tables", name, arguments={"value": value}, parents={}, disk=disk) as work:
        for path, data in DATA.items():
            if path in work.kept:
                work.add(work.kept[path])
            else:
                work.write(path, lambda target, data=data: target.write_bytes(data), rows=len(data))
        return work.commit({"columns": ["a", "b"]}, {"seconds": 0.1})


def reference(tmp_path: Path) -> str:
    """The content digest of an undisturbed run."""
    return make(tmp_path / "reference").digest


def shells(root: Path) -> list[Path]:
    """All staging folders under the root."""
    return sorted(root.glob("*/*/.staging-*"))


def bury(root: Path, **changes: object) -> None:
    """Make every owner under the root another process with our number, which ended before we started."""
    for shell in shells(root):
        lock = shell / "owner.json"
        if lock.exists():
            lock.write_text(json.dumps(json.loads(lock.read_text()) | {"started": "1"} | changes))


def snapshot(folder: Path) -> dict[str, str]:
    """The bytes of every file below a folder, as digests."""
    return {str(p.relative_to(folder)): digest(p.read_bytes().hex()) for p in folder.rglob("*") if p.is_file()}


def crashed(root: Path, *, dead: bool = True) -> Path:
    """A staging folder with one finished file and rubbish."""
    work = staging(root, "tables", "demo", arguments={"value": 0}, parents={})
    work.__enter__()
    work.write("part-0.bin", lambda path: path.write_bytes(DATA["part-0.bin"]))
    (work.folder.parent / "tmp-1-ab-part-1.bin").write_bytes(b"half")
    (work.folder / "part-1.bin").write_bytes(b"no entry")
    (work.folder / "manifest.json").write_bytes(b"{")
    (work.folder.parent / "part-9.bin.entry").write_bytes(b"{")
    (work.folder.parent / ".left-by-a-library").write_bytes(b"half")
    if dead:
        bury(root)
    return work.folder
