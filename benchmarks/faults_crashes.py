"""A crash at every call by which a writer changes the disk, and the order of those calls."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults_children import end, start
from faults_work import Writer, contents

from tgeokd_ray.artifacts import DISK, collect, open_artifact, verify
from tgeokd_ray.artifacts.files import ENTRY
from tgeokd_ray.artifacts.names import MANIFEST, version_number, versions
from tgeokd_ray.artifacts.owner import FILES, LOCK

# The disks of the tests of the protocol: one that records, fails or dies at a call.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "artifacts"))
from artifacts_faults import Crash, TestDisk

_CRASHED = 9


@dataclass(frozen=True)
class Call:
    """One call of a disk, with all its paths; `inner` where another call made it."""

    name: str
    paths: tuple[str, ...]
    inner: bool = False


class Recorder(TestDisk):
    """Records each call with all its paths, and whether another call made it."""

    __test__ = False
    depth = 0

    def run(self, name: str, *arguments: Any) -> None:
        paths = [str(path) for path in arguments if isinstance(path, Path)]
        self.calls.append((name, paths, self.depth > 0))  # type: ignore[arg-type]
        self.depth += 1
        getattr(super(TestDisk, self), name)(*arguments)
        self.depth -= 1


def put_in_place(disk: type[TestDisk], *options: Any) -> TestDisk:
    """Make the one disk of this process one of the class given. Only for a child."""
    DISK.__class__ = disk
    disk.__init__(DISK, *options)  # type: ignore[arg-type]
    return DISK  # type: ignore[return-value]


def recorded(work: Callable[[], object], notes: Path) -> list[Call]:
    """The calls of an undisturbed run, in order, those that a call makes itself included."""

    def run() -> None:
        disk = put_in_place(Recorder)
        work()
        notes.write_text(json.dumps(disk.calls))

    if end(start(run)):
        raise RuntimeError("the undisturbed run failed")
    return [Call(name, tuple(paths), inner) for name, paths, inner in json.loads(notes.read_text())]


def crash_points(calls: Sequence[Call]) -> Iterator[tuple[int, str]]:
    """Before and after each call, and half way through each write."""
    for at, call in enumerate(calls):
        yield at, "before"
        yield at, "after"
        if call.name == "write":
            yield at, "half"


def crashes(writer: Writer, folder: Path, every: int = 1) -> tuple[int, int, list[str]]:
    """(crash points, those that left a visible version, what was neither absent nor whole) of a writer.

    After each crash the same command is run to its end, and gives the digest of an undisturbed run.
    """
    template, root = folder / "template", folder / "root"
    if end(start(lambda: writer.prepare(template))):
        raise RuntimeError("the earlier version was not made")
    earlier = contents(template / writer.label)
    shutil.copytree(template, root)
    calls = recorded(lambda: writer.write(root), folder / "calls.json")
    expected = open_artifact(root / writer.label / "v000002", level="full").digest
    points, visible, faults = list(crash_points(calls))[::every], 0, list[str]()
    for at, how in points:
        shutil.rmtree(root)
        shutil.copytree(template, root)
        code = end(start(lambda at=at, how=how: _crash(writer, root, at, how)))
        home = root / writer.label
        found = [f"exit code {code}"] if code != _CRASHED else []
        visible += len(list(versions(home))) - 1
        found += _not_whole(home, earlier)
        if end(start(lambda: writer.write(root))) or open_artifact(home / "v000002", level="full").digest != expected:
            found.append("the same command did not end with the same digest")
        collect(root, dry_run=False, min_age_seconds=0)
        found += _not_whole(home, earlier)
        found += [f"left behind: {path.name}" for path in home.iterdir() if version_number(path.name) is None]
        faults += [f"{how} call {at}, {calls[at].name}: {what}" for what in found]
    return len(points), visible, faults


def _crash(writer: Writer, root: Path, at: int, how: str) -> None:
    put_in_place(TestDisk, at, how)
    try:
        writer.write(root)
    except Crash:
        os._exit(_CRASHED)  # nothing is tidied up: the process is dead


def _not_whole(home: Path, earlier: dict[str, str]) -> list[str]:
    now = contents(home / "v000001")
    changed = [] if {f"v000001/{name}": sha256 for name, sha256 in now.items()} == earlier else ["v000001 changed"]
    return changed + [str(problem) for path in versions(home) for problem in verify(path)[0]]


def out_of_order(calls: Sequence[Call]) -> list[str]:
    """What breaks the order in which a file and an artifact become durable, in recorded calls; empty if nothing does.

    A file: written, synced, its old entry removed, renamed, its entry renamed. An artifact: its lock linked before any
    file; after the last file its manifest written and synced, the folder synced, renamed, the parent synced, and the
    lock removed last. No call changes a version.
    """
    outer = [call for call in calls if not call.inner]
    found = [f"{call.name} in a version: {call.paths[-1]}" for call in outer if _changes_a_version(call)]
    for at, call in enumerate(outer):
        if call.name == "replace" and Path(call.paths[1]).parent.name == FILES:
            found += _file(outer, at)
        if call.name == "publish":
            found += _publish(outer, at)
    return found if any(call.name == "publish" for call in outer) else [*found, "nothing was published"]


def _changes_a_version(call: Call) -> bool:
    return call.name not in ("sync", "sync_folder") and version_number(Path(call.paths[-1]).parent.name) is not None


def _file(calls: Sequence[Call], at: int) -> list[str]:
    source, target = calls[at].paths
    sidecar = str(Path(target).parent.parent / f"{Path(target).name}{ENTRY}")
    expected = [
        Call("write", (source,)),
        Call("sync", (source,)),
        Call("remove", (sidecar,)),
        Call("replace", (source, target)),
        Call("write", (source,)),
        Call("replace", (source, sidecar)),
    ]
    around = list(calls[max(at - 3, 0) : at + 3])
    return [] if around == expected else [f"{target}: {[call.name for call in around]}"]


def _publish(calls: Sequence[Call], at: int) -> list[str]:
    files, target = calls[at].paths
    shell, manifest = str(Path(files).parent), str(Path(files) / MANIFEST)
    sealed = [Call("write", (manifest,)), Call("sync", (manifest,)), Call("sync_folder", (files,))]
    lock = [n for n, call in enumerate(calls) if call.name == "link" and call.paths[1] == f"{shell}/{LOCK}"]
    inside = [n for n, call in enumerate(calls[:at]) if any(path.startswith(f"{files}/") for path in call.paths)]
    after = [call for call in calls[at + 1 :] if call.paths[-1].startswith(shell)]
    kept = {
        "manifest and folder are synced before the rename": list(calls[max(at - 3, 0) : at]) == sealed,
        "the parent is synced after it": list(calls[at + 1 : at + 2])
        == [Call("sync_folder", (str(Path(target).parent),))],
        "the lock comes first": lock[:1] < inside[:1],
        "the lock goes last": after[-2:] == [Call("remove", (f"{shell}/{LOCK}",)), Call("remove_folder", (shell,))],
    }
    return [rule for rule, holds in kept.items() if not holds]
