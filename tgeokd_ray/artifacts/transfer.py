"""Copies of artifacts between a root and an object store: absent or whole on both sides, with one content digest."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tgeokd_ray.artifacts.commit import staging
from tgeokd_ray.artifacts.files import same_bytes
from tgeokd_ray.artifacts.json_files import json_bytes
from tgeokd_ray.artifacts.manifest import FORMAT, Artifact, FileEntry
from tgeokd_ray.artifacts.names import version_name
from tgeokd_ray.artifacts.objects import Listed, ObjectStore
from tgeokd_ray.artifacts.pointers import (
    DAMAGED,
    DATA,
    Stored,
    find_stored,
    homes,
    numbers,
    read_pointer,
    require_whole,
    with_digest,
)
from tgeokd_ray.artifacts.store import find_content, open_artifact
from tgeokd_ray.errors import IntegrityError, Problem, ResourceError
from tgeokd_ray.events import Progress, Silent

MIN_AGE_SECONDS = 86_400.0
_PROBE = ".probe"  # no file of an artifact starts with a dot
_ATTEMPTS = 3


def push(artifact: Artifact, store: ObjectStore, *, again: bool = False, progress: Progress | None = None) -> Stored:
    """Copy an artifact into a store, every byte checked first; one that is there already, by digest and by the sizes of
    its objects, is returned as it is unless `again` says that its bytes are damaged.

    Nothing is overwritten or removed. A crash leaves nothing visible. IntegrityError if the local artifact is damaged;
    ResourceError if the store fails, or does not know conditional creates.
    """
    artifact = open_artifact(artifact.path, level="full")
    home = f"{artifact.kind}/{artifact.name}"
    number = next(numbers(store, home), 0) + 1  # before the search: what appears during it is met at the pointer
    known = None if again else with_digest(store, home, artifact.digest)
    if known is not None:
        return known
    uploaded = Stored(artifact.manifest, f"data-{uuid.uuid4().hex}")
    _require_conditional_create(store, uploaded)
    progress = progress or Silent()
    progress.started("push", sum(entry.bytes for entry in artifact.manifest.files), "bytes")
    for entry in artifact.manifest.files:
        store.put(uploaded.key(entry.path), artifact.path / entry.path)
        progress.advanced("push", entry.bytes)
    require_whole(store, uploaded)
    stored = _point(store, home, uploaded, number)
    progress.finished("push", stored.label)
    return stored


def pull(store: ObjectStore, kind: str, name: str, root: Path | str, version: str | None = None) -> Artifact:
    """Copy an artifact, its newest whole version or the given one, from a store into ROOT/kind/name.

    Its digest stays the same, its version is the next free one under the root; one that is there whole already is
    returned. Files of an interrupted pull are kept. ConfigError if the store has no such artifact; IntegrityError for a
    damaged or forged one, which leaves nothing; ResourceError if store or disk fail.
    """
    return fetch(store, find_stored(store, kind, name, version), root)


def fetch(store: ObjectStore, stored: Stored, root: Path | str, progress: Progress | None = None) -> Artifact:
    """Download what a pointer names into ROOT, as `pull` says."""
    manifest = stored.manifest
    known = find_content(root, manifest.kind, manifest.name, manifest.digest)
    if known is not None:
        return known
    require_whole(store, stored)
    need = sum(entry.bytes for entry in manifest.files)
    progress = progress or Silent()
    progress.started("pull", need, "bytes")
    with staging(
        root,
        manifest.kind,
        manifest.name,
        arguments=manifest.arguments,
        parents=manifest.parents,
        need_bytes=need,
        key=manifest.digest,
    ) as work:
        for entry in manifest.files:
            if work.kept.get(entry.path) == entry:
                work.add(entry)
            else:
                check = same_bytes(entry, f"{store.url}/{stored.key(entry.path)}", DAMAGED)
                download = _download(store, stored, entry)
                work.write(entry.path, download, rows=entry.rows, extra=entry.extra, check=check)
            progress.advanced("pull", entry.bytes)
        artifact = work.commit(manifest.schema, manifest.record)
    progress.finished("pull", artifact.label)
    return artifact


def collect_store(store: ObjectStore, *, dry_run: bool, min_age_seconds: float = MIN_AGE_SECONDS) -> list[str]:
    """Remove the data folders that no pointer names and that nothing was uploaded to for `min_age_seconds`; returns
    their keys.

    Pointers and what they name stay, a pointer that cannot be read keeps every folder beside it. With `dry_run` nothing
    is removed. Killed half way, the next one goes on.
    """
    removed = []
    for home in homes(store):
        folders = [one.name for one in store.list(home) if one.folder and DATA.fullmatch(one.name)]
        files = {name: store.list(f"{home}/{name}") for name in folders}
        # Pointers are read after the folders: an upload that ended meanwhile is seen as one that counts.
        named = _named(store, home)
        for name in folders if named is not None else []:
            if files[name] and name not in (named or ()) and _idle_seconds(files[name]) >= min_age_seconds:
                removed.append(f"{home}/{name}")
                for one in files[name] if not dry_run else []:
                    store.remove(f"{home}/{name}/{one.name}")
    return removed


def _point(store: ObjectStore, home: str, uploaded: Stored, number: int) -> Stored:
    """Show an upload as the first free version from `number` on; or the version of another writer with its content."""
    while True:
        stored = replace(uploaded, manifest=replace(uploaded.manifest, version=version_name(number)))
        data = json_bytes({"format": FORMAT, "data": stored.data, "manifest": stored.manifest.to_json()})
        if _created(store, f"{stored.label}.json", data):
            return stored
        with suppress(IntegrityError):
            taken = read_pointer(store, home, number)
            if taken is not None and taken.manifest.digest == uploaded.manifest.digest:
                require_whole(store, taken)
                return taken
        number += 1


def _created(store: ObjectStore, key: str, data: bytes) -> bool:
    """Create a pointer. After a failure the store is asked what lies there: an answer may be lost after the deed."""
    for attempt in range(_ATTEMPTS):
        try:
            return store.create(key, data)
        except ResourceError:
            found = store.read(key)
            if found is not None:
                return found == data
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.1 * 4**attempt)
    return False


def _require_conditional_create(store: ObjectStore, uploaded: Stored) -> None:
    """A server that ignores the condition would overwrite a pointer: it is tried on an object of our own."""
    key = uploaded.key(_PROBE)
    store.create(key, b"")
    if store.create(key, b""):
        problem = Problem("the store overwrites what must only be created if absent", file=f"{store.url}/{key}")
        raise ResourceError([problem], fix="use a store that knows If-None-Match: * on PutObject")


def _download(store: ObjectStore, stored: Stored, entry: FileEntry) -> Callable[[Path], None]:
    """A writer of what an object holds."""

    def write(path: Path) -> None:
        try:
            store.get(stored.key(entry.path), path)
        except FileNotFoundError:
            problem = Problem("this object is missing", file=f"{store.url}/{stored.key(entry.path)}")
            raise IntegrityError([problem], fix=DAMAGED) from None

    return write


def _named(store: ObjectStore, home: str) -> set[str] | None:
    """The data folders that pointers name; None where one of the pointers cannot be read."""
    try:
        found = [read_pointer(store, home, number) for number in numbers(store, home)]
    except IntegrityError:
        return None
    return {stored.data for stored in found if stored is not None}


def _idle_seconds(files: list[Listed]) -> float:
    return time.time() - max(one.modified or time.time() for one in files)
