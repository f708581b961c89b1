"""Full verification of a large artifact against plain sha256 over the same files, and opening one verified before."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tgeokd_ray.artifacts import Artifact, find, open_artifact, staging, verify

MIB = 1 << 20
PIECE_BYTES = MIB


def large_artifact(root: Path, files: int, file_bytes: int) -> Artifact:
    """An artifact of random bytes."""
    dice = random.Random(5)
    with staging(root, "tables", "large", arguments={}, parents={}, need_bytes=files * file_bytes) as stage:
        for number in range(files):
            stage.write(f"part-{number}.bin", lambda path: _fill(path, file_bytes, dice))
        return stage.commit({})


def pace(artifact: Artifact, repetitions: int) -> dict[str, Any]:
    """Seconds of plain sha256, `verify` and a full opening, in turns over the same files; medians and all of them."""
    seconds: dict[str, list[float]] = {"plain": [], "verify": [], "open": []}
    work: dict[str, Callable[[], object]] = {
        "plain": lambda: plain_sha256(artifact),
        "verify": lambda: _whole(artifact),
        "open": lambda: open_artifact(artifact.path, level="full"),
    }
    for call in work.values():
        call()  # the files are in the page cache from now on
    for turn in range(repetitions):
        names = list(work)[turn % 3 :] + list(work)[: turn % 3]
        for name in names:
            began = time.monotonic()
            work[name]()
            seconds[name].append(time.monotonic() - began)
    return {"seconds": seconds, "median": {name: median(values) for name, values in seconds.items()}}


def seconds_to_open(artifact: Artifact, root: Path, repetitions: int) -> list[float]:
    """Seconds of `find` for an artifact that it verified before; its files must have settled for two seconds."""
    inputs, label = artifact.manifest.inputs, (artifact.kind, artifact.name)
    find(root, *label, inputs)
    times = []
    for _ in range(repetitions):
        began = time.monotonic()
        found = find(root, *label, inputs)
        times.append(time.monotonic() - began)
        assert found == artifact
    return times


def plain_sha256(artifact: Artifact) -> list[str]:
    """What hashlib alone does: one file after another, a MiB at a time into one buffer."""
    buffer, digests = memoryview(bytearray(PIECE_BYTES)), []
    for entry in artifact.manifest.files:
        digest = hashlib.sha256()
        with open(artifact.path / entry.path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
        digests.append(digest.hexdigest())
    assert digests == [entry.sha256 for entry in artifact.manifest.files]
    return digests


def settle(artifact: Artifact) -> None:
    """Wait until the files are old enough for their digests to be remembered."""
    newest = max(os.stat(artifact.path / entry.path).st_mtime for entry in artifact.manifest.files)
    time.sleep(max(0.0, newest + 2.1 - time.time()))


def _whole(artifact: Artifact) -> None:
    assert verify(artifact.path) == ([], [])


def _fill(path: Path, count: int, dice: random.Random) -> None:
    with open(path, "wb") as file:
        for _ in range(count // MIB):
            file.write(dice.randbytes(MIB))
