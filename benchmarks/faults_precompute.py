"""SIGKILL of `tgeokd precompute`, and the same command afterwards: the rest, and nothing that was finished."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults_children import end, killed_at_random, start, undisturbed
from faults_steps import Board
from faults_work import NAME, QUICKLY, precompute_words, tgeokd

from tgeokd_ray.artifacts import open_artifact, verify
from tgeokd_ray.artifacts.files import ENTRY
from tgeokd_ray.artifacts.names import versions
from tgeokd_ray.pipeline.engine import LocalEngine

REPOSITORY = Path(__file__).resolve().parent.parent
# Inode and time of change of a finished file: a file that is written again has others.
Finished = dict[str, tuple[int, int]]


@dataclass
class Tally:
    """What the kills found. `again` counts finished shards that were scored or written once more."""

    kills: int = 0
    returned: int = 0
    finished: list[int] = field(default_factory=list)
    again: int = 0
    faults: list[str] = field(default_factory=list)


def forked_kills(inputs: Path, folder: Path, count: int, dice: random.Random) -> Tally:
    """Kills of forked children that call what the command calls; each is followed by the same command to its end."""
    board, tally, root, log = Board(), Tally(), folder / "forked", folder / "log.txt"

    def command() -> None:
        tgeokd(*precompute_words(inputs, root), *QUICKLY, log=log)

    times = []
    for _ in range(5):
        shutil.rmtree(root, ignore_errors=True)
        undisturbed(command, board)
        times.append(board.seconds)
    expected, seconds = digest(root), sorted(times)[2]
    while tally.kills < count:
        shutil.rmtree(root, ignore_errors=True)
        if killed_at_random(command, board, seconds, dice) is None:
            tally.returned += 1
            continue
        tally.kills += 1
        finished, notes = finished_shards(root), folder / "items.json"
        tally.finished.append(len(finished))
        tally.faults += not_whole(root)
        code = end(start(lambda notes=notes: noting_items(command, notes)))
        handed = json.loads(notes.read_text())
        tally.again += sum(any(name in item for item in handed) for name in finished)
        _compare(tally, root, finished, expected, code)
    return tally


def process_kills(inputs: Path, folder: Path, count: int, dice: random.Random, *more: str, per_root: int = 1) -> Tally:
    """Kills of real processes, `per_root` after another on one root, then the same command to its end."""
    tally, root = Tally(), folder / "processes"
    arguments = [*precompute_words(inputs, root), *more]
    seconds = _watched(arguments, root)
    expected = digest(root)
    while tally.kills < count:
        shutil.rmtree(root, ignore_errors=True)
        finished: list[Finished] = []
        while len(finished) < per_root and not list(versions(root / "logits" / NAME)):
            if not killed_process(arguments, root, dice.uniform(0, seconds)):
                tally.returned += 1
                break
            tally.kills += 1
            finished.append(finished_shards(root))
            tally.finished.append(len(finished[-1]))
            tally.faults += not_whole(root)
        code = _process(arguments).wait(300)
        for shards in finished:
            _compare(tally, root, shards, expected, code)
    return tally


def killed_process(arguments: Sequence[str], root: Path, seconds: float) -> bool:
    """SIGKILL a process `seconds` after its first finished file, and wait for the processes it started."""
    import psutil

    spawned, process = time.time(), _process(arguments)
    while not _began(root, spawned) and process.poll() is None:
        time.sleep(0.001)
    time.sleep(seconds)
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    killed = process.wait() < 0
    psutil.wait_procs(family, timeout=20)  # the workers of a cluster outlive their driver a little
    return killed


def finished_shards(root: Path) -> Finished:
    """The shards that have an entry in a staging folder, or lie in a version; class means are computed anew."""
    home = root / "logits" / NAME
    names = {path: path.name for version in versions(home) for path in version.glob("*.parquet")}
    for entry in home.glob(f".staging-*/*.parquet{ENTRY}"):
        file = entry.parent / "files" / entry.name.removesuffix(ENTRY)
        if file.exists():
            names[file] = file.name
    return {name: (path.stat().st_ino, path.stat().st_mtime_ns) for path, name in names.items()}


def noting_items(command: Callable[[], object], notes: Path) -> None:
    """Run a command and note what it hands to the engine. Only for a child."""
    items: list[str] = []
    plain = LocalEngine.map

    def noting(self: LocalEngine, function: Any, given: Iterable[Any], *, stage: str) -> Iterator[Any]:
        todo = list(given)
        items.extend(map(repr, todo))
        return plain(self, function, todo, stage=stage)

    LocalEngine.map = noting  # type: ignore[assignment,method-assign]
    command()
    notes.write_text(json.dumps(items))


def not_whole(root: Path) -> list[str]:
    return [str(problem) for path in versions(root / "logits" / NAME) for problem in verify(path)[0]]


def digest(root: Path) -> str:
    return open_artifact(root / "logits" / NAME / "v000001", level="full").digest


def _compare(tally: Tally, root: Path, finished: Finished, expected: str, code: int) -> None:
    tally.faults += not_whole(root)
    if code or digest(root) != expected:
        tally.faults.append(f"the same command ended with exit code {code} or another digest")
    now = finished_shards(root)
    tally.again += sum(now.get(name) != stamp for name, stamp in finished.items())


def _process(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    path = f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return subprocess.Popen(
        [sys.executable, "-m", "tgeokd_ray.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _watched(arguments: Sequence[str], root: Path) -> float:
    """Seconds from the first finished file to the version, in an undisturbed process."""
    spawned, process = time.time(), _process(arguments)
    while not _began(root, spawned) and process.poll() is None:
        time.sleep(0.001)
    began = time.monotonic()
    while not list(versions(root / "logits" / NAME)) and process.poll() is None:
        time.sleep(0.001)
    seconds = time.monotonic() - began
    if process.wait(300):
        raise RuntimeError("the undisturbed run failed")
    return seconds


def _began(root: Path, spawned: float) -> bool:
    """Whether a process that was spawned then finished a file; earlier attempts may have left some as well."""
    entries = (root / "logits" / NAME).glob(f".staging-*/*{ENTRY}")
    with suppress(FileNotFoundError):  # the folder became a version meanwhile
        return any(entry.stat().st_mtime > spawned for entry in entries)
    return False
