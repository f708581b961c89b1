"""Looking after a root: proof that an artifact is whole, where it came from, and removing what dead runs left."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tgeokd_ray.artifacts.disk import DISK, Disk, explained
from tgeokd_ray.artifacts.manifest import Artifact, Manifest, Parent
from tgeokd_ray.artifacts.names import STAGING
from tgeokd_ray.artifacts.owner import clear, read_owner, take
from tgeokd_ray.artifacts.store import check_digests, check_files, list_artifacts, read_manifest
from tgeokd_ray.errors import IntegrityError, Problem, ProvenanceError, ResourceError

UNKNOWN_AGE_SECONDS = 86_400.0
# What Ray keeps of a worker group, with the driver as its owner; it goes with the driver unless that was killed.
_RAY = ".ray-"
BASE = "base"  # the role of the table that another one grew from
# Beside staging of artifacts and of the checkpoints of a run.
_LEFT_BEHIND = (f"*/*/{STAGING}*", f"runs/*/checkpoints/*/{STAGING}*", f"{_RAY}*")


@dataclass(frozen=True)
class Ancestor:
    """One step of a lineage: `role` is the path of roles from the child (`logits/teacher`), `artifact` None if the
    parent is no longer under the root."""

    role: str
    parent: Parent
    artifact: Artifact | None


def verify(path: Path | str) -> tuple[list[Problem], list[Problem]]:
    """(problems, notes) of the artifact in the folder `path`, with every file hashed; no problems means it is whole.

    Notes are facts that leave the artifact usable: a parent that is not under the same root any more, or a folder that
    was renamed after the commit.
    """
    path = Path(path).absolute()
    try:
        manifest = read_manifest(path)
        problems, sound = check_files(path, manifest)
    except IntegrityError as error:
        return list(error.problems), []
    return problems + check_digests(path, sound), _notes(path, manifest)


def lineage(artifact: Artifact) -> list[Ancestor]:
    """All ancestors of an artifact, depth first, looked up by digest under the same root."""
    present = {one.digest: one for one in list_artifacts(_root(artifact.path.absolute()))}
    found: list[Ancestor] = []
    expanded: set[str] = set()

    def visit(manifest: Manifest, prefix: str) -> None:
        for role, parent in sorted(manifest.parents.items()):
            known = present.get(parent.digest)
            found.append(Ancestor(prefix + role, parent, known))
            if known is not None and parent.digest not in expanded:
                expanded.add(parent.digest)
                visit(known.manifest, f"{prefix}{role}/")

    visit(artifact.manifest, "")
    return found


def require_parent(child: Artifact, role: str, parent: Artifact) -> None:
    """ProvenanceError unless `child` was made from exactly this `parent` in that role, or from a table that it grew
    from; versions are told by digest."""
    made_from = child.manifest.parents.get(role)
    if made_from is None:
        raise ProvenanceError(f"{child.label} was made from no {role}", fix="name a teacher or a student")
    if made_from.digest not in (parent.digest, *_bases(parent)):
        raise ProvenanceError(
            f"{child.label} was made from {made_from.label} {made_from.digest[:8]}..., but {parent.label} is "
            f"{parent.digest[:8]}...",
            fix=f"name {made_from.label}, or make {child.kind}/{child.manifest.name} again from {parent.label}",
        )


def raw_names(table: Artifact) -> list[str]:
    """Names of all raw files of a table, those of the tables that it grew from first: a row's file is told by place."""
    names: list[str] = table.manifest.schema.get("raw") or [
        raw["name"] for raw in table.manifest.arguments.get("raw", ())
    ]
    return names


def _bases(table: Artifact) -> list[str]:
    """Digests of the tables that a table grew from, whose encoders and rows it has."""
    if BASE not in table.manifest.parents:
        return []
    return [one.parent.digest for one in lineage(table) if set(one.role.split("/")) == {BASE}]


def collect(
    root: Path | str,
    *,
    dry_run: bool,
    min_age_seconds: float = 3600.0,
    unknown_age_seconds: float = UNKNOWN_AGE_SECONDS,
    disk: Disk = DISK,
) -> list[Path]:
    """Remove what dead owners left and nothing has touched for `min_age_seconds`: staging of artifacts and checkpoints,
    and the files that Ray kept of a worker group; returns the folders.

    An owner on another host cannot be judged: its folder goes after `unknown_age_seconds` of silence. A living owner's
    folder and every committed version stay. With `dry_run` nothing is removed. Killed half way, the next one goes on.
    """
    least = {"gone": min_age_seconds, "unknown": max(min_age_seconds, unknown_age_seconds), "alive": float("inf")}
    removed = []
    for shell in sorted(found for pattern in _LEFT_BEHIND for found in Path(root).glob(pattern)):
        owner = read_owner(shell)
        if _idle_seconds(shell) < least[owner.state() if owner else "gone"]:
            continue
        if dry_run or _remove(shell, disk):
            removed.append(shell)
    return removed


def _remove(shell: Path, disk: Disk) -> bool:
    """False where a run took the folder up in the meantime."""
    if shell.name.startswith(_RAY):  # folders in folders, which no attempt ever takes up again
        shutil.rmtree(shell, ignore_errors=True)
        return True
    with explained(shell):
        try:
            take(shell, disk, unknown_too=True)
        except ResourceError:
            return False
        clear(shell, disk)
    return True


def _idle_seconds(shell: Path) -> float:
    """Seconds since anything in the folder changed; 0 if it is changing right now."""
    try:
        return time.time() - max(path.lstat().st_mtime for path in (shell, *shell.rglob("*")))
    except FileNotFoundError:
        return 0.0


def _notes(path: Path, manifest: Manifest) -> list[Problem]:
    notes = []
    label = f"{manifest.kind}/{manifest.name}/{manifest.version}"
    if path.parts[-3:] != tuple(label.split("/")):
        notes.append(Problem(f"this folder was committed as {label}", file=str(path)))
    present = {one.digest for one in list_artifacts(_root(path))} if manifest.parents else set()
    for role, parent in sorted(manifest.parents.items()):
        if parent.digest not in present:
            what = f"its {role} {parent.label} with digest {parent.digest[:12]}... is not under {_root(path)}"
            notes.append(Problem(what, file=str(path)))
    return notes


def _root(path: Path) -> Path:
    return path.parent.parent.parent
