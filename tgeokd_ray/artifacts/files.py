"""One file of an artifact that is being made: written by any process, whole or not counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts.digest import canonical, file_sha256
from tgeokd_ray.artifacts.disk import DISK, Disk, Writer, explained
from tgeokd_ray.artifacts.json_files import json_bytes, read_json
from tgeokd_ray.artifacts.manifest import FileEntry, parse_entry
from tgeokd_ray.artifacts.names import check_file_name
from tgeokd_ray.errors import IntegrityError, Problem

ENTRY = ".entry"


def write_file(
    folder: Path,
    path: str,
    write: Writer,
    *,
    rows: int | None = None,
    extra: Mapping[str, Any] | None = None,
    check: Callable[[str], object] | None = None,
    disk: Disk = DISK,
) -> FileEntry:
    """Write the file `path` of the artifact staged in `folder` (`Staging.folder`), from any process.

    `write` gets a temporary path with the same ending beside the folder. The file is synced, hashed and renamed, then
    its entry is noted: a crash leaves no entry, or an entry with a whole file. Writing again replaces both.
    `check` gets the sha256 before the file has its name: what it refuses by raising is never noted.
    ConfigError for a path with folders, ValueError for NaN in `extra`, ResourceError where the disk refuses.
    """
    check_file_name(path)
    facts = dict(extra or {})
    canonical(facts)
    shell = folder.parent
    scratch, sidecar = shell / f"tmp-{os.getpid()}-{os.urandom(4).hex()}-{path}", shell / f"{path}{ENTRY}"
    with explained(folder / path):
        try:
            disk.write(scratch, write)
            disk.sync(scratch)
            entry = FileEntry(path, scratch.stat().st_size, file_sha256(scratch), rows, facts)
            if check is not None:
                check(entry.sha256)
            disk.remove(sidecar)
            disk.replace(scratch, folder / path)
            # The entry needs no sync: one that a power cut tore or lost counts as absent, and the file is rewritten.
            disk.write(scratch, lambda target: target.write_bytes(json_bytes(entry.to_json())))
            disk.replace(scratch, sidecar)
        except Exception:
            with suppress(OSError):
                disk.remove(scratch)
            raise
    return entry


def same_bytes(entry: FileEntry, file: str, fix: str) -> Callable[[str], None]:
    """A `check` for a copy of what `entry` names, which lies at `file`: IntegrityError for other bytes."""

    def check(sha256: str) -> None:
        if sha256 != entry.sha256:
            expected = f"sha256 {entry.sha256}"
            raise IntegrityError([Problem("the bytes differ", file=file, expected=expected, got=sha256)], fix=fix)

    return check


def finished_file(sidecar: Path, folder: Path) -> FileEntry | None:
    """The entry in a sidecar if the file that it names lies whole in `folder`, every byte hashed; None otherwise."""
    try:
        entry = parse_entry(read_json(sidecar), str(sidecar))
        file = folder / entry.path
        if sidecar.name != f"{entry.path}{ENTRY}" or file.is_symlink() or not file.is_file():
            return None
        return entry if file.stat().st_size == entry.bytes and file_sha256(file) == entry.sha256 else None
    except (IntegrityError, FileNotFoundError):
        return None
