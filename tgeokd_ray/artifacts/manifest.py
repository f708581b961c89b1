"""What an artifact says about itself: files, schema, arguments, parents, and two digests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts.digest import canonical, digest
from tgeokd_ray.artifacts.names import MANIFEST, check_name, is_file_name, version_number
from tgeokd_ray.errors import ConfigError, IntegrityError, Problem

FORMAT = 1
_FIELDS: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "kind": (str,),
    "name": (str,),
    "version": (str,),
    "arguments": (dict,),
    "schema": (dict,),
    "files": (list,),
    "parents": (dict,),
    "inputs": (str,),
    "digest": (str,),
    "record": (dict,),
}
_ENTRY: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "bytes": (int,),
    "sha256": (str,),
    "rows": (int, type(None)),
    "extra": (dict,),
}
_PARENT: dict[str, tuple[type, ...]] = {"kind": (str,), "name": (str,), "version": (str,), "digest": (str,)}


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: its name, size in bytes, sha256, rows where it has some, and JSON facts in `extra`."""

    path: str
    bytes: int
    sha256: str
    rows: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The same as a plain dict, whose values are not copied: digests of many entries are taken often."""
        return dict(vars(self))


@dataclass(frozen=True)
class Parent:
    """An artifact that another was made from, known by its content digest; the rest says where it lay."""

    kind: str
    name: str
    version: str
    digest: str

    @property
    def label(self) -> str:
        """`tables/criteo/v000001`."""
        return f"{self.kind}/{self.name}/{self.version}"


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json.

    `inputs` is the digest of kind, arguments and the parents' digests: known before the work, it finds an artifact to
    re-use. `digest` adds schema and files. Name, version, `record` (when, where, how long) lie outside both, so the
    same work gives the same digests on any day, host and name.
    """

    format: int
    kind: str
    name: str
    version: str
    arguments: Mapping[str, Any]
    schema: Mapping[str, Any]
    files: tuple[FileEntry, ...]
    parents: Mapping[str, Parent]
    inputs: str
    digest: str
    record: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The same as plain dicts and lists."""
        return asdict(self)


@dataclass(frozen=True)
class Artifact:
    """A committed folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def label(self) -> str:
        """`tables/criteo/v000001`."""
        return self.as_parent().label

    def as_parent(self) -> Parent:
        """How a child's manifest names this artifact."""
        return Parent(self.kind, self.name, self.version, self.digest)

    def file(self, name: str) -> Path:
        """The path of a file that the manifest lists; IntegrityError if it lists none of that name."""
        if all(entry.path != name for entry in self.manifest.files):
            raise IntegrityError([Problem(f"the manifest lists no file {name!r}", file=str(self.path / MANIFEST))])
        return self.path / name


def parse_entry(obj: Any, file: str) -> FileEntry:
    """The entry in the JSON value `obj`, which was read from `file`; IntegrityError for anything else."""
    found = _mismatches(obj, _ENTRY, "the entry")
    if not found and not is_file_name(obj["path"]):
        found = [f"the file name {obj['path'][:200]!r} is not allowed"]
    if found:
        raise IntegrityError([Problem(text, file=file) for text in found])
    return FileEntry(**obj)


def inputs_digest(kind: str, arguments: Mapping[str, Any], parents: Mapping[str, Parent]) -> str:
    """The digest of what an artifact will be made from."""
    return digest({"kind": kind, "arguments": arguments, "parents": _digests(parents)})


def content_digest(
    kind: str,
    arguments: Mapping[str, Any],
    schema: Mapping[str, Any],
    files: Sequence[FileEntry],
    parents: Mapping[str, Parent],
) -> str:
    """The digest of what an artifact is."""
    entries = [entry.to_json() for entry in files]
    whole = {"kind": kind, "arguments": arguments, "schema": schema, "files": entries, "parents": _digests(parents)}
    return digest(whole)


def make_manifest(
    kind: str,
    name: str,
    version: str,
    *,
    arguments: Mapping[str, Any],
    schema: Mapping[str, Any],
    files: Sequence[FileEntry],
    parents: Mapping[str, Parent],
    record: Mapping[str, Any],
) -> Manifest:
    """A manifest with its digests computed, exactly as it will be read back; files are ordered by name."""
    ordered = tuple(FileEntry(**json.loads(canonical(e.to_json()))) for e in sorted(files, key=lambda e: e.path))
    plain = {key: json.loads(canonical(value)) for key, value in (("a", arguments), ("s", schema), ("r", record))}
    return Manifest(
        format=FORMAT,
        kind=kind,
        name=name,
        version=version,
        arguments=plain["a"],
        schema=plain["s"],
        files=ordered,
        parents=dict(parents),
        inputs=inputs_digest(kind, arguments, parents),
        digest=content_digest(kind, arguments, schema, ordered, parents),
        record=plain["r"],
    )


def parse_manifest(obj: Any, file: str) -> Manifest:
    """The manifest in the JSON value `obj`, which was read from `file`.

    IntegrityError, with all problems at once, for another format, missing, unknown or mistyped fields, names that
    leave the folder, and digests that do not match the contents (a manifest edited by hand).
    """
    if isinstance(obj, dict) and type(obj.get("format")) is int and obj["format"] != FORMAT:
        problem = Problem("this artifact has another format", file=file, expected=str(FORMAT), got=str(obj["format"]))
        raise IntegrityError([problem], fix="use the version of tgeokd that wrote it, or make the artifact again")
    found = _mismatches(obj, _FIELDS, "the manifest") or [
        *(text for i, entry in enumerate(obj["files"]) for text in _mismatches(entry, _ENTRY, f"files[{i}]")),
        *(text for role, one in obj["parents"].items() for text in _mismatches(one, _PARENT, f"parents.{role}")),
    ]
    found = found or _unsafe(obj)
    if not found:
        files = tuple(FileEntry(**entry) for entry in obj["files"])
        parents = {role: Parent(**parent) for role, parent in obj["parents"].items()}
        manifest = Manifest(**{**obj, "files": files, "parents": parents})
        found = _wrong_digests(manifest)
    if found:
        raise IntegrityError([Problem(text, file=file) for text in found], fix="make the artifact again")
    return manifest


def _digests(parents: Mapping[str, Parent]) -> dict[str, str]:
    return {role: parent.digest for role, parent in parents.items()}


def _mismatches(obj: Any, fields: Mapping[str, tuple[type, ...]], where: str) -> list[str]:
    if not isinstance(obj, dict):
        return [f"{where} is no JSON object"]
    missing = [f"{where} lacks {name!r}" for name in fields if name not in obj]
    unknown = [f"{where} has the unknown field {name!r}" for name in obj if name not in fields]
    wrong = [
        f"{where}.{name} has the type {type(obj[name]).__name__}"
        for name, types in fields.items()
        if name in obj and type(obj[name]) not in types
    ]
    return missing + unknown + wrong


def _unsafe(obj: Mapping[str, Any]) -> list[str]:
    """Names that are no plain names, or that come twice."""
    paths = [entry["path"] for entry in obj["files"]]
    found = [f"the file name {path[:200]!r} is not allowed" for path in paths if not is_file_name(path)]
    if len(set(paths)) < len(paths):
        found.append("a file is listed twice")
    for one in [obj, *obj["parents"].values()]:
        try:
            check_name(one["kind"])
            check_name(one["name"])
        except ConfigError as error:
            found.append(str(error.problems[0]))
        if version_number(one["version"]) is None:
            found.append(f"the version {one['version'][:200]!r} is not of the form v000001")
    return found


def _wrong_digests(manifest: Manifest) -> list[str]:
    try:
        inputs = inputs_digest(manifest.kind, manifest.arguments, manifest.parents)
        content = content_digest(manifest.kind, manifest.arguments, manifest.schema, manifest.files, manifest.parents)
    except ValueError as error:
        return [f"the manifest has no digest: {error}"]
    pairs = (("inputs", manifest.inputs, inputs), ("digest", manifest.digest, content))
    return [
        f"{name} is {said[:12]!r}..., but the contents give {true[:12]!r}...: the manifest was edited or damaged"
        for name, said, true in pairs
        if said != true
    ]
