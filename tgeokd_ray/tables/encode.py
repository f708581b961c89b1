"""Raw files to an encoded table: ingest, fit, transform, commit; each stage is a map over items, on any engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.artifacts import BASE, Artifact, FileEntry, Staging, raw_names, staging, write_json
from tgeokd_ray.errors import DataError, UserError
from tgeokd_ray.events import Heard, Progress
from tgeokd_ray.tables.cards import ROW_ID, SPLITS, Card
from tgeokd_ray.tables.damaging import DamagedUnit, column_summary, damage_facts, damage_unit, merged_median
from tgeokd_ray.tables.encoders import Partial, fit_encoder, fit_partial
from tgeokd_ray.tables.growth import check_growth, check_new_ids, grown_schema, table_shards
from tgeokd_ray.tables.ingest import (
    SPLIT,
    IngestItem,
    RawUnit,
    check_unique,
    finished_units,
    ingest,
    ingest_plan,
    read_unit,
    row_ids,
)
from tgeokd_ray.tables.inputs import KIND, find_table, raw_files, table_inputs
from tgeokd_ray.tables.label_facts import check_trusted, label_facts, warn_of_left_out
from tgeokd_ray.tables.outcome import raise_together, returning_errors, values
from tgeokd_ray.tables.quality import bayes, check_classes, unseen_shares, warn_of_columns, warn_of_unseen
from tgeokd_ray.tables.readers import read_frames
from tgeokd_ray.tables.shards import NumberedUnit, ShardWriter, group_rows, transform_unit
from tgeokd_ray.tables.views import Encoders, card_files, columns_schema, encoder_files


class EngineMap(Protocol):
    """Maps a stage's function over its items on some engine."""

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any], *, stage: str) -> Iterator[Any]:
        """The results, in the order of the items."""


def encode(
    card: Card,
    files: Sequence[str | Path],
    root: Path,
    engine_map: EngineMap,
    progress: Progress,
    *,
    name: str | None = None,
    onto: Artifact | None = None,
) -> tuple[Artifact, bool]:
    """(ROOT/tables/NAME of these files, whether it was there already).

    Damage that the card asks for is done first. Encoders see train rows only. Memory does not grow with the number of
    rows: a few units are in it at a time. Killed anywhere, the same call goes on: raw units lie in a staging folder of
    their own, which goes once the table is there.
    DataError with the problems of all files, for repeated row ids, and for a class that the train rows lack. With
    `onto`, a table of this card, `files` are new ones: its encoders are used, its shards are taken over by reference.
    """
    name, paths = name or card.name, raw_files(card, files)
    parents = {} if onto is None else {BASE: onto}
    arguments = table_inputs(card, paths, root)
    if onto is not None:
        check_growth(card, onto, paths, [raw["sha256"] for raw in arguments["raw"]])
    there = find_table(card, paths, root, name, onto=onto)
    if there is not None:
        return there, True
    need_bytes = sum(raw["bytes"] for raw in arguments["raw"])
    with (
        staging(root, KIND, name, arguments=arguments, parents=parents, need_bytes=need_bytes) as stage,
        staging(root, KIND, name, arguments={"raw units of": stage.inputs}, parents={}) as scratch,
    ):
        heard = Heard(progress)
        work = _Work(card, stage, scratch, engine_map, heard, onto)
        read = work.ingest(ingest_plan(card, paths, first=0 if onto is None else len(raw_names(onto))))
        if table_inputs(card, paths, root) != arguments:
            raise DataError("a raw file changed while it was read", fix="run the same command again")
        units, damage = work.damage(read)
        encoders, entries = work.fit(units)
        shards = work.transform(units, entries)
        schema = work.schema(units, encoders, shards) | damage
        schema = schema if onto is None else grown_schema(schema, onto, paths)
        artifact = stage.commit(schema, {"raw_rows": sum(unit.rows for unit in units), "warnings": heard.warnings})
        shutil.rmtree(scratch.folder.parent, ignore_errors=True)
    return artifact, False


def encode_frame(
    card: Card, encoders: Encoders, path: Path, *, file_index: int = 0
) -> Iterator[tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int32]]]:
    """(row ids [N], numeric [N, P], categorical [N, F]) of each piece of a raw file, labels not needed, in order.

    A file at place `file_index` among those of a table gets the row ids that it has there.
    """
    for frame in read_frames(card, path, labels=False):
        yield row_ids(card, frame, file_index)[0], *encoders.transform(frame)


@returning_errors
def fit_unit(card: Card, scratch: Path, unit: RawUnit) -> Partial:
    """What the train rows of one raw unit say."""
    frame = read_unit(scratch, unit, [ROW_ID, SPLIT, *card.features])
    train = frame[SPLIT].to_numpy() == SPLITS.index("train")
    frame = frame if train.all() else frame.filter(pa.array(train))
    return fit_partial(card, frame, frame[ROW_ID].to_numpy())


@dataclass(frozen=True)
class _Work:
    """The stages of one encode, between its two staging folders."""

    card: Card
    stage: Staging
    scratch: Staging
    map: EngineMap
    progress: Progress
    onto: Artifact | None = None

    def ingest(self, items: Sequence[IngestItem]) -> list[RawUnit]:
        """All raw units, in the order of the items, checked as a whole."""
        folder = self.scratch.folder
        done = {item.index: finished_units(item, folder, self.scratch.kept) for item in items}
        todo = [item for item in items if done[item.index] is None]
        errors: list[UserError] = []
        self.progress.started("ingest")
        for item, outcome in zip(todo, self.map(partial(ingest, self.card, folder), todo, stage="ingest"), strict=True):
            if isinstance(outcome, UserError):
                errors.append(outcome)
                continue
            done[item.index] = outcome
            self.progress.advanced("ingest", sum(unit.rows for unit in outcome))
        raise_together(errors)
        units = [unit for item in items for unit in done[item.index] or ()]
        check_unique(self.card, units, partial(read_unit, folder))
        if self.onto is not None:
            check_new_ids(self.card, self.onto, units, partial(read_unit, folder))
        else:
            check_classes(self.card, units, self.progress)
            check_trusted(self.card, units, self.progress)
        warn_of_left_out(units, self.progress)
        unlabelled = sum(unit.unlabelled for unit in units)
        without = f", {unlabelled} in train without a label" if unlabelled else ""
        self.progress.finished("ingest", f"{sum(unit.rows for unit in units)} rows{without}")
        return units

    def damage(self, units: Sequence[RawUnit]) -> tuple[Sequence[RawUnit], dict[str, Any]]:
        """The units with the damage that the card asks for, and what the schema says of it; their truth is added."""
        damage, scratch = self.card.damage, self.scratch.folder
        if damage is None:
            return units, {}
        median = None
        if damage.where is not None and damage.where.kind == "above_median":
            summaries = self.map(partial(column_summary, damage.where.column, scratch), units, stage="median")
            median = merged_median(values(summaries))
        items = [NumberedUnit(index, unit) for index, unit in enumerate(units)]
        self.progress.started("damage", sum(unit.rows for unit in units))
        done: list[DamagedUnit] = []
        work = partial(damage_unit, self.card, median, scratch, self.stage.folder)
        for one in values(self.map(work, items, stage="damage")):
            self.stage.add(one.truth)
            self.progress.advanced("damage", one.unit.rows)
            done.append(one)
        self.progress.finished("damage", f"{sum(sum(one.flipped) for one in done)} labels wrong")
        return [one.unit for one in done], damage_facts(damage, median, done)

    def fit(self, units: Sequence[RawUnit]) -> tuple[Encoders, list[FileEntry]]:
        """The encoders and their files in the table; those that an earlier attempt wrote, and those of the table that
        this one grows from, are taken as they are."""
        names = encoder_files(self.card)
        if self.onto is not None:
            taken = {entry.path: entry for entry in self.onto.manifest.files}
            entries = [self.stage.take_over(self.onto, taken[name]) for name in names]
            return Encoders.read([self.stage.folder / name for name in names]), entries
        if self.stage.kept.keys() >= set(names):
            entries = [self.stage.kept[name] for name in names]
            for entry in entries:
                self.stage.add(entry)
            return Encoders.read([self.stage.folder / name for name in names]), entries
        todo = [unit for unit in units if unit.rows_of("train")]
        self.progress.started("fit", sum(unit.rows_of("train") for unit in todo))
        results = self.map(partial(fit_unit, self.card, self.scratch.folder), todo, stage="fit")
        partials = self._advancing(todo, values(results))
        encoder = fit_encoder(self.card, partials, folder=self.scratch.folder.parent)
        self.progress.finished("fit", f"{encoder.num_ids} ids")
        encoders = Encoders.of(encoder, self.card.teacher_only)
        return encoders, [self._write(name, part.to_json()) for name, part in zip(names, encoders.parts, strict=True)]

    def _write(self, name: str, value: Any) -> FileEntry:
        return self.stage.write(name, lambda path: write_json(path, value))

    def _advancing(self, units: Sequence[RawUnit], partials: Iterator[Partial]) -> Iterator[Partial]:
        for unit, value in zip(units, partials, strict=True):
            self.progress.advanced("fit", unit.rows_of("train"))
            yield value

    def transform(self, units: Sequence[RawUnit], encoders: Sequence[FileEntry]) -> list[FileEntry]:
        """All shards of the table; those that an earlier attempt finished with the same encoders are not redone."""
        rows = {split: sum(unit.rows_of(split) for unit in units) for split in SPLITS}
        kept = self.stage.kept if self.stage.kept.keys() >= {entry.path for entry in encoders} else {}
        old = [] if self.onto is None else table_shards(self.onto)
        first = 1 + max((shard.extra["shard"] for shard in old), default=-1)
        items = [NumberedUnit(index, unit) for index, unit in enumerate(units, first)]
        todo = [item for item in items if not kept.keys() >= set(item.shards.values())]
        shards = [self.stage.take_over(self.onto, shard) for shard in old] if self.onto is not None else []
        shards += [kept[name] for item in items if item not in todo for name in item.shards.values()]
        sizes = {split: group_rows(count) for split, count in rows.items()}
        num_classes = len(self.card.label.classes)
        writer = ShardWriter(self.scratch.folder, self.stage.folder, tuple(encoders), num_classes, sizes)
        self.progress.started("encode", sum(rows.values()))
        self.progress.advanced("encode", sum(shard.rows or 0 for shard in shards))
        for written in values(self.map(partial(transform_unit, writer), todo, stage="encode")):
            self.progress.advanced("encode", sum(shard.rows or 0 for shard in written))
            shards += written
        for shard in shards:
            self.stage.add(shard)
        for name, card in card_files(self.card).items():
            self._write(name, card)
        return shards

    def schema(self, units: Sequence[RawUnit], encoders: Encoders, shards: Sequence[FileEntry]) -> dict[str, Any]:
        """What the manifest says about the table; also warns of what the user should know."""
        extra: dict[str, Any] = {"unseen_test": unseen_shares(encoders, shards, "test")}
        warn_of_columns(encoders, self.progress)
        warn_of_unseen(extra["unseen_test"], self.progress)
        if self.card.format.kind == "synthetic":
            extra |= bayes(self.card, self.scratch.folder, units)
        return {
            "classes": list(self.card.label.classes),
            "negative": self.card.label.negative_index,
            **columns_schema(encoders),
            "weight": self.card.weight is not None,
            "rows": {split: sum(unit.rows_of(split) for unit in units) for split in SPLITS},
            **label_facts(self.card, units),
            "extra": extra,
        }
