"""Digests: the same content gives the same sha256 on any day, host and name."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts.disk import DISK, explained
from tgeokd_ray.artifacts.json_files import read_json, write_json
from tgeokd_ray.errors import IntegrityError, ResourceError

MAX_DEPTH = 64
_SETTLED_SECONDS = 2.0


def canonical(obj: Any) -> bytes:
    """One byte string per JSON value: sorted keys, no spaces, ASCII; a tuple is written as a list.

    ValueError for NaN, Infinity or more than 64 levels; TypeError for what JSON cannot hold and for keys that are no
    text (JSON would turn 1 into "1" and the digest would not survive being read back).
    """
    _check(obj, MAX_DEPTH)
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def digest(obj: Any) -> str:
    """sha256 of `canonical(obj)`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(obj)).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of the bytes of a file, 64 hexadecimal digits, in constant memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(paths: Sequence[Path], cache: Path) -> list[str]:
    """sha256 of each file, read again only if its path, size, modification time or inode changed since `cache`.

    `cache` is a JSON file, replaced atomically; a torn or foreign one counts as empty, and where none can be written
    the digests are right all the same. A file modified less than two seconds before it was read is not remembered:
    its next change could leave the same time stamp.
    """
    known = _read_cache(cache)
    fresh: dict[str, list[Any]] = {}
    result = []
    for path in paths:
        key, stamp = str(path.absolute()), _stamp(path)
        entry = known.get(key)
        if not (isinstance(entry, list) and len(entry) == 4 and entry[:3] == stamp and isinstance(entry[3], str)):
            started = time.time()
            entry = [*stamp, file_sha256(path)]
            if started - stamp[1] / 1e9 >= _SETTLED_SECONDS:
                fresh[key] = entry
        result.append(entry[3])
    if fresh:
        with suppress(ResourceError):
            with explained(cache):
                DISK.make_folder(cache.parent)
            write_json(cache, {**known, **fresh})
    return result


def _check(value: Any, depth: int) -> None:
    """Keys are text and the nesting ends; scalars are left to json."""
    if not isinstance(value, (dict, list, tuple)):
        return
    if depth == 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"keys must be text, got {key!r}")
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list, tuple)):
            _check(item, depth - 1)


def _stamp(path: Path) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _read_cache(cache: Path) -> dict[str, Any]:
    try:
        known = read_json(cache)
    except (FileNotFoundError, IntegrityError, ResourceError):
        return {}
    return known if isinstance(known, dict) else {}
