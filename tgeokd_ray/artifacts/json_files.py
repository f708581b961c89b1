"""JSON files that are whole or absent, and that cannot hurt the reader."""

from __future__ import annotations

import json
import os
from pathlib import Path
from stat import S_ISREG
from typing import Any, NoReturn

from tgeokd_ray.artifacts.disk import DISK, Disk, explained
from tgeokd_ray.errors import IntegrityError, Problem

LIMIT = 64 * 2**20
READABLE = 2**20  # characters that somebody may want to read


def json_bytes(obj: Any) -> bytes:
    """Readable JSON: one space of indent, sorted keys, a newline at the end. ValueError for NaN and Infinity.

    What is longer than READABLE is one line: an indent takes six times as long.
    """
    text = json.dumps(obj, sort_keys=True, allow_nan=False)
    return ((text if len(text) > READABLE else json.dumps(obj, indent=1, sort_keys=True)) + "\n").encode()


def write_json(path: Path, obj: Any, *, disk: Disk = DISK) -> None:
    """Replace the file `path` by `obj` as JSON; at any moment the file is the old or the new one, never a part.

    ValueError for NaN and Infinity, TypeError for what JSON cannot hold (the old file stays); ResourceError where the
    disk refuses.
    """
    data = json_bytes(obj)
    scratch = path.with_name(f"tmp-{os.getpid()}-{os.urandom(4).hex()}-{path.name}")
    with explained(path):
        try:
            disk.write(scratch, lambda target: target.write_bytes(data))
            disk.sync(scratch)
            disk.replace(scratch, path)
        except OSError:
            disk.remove(scratch)
            raise
        disk.sync_folder(path.parent)


def read_json(path: Path, limit: int = LIMIT) -> Any:
    """The value in the JSON file `path` of at most `limit` bytes.

    IntegrityError for a file that is torn, larger, not UTF-8, nested too deeply to be read, or that holds NaN;
    FileNotFoundError where there is none.
    """
    with explained(path):
        if not S_ISREG(os.stat(path).st_mode):
            _refuse(str(path), "this is not a regular file")
        with open(path, "rb") as file:
            # As much as there is, since Python reserves before it reads; a process may be short of memory.
            data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    return parse_json(data, str(path), limit)


def parse_json(data: bytes, file: str, limit: int = LIMIT) -> Any:
    """The JSON value in the bytes `data` of `file`; IntegrityError as `read_json` says."""
    if len(data) > limit:
        _refuse(file, "this JSON file is too large", expected=f"at most {limit} bytes")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        _refuse(file, "this JSON file is nested too deeply")
    except ValueError as error:
        _refuse(file, "this is not a whole JSON file", got=f"{str(error)[:100]} in {len(data)} bytes")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _refuse(file: str, what: str, expected: str | None = None, got: str | None = None) -> NoReturn:
    problem = Problem(what, file=file, expected=expected, got=got)
    raise IntegrityError([problem], fix="run the command that made this file again") from None
