"""What an object store holds: pointers that name an artifact each, read as hostile input.

kind/name/data-<uuid>/FILE      the files of one upload; nobody sees them until a pointer names the folder
          v000001.json          the pointer, created only if absent: the manifest, and which data folder holds the files
Version numbers of a root and of a store are counted apart; digests say what is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from tgeokd_ray.artifacts.digest import canonical
from tgeokd_ray.artifacts.json_files import parse_json
from tgeokd_ray.artifacts.manifest import FORMAT, Artifact, Manifest, Parent, parse_manifest
from tgeokd_ray.artifacts.names import check_name, version_name, version_number
from tgeokd_ray.artifacts.objects import ObjectStore
from tgeokd_ray.errors import ConfigError, IntegrityError, Problem

DATA = re.compile(r"data-[0-9a-f]{32}")
DAMAGED = "push it from where it is whole, with tgeokd push --again: it becomes the next version there"


@dataclass(frozen=True)
class Stored:
    """An artifact in a store: its manifest, with the version it has there, and the folder of its files."""

    manifest: Manifest
    data: str

    @property
    def label(self) -> str:
        """`tables/criteo/v000001`, with the version in the store."""
        return f"{self._home}/{self.manifest.version}"

    @property
    def _home(self) -> str:
        return f"{self.manifest.kind}/{self.manifest.name}"

    def key(self, name: str) -> str:
        """Where a file of the artifact lies; without a name, the folder."""
        return f"{self._home}/{self.data}/{name}".rstrip("/")


Whole = TypeVar("Whole", Artifact, Stored)


def find_stored(store: ObjectStore, kind: str, name: str, version: str | None = None) -> Stored:
    """The newest version of an artifact in a store whose objects have their sizes, or the given version.

    ConfigError where there is none; IntegrityError for what is wrong with the newest if none is whole.
    """
    home = f"{check_name(kind)}/{check_name(name)}"
    if version is not None and version_number(version) is None:
        raise ConfigError([Problem("this is no version", expected="v000001", got=repr(version[:100]))])
    wanted = [int(version[1:])] if version else list(numbers(store, home))
    first: IntegrityError | None = None
    for number in wanted:
        try:
            stored = read_pointer(store, home, number)
            if stored is not None:
                require_whole(store, stored)
                return stored
        except IntegrityError as error:
            first = first or error
    if first is not None:
        raise first
    label = home if version is None else f"{home}/{version}"
    raise ConfigError(f"no artifact {label!r} in {store.url}", fix=f"tgeokd list {store.url} names those there")


def with_digest(store: ObjectStore, home: str, digest: str) -> Stored | None:
    """The newest version of `kind/name` with this content whose objects have their sizes; None if there is none."""
    for number in numbers(store, home):
        with suppress(IntegrityError):
            stored = read_pointer(store, home, number)
            if stored is not None and stored.manifest.digest == digest:
                require_whole(store, stored)
                return stored
    return None


def parents_first(one: Whole, find: Callable[[Parent], Whole | None]) -> list[Whole]:
    """All ancestors of `one` that `find` knows, each once, every one after its own parents."""
    done: list[Whole] = []
    seen: set[str] = set()
    path = [(one, iter(one.manifest.parents.values()))]
    while path:
        rest = path[-1][1]
        parent = next(rest, None)
        if parent is None:
            done.append(path.pop()[0])
        elif parent.digest not in seen:
            seen.add(parent.digest)
            found = find(parent)
            if found is not None:
                path.append((found, iter(found.manifest.parents.values())))
    return done[:-1]


def pointers(store: ObjectStore) -> Iterator[Stored]:
    """Every artifact in a store whose pointer is sound, by kind, name and version; the files are not looked at."""
    for home in homes(store):
        for number in reversed(list(numbers(store, home))):
            with suppress(IntegrityError):
                stored = read_pointer(store, home, number)
                if stored is not None:
                    yield stored


def read_pointer(store: ObjectStore, home: str, number: int) -> Stored | None:
    """The pointer of one version of `home`, which is `kind/name`; None if there is none.

    IntegrityError for one that is damaged, that belongs elsewhere, or that names anything but a data folder beside it.
    """
    key = f"{home}/{version_name(number)}.json"
    file = f"{store.url}/{key}"
    data = store.read(key)
    if data is None:
        return None
    obj = parse_json(data, file)
    if not isinstance(obj, dict) or obj.keys() != {"format", "data", "manifest"} or obj["format"] != FORMAT:
        raise IntegrityError([Problem("this is no pointer to an artifact", file=file)], fix=DAMAGED)
    if not isinstance(obj["data"], str) or DATA.fullmatch(obj["data"]) is None:
        raise IntegrityError([Problem("the pointer names no data folder", file=file, got=f"{obj['data']!r:.100}")])
    stored = Stored(parse_manifest(obj["manifest"], file), obj["data"])
    if f"{stored.label}.json" != key or not _can_be_committed(stored.manifest):
        problem = Problem("the pointer belongs elsewhere or was edited", file=file, got=stored.label)
        raise IntegrityError([problem], fix=DAMAGED)
    return stored


def require_whole(store: ObjectStore, stored: Stored) -> None:
    """IntegrityError with every object that is missing or of another size."""
    sizes = {one.name: one.bytes for one in store.list(stored.key(""))}
    problems = []
    for entry in stored.manifest.files:
        size = sizes.get(entry.path)
        if size != entry.bytes:
            got = "no object" if size is None else f"{size} bytes"
            file = f"{store.url}/{stored.key(entry.path)}"
            problems.append(Problem("the object differs", file=file, expected=f"{entry.bytes} bytes", got=got))
    if problems:
        raise IntegrityError(problems, fix=DAMAGED)


def numbers(store: ObjectStore, home: str) -> Iterator[int]:
    """The versions of one name, newest first."""
    names = [one.name for one in store.list(home) if not one.folder and one.name.endswith(".json")]
    found = [number for name in names if (number := version_number(name.removesuffix(".json"))) is not None]
    yield from sorted(found, reverse=True)


def homes(store: ObjectStore) -> Iterator[str]:
    """Every `kind/name` in a store, in order, whether it holds an artifact or only an upload."""
    for kind in sorted(one.name for one in store.list("") if one.folder):
        for name in sorted(one.name for one in store.list(kind) if one.folder):
            yield f"{kind}/{name}"


def _can_be_committed(manifest: Manifest) -> bool:
    """Whether a commit gives the same digest: files in order, and a record, which no digest covers, that is plain."""
    paths = [entry.path for entry in manifest.files]
    try:
        canonical(manifest.record)
    except ValueError:
        return False
    return paths == sorted(paths)
