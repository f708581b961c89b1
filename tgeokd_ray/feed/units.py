"""What a table and its logits share: shards listed in a manifest, cut into units."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from tgeokd_ray.artifacts import Artifact, FileEntry, open_artifact
from tgeokd_ray.errors import IntegrityError, Problem, ProvenanceError


@dataclass(frozen=True)
class Unit:
    """One row group of a shard: `rows` rows from row `first` of the shard on, `labels[c]` of them of class c; rows
    without a label (-1) are in no class."""

    split: str
    shard: str
    group: int
    first: int
    rows: int
    labels: tuple[int, ...]


class Shards:
    """The shards of an artifact by name, in order; IntegrityError for a name that the manifest does not list."""

    def __init__(self, artifact: Artifact) -> None:
        listed = (entry for entry in artifact.manifest.files if "split" in entry.extra)
        self.entries = {entry.path: entry for entry in sorted(listed, key=lambda entry: entry.path)}
        self._label = artifact.label

    def entry(self, shard: str) -> FileEntry:
        if shard not in self.entries:
            raise IntegrityError([Problem(f"the manifest lists no shard {shard!r}", file=self._label)])
        return self.entries[shard]

    def of(self, split: str) -> tuple[str, ...]:
        """The names of the shards of a split."""
        return tuple(name for name, entry in self.entries.items() if entry.extra["split"] == split)


def open_kind(path: Path | str, kind: str) -> Artifact:
    """The artifact at `path`; ProvenanceError when it is of another kind."""
    artifact = open_artifact(path)
    if artifact.kind != kind:
        problem = Problem("this artifact is of another kind", str(path), expected=kind, got=artifact.kind)
        raise ProvenanceError([problem])
    return artifact


def entry_units(entry: FileEntry, num_classes: int) -> tuple[Unit, ...]:
    """The row groups of one shard of a table; IntegrityError when its entry contradicts itself."""
    groups, labels = entry.extra["groups"], entry.extra["labels"]
    unlabelled = entry.extra.get("unlabelled", [0] * len(groups))
    of_class = [sum(counts) for counts in labels]
    if sum(groups) != entry.rows or [a + b for a, b in zip_longest(of_class, unlabelled, fillvalue=0)] != groups:
        raise IntegrityError([Problem("the rows in all, per row group and per class disagree", file=entry.path)])
    if any(len(counts) != num_classes for counts in labels):
        raise IntegrityError([Problem(f"the rows per class are not of {num_classes} classes", file=entry.path)])
    firsts = np.cumsum([0, *groups]).tolist()
    return tuple(
        Unit(entry.extra["split"], entry.path, group, firsts[group], rows, tuple(labels[group]))
        for group, rows in enumerate(groups)
    )
