"""A table that grows: new raw files, encoded as the rows of an earlier table were, beside its shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tgeokd_ray.artifacts import Artifact, FileEntry, lineage, raw_names
from tgeokd_ray.errors import SHOWN, ConfigError, DataError, Problem
from tgeokd_ray.tables.cards import ROW_ID, Card
from tgeokd_ray.tables.ingest import RawUnit, ReadUnit
from tgeokd_ray.tables.label_facts import added


def table_shards(table: Artifact) -> list[FileEntry]:
    """The shards of a table, which one that grows from it holds too."""
    return [entry for entry in table.manifest.files if "split" in entry.extra]


def check_growth(card: Card, base: Artifact, paths: Sequence[Path], digests: Sequence[str]) -> None:
    """ConfigError for a synthetic table, which has no files to come, for one that is damaged on purpose, and for files
    that are in the table already, by their names or by their `digests` (sha256)."""
    if card.damage is not None or "damage" in base.manifest.schema:
        raise ConfigError(f"{base.label} is damaged on purpose: it does not grow", fix="encode all files anew")
    if card.format.makes_rows:
        raise ConfigError(f"{base.label} is {card.format.kind}: it does not grow", fix="raise format.rows in its card")
    there = set(raw_names(base))
    twice = [Problem(f"a file of this name is in {base.label} already", file=str(p)) for p in paths if p.name in there]
    if twice:
        raise ConfigError(twice, fix="name the new files only; rename a new one that merely has an old one's name")
    tables = [base, *(one.artifact for one in lineage(base) if one.artifact is not None)]
    known = {raw["sha256"]: raw["name"] for table in tables for raw in table.manifest.arguments.get("raw", ())}
    copies = [(path, known[digest]) for path, digest in zip(paths, digests, strict=True) if digest in known]
    if copies:
        what = [Problem(f"the same bytes as {name}, which is in {base.label}", file=str(path)) for path, name in copies]
        raise ConfigError(what, fix="name the new files only")


def check_new_ids(card: Card, base: Artifact, units: Sequence[RawUnit], read: ReadUnit) -> None:
    """DataError with the first row ids, and where they stand, that the table has already; places in files never
    repeat. One shard of the table is in memory at a time, and the ids of all new rows."""
    if card.row_id.kind == "file_row" or not units:
        return
    ids = np.sort(np.concatenate([read(unit, [ROW_ID])[ROW_ID].to_numpy() for unit in units]))
    found = [
        np.intersect1d(pq.read_table(base.file(shard.path), columns=["row_id"])["row_id"].to_numpy(), ids)
        for shard in table_shards(base)
    ]
    known = np.unique(np.concatenate(found))
    if len(known):
        what = f"{len(known)} row ids are in {base.label} already"
        problems = [Problem(what, column=card.row_id.column, got=str(row_id)) for row_id in known[:SHOWN].tolist()]
        raise DataError(problems, fix="name the new rows only, or encode all files anew", total=len(known))


def grown_schema(schema: dict[str, Any], base: Artifact, paths: Sequence[Path]) -> dict[str, Any]:
    """The schema of the new rows' shards together with the base's."""
    rows = {split: count + base.manifest.schema["rows"].get(split, 0) for split, count in schema["rows"].items()}
    raw = [*raw_names(base), *(path.name for path in paths)]
    return schema | added(schema, base.manifest.schema) | {"rows": rows, "raw": raw}
