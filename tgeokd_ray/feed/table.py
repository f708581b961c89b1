"""Encoded tables and teacher logits as artifacts: classes, columns, splits, units, and whether two belong together.

C classes. Only manifests are read here; rows come from a reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.artifacts import Artifact, FileEntry
from tgeokd_ray.errors import ConfigError, Problem, ProvenanceError
from tgeokd_ray.feed.class_means import MEANS, load_means
from tgeokd_ray.feed.storage import Storage
from tgeokd_ray.feed.units import Shards, Unit, entry_units, open_kind

__all__ = ["EncodedTable", "LogitsTable", "Unit"]


@dataclass(frozen=True)
class EncodedTable:
    """An artifact of kind "tables", opened with its manifest checked and the files' sizes, no more.

    `open` raises IntegrityError for a damaged artifact and ProvenanceError for one of another kind. The columns are
    those that the student sees, or with `whole` also those that the teacher alone sees, which come after them.
    """

    artifact: Artifact
    whole: bool = False

    @classmethod
    def open(cls, path: Path | str, *, model: str = "students") -> EncodedTable:
        """The table as a model of the kind `model` sees it: "teachers" sees all columns."""
        return cls(open_kind(path, "tables"), whole=model == "teachers")

    def seen_by(self, model: str) -> EncodedTable:
        """The same table as a model of this kind sees it."""
        return EncodedTable(self.artifact, whole=model == "teachers")

    @property
    def label(self) -> str:
        """`tables/criteo/v000001`."""
        return self.artifact.label

    @property
    def schema(self) -> Mapping[str, Any]:
        return self.artifact.manifest.schema

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of their indices."""
        return tuple(self.schema["classes"])

    @property
    def negative(self) -> int:
        """The index of the class that stands for "no event"."""
        return int(self.schema["negative"])

    @property
    def image(self) -> Mapping[str, Any] | None:
        """Channels, height, width and scale of the images that the rows are; None for other rows."""
        found: Mapping[str, Any] | None = self.schema.get("image")
        return found

    @property
    def num_numeric(self) -> int:
        """Numeric columns, or pixels of an image."""
        image = self.image
        pixels = 0 if image is None else image["channels"] * image["height"] * image["width"]
        return int(pixels) + sum(len(view["numeric"]) for view in self._views)

    @property
    def num_categorical(self) -> int:
        return sum(len(view["categorical"]) for view in self._views)

    @property
    def num_ids(self) -> int:
        return int(self._views[-1]["num_ids"])

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """The columns of a shard that hold this view's features."""
        if self.image is not None:
            return ("numeric",)
        views = zip(("", "teacher_"), self._views, strict=False)
        return tuple(f"{place}{kind}" for place, view in views for kind in ("numeric", "categorical") if view[kind])

    @property
    def _views(self) -> tuple[Mapping[str, Any], ...]:
        """What the schema says of the student's columns, then of the teacher's own where they are seen."""
        own = self.schema.get("teacher_only") if self.whole else None
        return (self.schema,) if own is None else (self.schema, own)

    @property
    def has_weights(self) -> bool:
        return bool(self.schema["weight"])

    @property
    def splits(self) -> dict[str, int]:
        """Rows per split."""
        return {split: sum(unit.rows for unit in units) for split, units in self._units.items()}

    def units(self, split: str) -> tuple[Unit, ...]:
        """The row groups of a split in stored order: by shard name, then by position. ConfigError if there is none."""
        if split not in self._units:
            near = get_close_matches(split, self._units, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self._units)}"
            raise ConfigError(f"unknown split {split!r} of {self.label}; {hint}")
        return self._units[split]

    def shard_units(self, shard: str) -> tuple[Unit, ...]:
        """The row groups of one shard in stored order."""
        return entry_units(self.entry(shard), len(self.classes))

    def entry(self, shard: str) -> FileEntry:
        """The manifest's entry of a shard; IntegrityError if there is none."""
        return self._shards.entry(shard)

    def label_counts(self, *splits: str) -> NDArray[np.int64]:
        """Rows per class of these splits together, [C]; rows without a label are in none."""
        counts = np.asarray([unit.labels for split in splits for unit in self.units(split)], dtype=np.int64)
        total: NDArray[np.int64] = counts.reshape(-1, len(self.classes)).sum(axis=0)
        return total

    @cached_property
    def _shards(self) -> Shards:
        return Shards(self.artifact)

    @cached_property
    def _units(self) -> dict[str, tuple[Unit, ...]]:
        found: dict[str, tuple[Unit, ...]] = dict.fromkeys(self.schema["rows"], ())
        for shard, entry in self._shards.entries.items():
            split = entry.extra["split"]
            found[split] = found.get(split, ()) + self.shard_units(shard)
        return found


@dataclass(frozen=True)
class LogitsTable:
    """An artifact of kind "logits": one teacher's logits for the rows of a table's splits, and class means.

    Its shards have the names of the table's, with columns row_id, fold and those of `storage`. With `table`, `open`
    also makes sure that the two belong together.
    """

    artifact: Artifact

    @classmethod
    def open(cls, path: Path | str, table: EncodedTable | None = None) -> LogitsTable:
        logits = cls(open_kind(path, "logits"))
        if table is not None:
            logits.check_table(table)
        return logits

    @property
    def label(self) -> str:
        """`logits/criteo/v000001`."""
        return self.artifact.label

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.artifact.manifest.schema["classes"])

    @cached_property
    def storage(self) -> Storage:
        """How the logits of a row are stored."""
        return Storage.from_json(self.artifact.manifest.schema["storage"])

    @property
    def uncovered(self) -> dict[str, int]:
        """Rows that nobody scored, by split; only splits that have some."""
        return dict(self.artifact.manifest.schema.get("uncovered", {}))

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Scored train rows per class, [C]."""
        return np.asarray(self.artifact.manifest.schema["class_counts"], dtype=np.int64)

    @cached_property
    def class_means(self) -> NDArray[np.float32]:
        """Mean teacher distribution over the train rows of each class, [C, C]; row c belongs to class c.

        The row of a class in `missing_classes` is the uniform distribution.
        """
        return load_means(self.artifact.file(MEANS))

    @property
    def missing_classes(self) -> tuple[int, ...]:
        """The classes without a train row: their mean teacher distribution is not defined."""
        return tuple(int(index) for index in np.flatnonzero(self.class_counts == 0))

    def entry(self, shard: str) -> FileEntry:
        """The manifest's entry of a shard; IntegrityError if there is none."""
        return self._shards.entry(shard)

    def shards(self, split: str) -> tuple[str, ...]:
        """The names of the shards of a split, in order."""
        return self._shards.of(split)

    def check_table(self, table: EncodedTable) -> None:
        """ProvenanceError when the logits were made from another table, or for other classes or another class order."""
        parent = self.artifact.manifest.parents["table"]
        if parent.digest != table.artifact.digest:
            raise ProvenanceError(
                f"{_spoken(self.artifact)} was made from {parent.kind}/{parent.name} {parent.digest[:8]}..., "
                f"but {_spoken(table.artifact)} is {table.artifact.digest[:8]}...",
                fix="run tgeokd precompute on this table",
            )
        if self.classes != table.classes:
            what = f"{self.label} has other classes, or another order of them, than {table.label}"
            expected, got = ", ".join(table.classes), ", ".join(self.classes)
            raise ProvenanceError([Problem(what, expected=expected, got=got)], fix="run tgeokd precompute")

    def check_aligned(self, table: EncodedTable, split: str) -> bool:
        """True when row k of every row group of the split has the same id here and in the table.

        The manifests' digests of row ids and the row groups are compared; no file is read. ProvenanceError as
        `check_table`.
        """
        self.check_table(table)
        shards = {unit.shard for unit in table.units(split)}
        return shards <= set(self.shards(split)) and all(
            self.entry(shard).extra[fact] == table.entry(shard).extra[fact]
            for shard in shards
            for fact in ("row_ids", "groups")
        )

    @cached_property
    def _shards(self) -> Shards:
        return Shards(self.artifact)


def _spoken(artifact: Artifact) -> str:
    return f"{artifact.kind}/{artifact.name} {artifact.version}"
