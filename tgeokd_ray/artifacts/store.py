"""Reading artifacts: whole or refused, found by what they were made from."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from tgeokd_ray.artifacts.digest import file_digests, file_sha256
from tgeokd_ray.artifacts.disk import explained
from tgeokd_ray.artifacts.json_files import read_json
from tgeokd_ray.artifacts.manifest import Artifact, FileEntry, Manifest, parse_manifest
from tgeokd_ray.artifacts.names import MANIFEST, check_name, versions
from tgeokd_ray.errors import IntegrityError, Problem

Level = Literal["size", "full"]


def open_artifact(path: Path | str, *, level: Level = "size", cache: Path | None = None) -> Artifact:
    """The artifact in the folder `path`, its manifest and the size of every file checked.

    `level="full"` also hashes every file; with `cache` (a JSON file of this host) only those that changed since the
    last time. IntegrityError lists every missing, stray, short, differing file; folders and links count as stray.
    """
    path = Path(path)
    manifest = read_manifest(path)
    problems, sound = check_files(path, manifest)
    if level == "full":
        problems += check_digests(path, sound, cache)
    if problems:
        raise IntegrityError(problems, fix="move this version away and run the command that made it again")
    return Artifact(path, manifest)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the folder `path`, checked against its own digest; the files are not looked at."""
    file = path / MANIFEST
    if path.is_symlink() or file.is_symlink():
        problem = Problem("links are not followed in artifacts", file=str(path))
        raise IntegrityError([problem], fix="put the files themselves in its place, or make the artifact again")
    if not os.path.lexists(file):
        newest = next(versions(path), None)
        fix = f"did you mean {newest}?" if newest else None
        raise IntegrityError([Problem(f"no artifact: there is no {MANIFEST}", file=str(path))], fix=fix)
    return parse_manifest(read_json(file), str(file))


def check_files(path: Path, manifest: Manifest) -> tuple[list[Problem], list[FileEntry]]:
    """What is missing, stray or of another size in the folder, and the entries whose files are not."""
    with explained(path), os.scandir(path) as entries:
        found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    listed = {entry.path for entry in manifest.files}
    problems = [
        Problem("this file is not in the manifest", file=str(path / name))
        for name in sorted(found.keys() - listed - {MANIFEST})
    ]
    sound = []
    for entry in manifest.files:
        status, file = found.get(entry.path), str(path / entry.path)
        if status is None:
            problems.append(Problem("this file is missing", file=file))
        elif not S_ISREG(status.st_mode):
            problems.append(Problem("this is not a regular file", file=file))
        elif status.st_size != entry.bytes:
            size = f"{status.st_size} bytes"
            problems.append(Problem("the size differs", file=file, expected=f"{entry.bytes} bytes", got=size))
        else:
            sound.append(entry)
    return problems, sound


def check_digests(path: Path, entries: list[FileEntry], cache: Path | None = None) -> list[Problem]:
    """The files whose bytes differ from the sha256 in their entries."""
    paths = [path / entry.path for entry in entries]
    with explained(path):
        found = file_digests(paths, cache) if cache else [file_sha256(file) for file in paths]
    return [
        Problem("the bytes differ", file=str(path / entry.path), expected=f"sha256 {entry.sha256}", got=sha256)
        for entry, sha256 in zip(entries, found, strict=True)
        if sha256 != entry.sha256
    ]


def find(root: Path | str, kind: str, name: str, inputs: str) -> Artifact | None:
    """The newest whole version of ROOT/kind/name that was made from `inputs`; None if there is none.

    Every file's bytes are checked, once per host: digests are kept in ROOT/.cache/digests.json. So a damaged version is
    passed over, and made again.
    """
    home = Path(root) / check_name(kind) / check_name(name)
    cache = Path(root) / ".cache" / "digests.json"
    for path in versions(home):
        artifact = _open_or_none(path, inputs)
        if artifact is not None and not check_digests(path, list(artifact.manifest.files), cache):
            return artifact
    return None


def find_content(root: Path | str, kind: str, name: str, digest: str) -> Artifact | None:
    """The newest whole version of ROOT/kind/name of this content, every byte checked; None if there is none."""
    for path in versions(Path(root) / check_name(kind) / check_name(name)):
        with suppress(IntegrityError):
            if read_manifest(path).digest == digest:
                return open_artifact(path, level="full")
    return None


def replaced(artifact: Artifact) -> list[str]:
    """Labels of older versions made from the same inputs that are damaged, so that this one was made in their place."""
    home = artifact.path.parent
    older = [path for path in versions(home) if path.name < artifact.path.name]
    return [
        f"{artifact.kind}/{artifact.name}/{path.name}" for path in older if _damaged(path, artifact.manifest.inputs)
    ]


def _damaged(path: Path, inputs: str) -> bool:
    try:
        manifest = read_manifest(path)
    except IntegrityError:
        return True
    if manifest.inputs != inputs:
        return False
    problems, sound = check_files(path, manifest)
    return bool(problems or check_digests(path, sound, path.parent.parent.parent / ".cache" / "digests.json"))


def latest(root: Path | str, kind: str, name: str) -> Artifact | None:
    """The newest whole version (sizes checked) of ROOT/kind/name; None if there is none."""
    return next(iter(siblings(root, kind, name)), None)


def siblings(root: Path | str, kind: str, name: str) -> list[Artifact]:
    """Every whole version (sizes checked) of ROOT/kind/name, newest first."""
    home = Path(root) / check_name(kind) / check_name(name)
    return [artifact for path in versions(home) if (artifact := _open_or_none(path)) is not None]


def version_folders(root: Path | str) -> list[Path]:
    """Every version folder ROOT/kind/name/vNNNNNN, whole or not, by kind, name and version."""
    homes = sorted(path for path in Path(root).glob("*/*") if not path.name.startswith("."))
    return [path for home in homes for path in reversed(list(versions(home)))]


def list_artifacts(root: Path | str) -> list[Artifact]:
    """Every whole artifact under `root` (sizes checked), by kind, name and version."""
    found = (_open_or_none(path) for path in version_folders(root))
    return [artifact for artifact in found if artifact is not None]


def _open_or_none(path: Path, inputs: str | None = None) -> Artifact | None:
    try:
        manifest = read_manifest(path)
        if inputs is not None and manifest.inputs != inputs:
            return None
        return None if check_files(path, manifest)[0] else Artifact(path, manifest)
    except IntegrityError:
        return None
