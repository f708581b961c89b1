"""Writing artifacts: files appear one by one in a staging folder, the artifact all at once by one rename.

ROOT/kind/name/.staging-<inputs>/owner.json     the lock
                                 NAME.entry     facts of a finished file, written after it
                                 tmp-*          unfinished files, and what else a writer puts beside them
                                 files/         becomes ROOT/kind/name/vNNNNNN
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tgeokd_ray.artifacts.disk import DISK, Disk, Writer, explained
from tgeokd_ray.artifacts.files import ENTRY, finished_file, same_bytes, write_file
from tgeokd_ray.artifacts.json_files import json_bytes
from tgeokd_ray.artifacts.manifest import Artifact, FileEntry, Manifest, Parent, inputs_digest, make_manifest
from tgeokd_ray.artifacts.names import (
    MANIFEST,
    STAGING,
    check_file_name,
    check_name,
    version_name,
    version_number,
    versions,
)
from tgeokd_ray.artifacts.owner import FILES, LOCK, clear, read_owner, release, take
from tgeokd_ray.artifacts.record import made_here
from tgeokd_ray.artifacts.store import open_artifact, read_manifest
from tgeokd_ray.errors import IntegrityError, Problem, ResourceError

__all__ = ["Staging", "check_name", "staging", "write_file"]


class Staging:
    """An artifact being made; a context manager that holds the lock of its staging folder.

    `folder` is where `write_file` puts files, `inputs` the digest of kind, arguments and parents, `kept` the finished
    files that an earlier attempt with the same inputs left, each hashed again: `add` them instead of writing them.
    Leaving the block without a commit, by an exception or not, keeps finished files and shows nothing. With `key`, a
    digest, the staging folder is named by it and not by `inputs`: a copy is kept apart from work on the same inputs.
    """

    def __init__(
        self,
        root: Path | str,
        kind: str,
        name: str,
        *,
        arguments: Mapping[str, Any],
        parents: Mapping[str, Artifact | Parent],
        need_bytes: int = 0,
        key: str | None = None,
        disk: Disk = DISK,
    ) -> None:
        self.kind, self.name, self.arguments = check_name(kind), check_name(name), arguments
        self.parents = {r: p.as_parent() if isinstance(p, Artifact) else p for r, p in parents.items()}
        self.inputs = inputs_digest(kind, arguments, self.parents)
        self._home = Path(root).absolute() / kind / name
        self._shell = self._home / f"{STAGING}{(key or self.inputs)[:16]}"
        self.folder = self._shell / FILES
        self.kept: dict[str, FileEntry] = {}
        self._entries: dict[str, FileEntry] = {}
        self._need_bytes = need_bytes
        self._disk = disk
        self._held = False

    def __enter__(self) -> Self:
        with explained(self._shell):
            self._disk.make_folder(self._home)
            self._check_space()
            self._owner = take(self._shell, self._disk)
            self._held = True
            try:
                self._disk.make_folder(self.folder)
                self.kept = self._adopt()
            except BaseException:
                self._release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del kind, error, traceback
        self._release()

    def write(
        self,
        path: str,
        write: Writer,
        *,
        rows: int | None = None,
        extra: Mapping[str, Any] | None = None,
        check: Callable[[str], object] | None = None,
    ) -> FileEntry:
        """Write one file with `write_file` and add it."""
        entry = write_file(self.folder, path, write, rows=rows, extra=extra, check=check, disk=self._disk)
        self.add(entry)
        return entry

    def add(self, entry: FileEntry) -> None:
        """Make a file that `write_file` wrote, here or in another process, a part of the artifact."""
        self._entries[check_file_name(entry.path)] = entry

    def take_over(self, other: Artifact, entry: FileEntry) -> FileEntry:
        """Make a file of another artifact a part of this one, without a second copy of its bytes where the file system
        links files; it is hashed again. IntegrityError where its bytes are not those of its entry."""
        source = other.file(entry.path)

        def link(target: Path) -> None:
            try:
                self._disk.link(source, target)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, target)

        check = same_bytes(entry, str(source), f"make {other.label} again: tgeokd verify says what is wrong")
        return self.write(entry.path, link, rows=entry.rows, extra=entry.extra, check=check)

    def commit(self, schema: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> Artifact:
        """Show the artifact, made of the added files, as the next free version.

        One rename shows it, so it is absent or whole. If a whole version with the same content digest exists, that one
        is returned and no second is made. IntegrityError if an added file is not there with its size, ResourceError
        where the disk refuses or another process took the folder over; then the staged files stay as they are.
        """
        with explained(self._shell):
            if not self._held or read_owner(self._shell) != self._owner:
                raise ResourceError([Problem("this process does not hold the folder any more", file=str(self._shell))])
            self._check_files()
            artifact = self._publish(schema, {**made_here(), **(record or {})})
        try:
            clear(self._shell, self._disk)
            self._held = False
        except OSError:  # the artifact stands; gc or the next attempt removes the rest
            self._release()
        return artifact

    def _release(self) -> None:
        if self._held:
            self._held = False
            with suppress(OSError):
                release(self._shell, self._disk)

    def _check_space(self) -> None:
        free = self._disk.free_bytes(self._home)
        if free < self._need_bytes:
            expected, got = f"{self._need_bytes} bytes", f"{free} bytes"
            problem = Problem("too little free space", file=str(self._home), expected=expected, got=got)
            raise ResourceError([problem], fix="free space there or choose another --root")

    def _adopt(self) -> dict[str, FileEntry]:
        """The finished files of an earlier attempt; whatever else it left is removed."""
        kept: dict[str, FileEntry] = {}
        for path in sorted(self._shell.iterdir()):
            if path.name in (LOCK, FILES):
                continue
            entry = finished_file(path, self.folder) if path.name.endswith(ENTRY) else None
            if entry is not None:
                kept[entry.path] = entry
            else:
                self._disk.remove(path)
        self._remove_strays(kept)
        return kept

    def _remove_strays(self, wanted: Mapping[str, FileEntry]) -> None:
        for path in sorted(self.folder.iterdir()):
            if path.name not in wanted:
                self._disk.remove(path)

    def _check_files(self) -> None:
        problems = []
        for entry in self._entries.values():
            file = self.folder / entry.path
            size = file.lstat().st_size if file.is_file() and not file.is_symlink() else None
            if size != entry.bytes:
                got = "no file" if size is None else f"{size} bytes"
                problems.append(Problem("a written file is gone", str(file), expected=f"{entry.bytes} bytes", got=got))
        if problems:
            raise IntegrityError(problems, fix="run the same command again")
        self._remove_strays(self._entries)

    def _publish(self, schema: Mapping[str, Any], record: Mapping[str, Any]) -> Artifact:
        newest = next(versions(self._home), None)
        number = (version_number(newest.name) or 0) + 1 if newest else 1
        while True:
            manifest = self._manifest(version_name(number), schema, record)
            winner = self._committed(manifest.digest)
            if winner is not None:
                return winner
            self._write_manifest(manifest)
            target = self._home / manifest.version
            try:
                self._disk.publish(self.folder, target)
            except OSError:
                # What lies under that name now decides: ours after an unknown outcome (found as the winner above), or
                # the version of a faster writer, and then the next number is tried. Nothing is removed.
                if not os.path.lexists(target):
                    raise
                number += 1
                continue
            self._disk.sync_folder(self._home)
            return Artifact(target, manifest)

    def _manifest(self, version: str, schema: Mapping[str, Any], record: Mapping[str, Any]) -> Manifest:
        return make_manifest(
            self.kind,
            self.name,
            version,
            arguments=self.arguments,
            schema=schema,
            files=list(self._entries.values()),
            parents=self.parents,
            record=record,
        )

    def _write_manifest(self, manifest: Manifest) -> None:
        file, data = self.folder / MANIFEST, json_bytes(manifest.to_json())
        self._disk.write(file, lambda path: path.write_bytes(data))
        self._disk.sync(file)
        self._disk.sync_folder(self.folder)

    def _committed(self, digest: str) -> Artifact | None:
        """A whole version, every byte checked, with this content; made durable before it is believed."""
        for path in versions(self._home):
            with suppress(IntegrityError):
                if read_manifest(path).digest == digest:
                    artifact = open_artifact(path, level="full")
                    self._disk.sync_folder(self._home)
                    return artifact
        return None


def staging(
    root: Path | str,
    kind: str,
    name: str,
    *,
    arguments: Mapping[str, Any],
    parents: Mapping[str, Artifact | Parent],
    need_bytes: int = 0,
    key: str | None = None,
    disk: Disk = DISK,
) -> Staging:
    """A `Staging` of the next version of ROOT/kind/name, to be used in a `with` statement.

    Entering it checks for `need_bytes` of free space, takes the lock, and adopts what a dead or failed attempt with
    the same inputs (the same `key`, where one is given) left. ConfigError for a bad name; ResourceError for a living
    owner, an owner on another host, a full, read-only or blocked root.
    """
    return Staging(root, kind, name, arguments=arguments, parents=parents, need_bytes=need_bytes, key=key, disk=disk)
