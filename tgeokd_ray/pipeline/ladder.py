"""A ladder of sizes: students from near the teacher's size down, with and without distillation, over seeds."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import DISK, check_name, held, open_artifact, write_json
from tgeokd_ray.config.job import Job
from tgeokd_ray.events import Progress
from tgeokd_ray.hashing import key
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.engine import Engine
from tgeokd_ray.pipeline.kept import Kept, complete
from tgeokd_ray.pipeline.ladder_cell import LadderCell, LadderSeed
from tgeokd_ray.pipeline.ladder_sizes import Size
from tgeokd_ray.pipeline.ladder_summary import summarise
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.inputs import raw_files

FORMAT = 1
VERSIONS = ("torch", "numpy")
METADATA = b"tgeokd_ray.ladder"


@dataclass(frozen=True)
class Ladder:
    """Which sizes are compared, and over how many seeds; from those of the job on."""

    name: str
    sizes: tuple[Size, ...]
    seeds: int


def run_ladder(
    ladder: Ladder,
    job: Job,
    card: Card,
    root: Path,
    engine: Callable[[], Engine],
    progress: Progress,
    command: str | None = None,
) -> tuple[dict[str, Any], Path]:
    """Run what is missing of the seeds, write ladder.json and ladder.parquet; returns what the first holds, and the
    folder, `ROOT/studies/NAME`.

    Teacher and students of every seed are those that the job has, the students at every size; table and rows are the
    same. Finished seeds lie in the folder, so that the same ladder goes on where it ended and one with more seeds takes
    over what there is. ConfigError, before anything is trained, for a card without test rows and as `Size.most`.
    """
    raw_files(card, job.data)
    folder = root / "studies" / check_name(ladder.name)
    began = time.monotonic()
    with held(folder, DISK):
        chain = Chain(job, card, root, folder, engine, progress)
        table = chain.encode(job.data)
        chain.check_splits(table)
        if job.teacher.imported.file is not None:
            for size in ladder.sizes:
                size.most(None)
        cell = LadderCell(job, card, str(table.path), str(root), check_name(ladder.name), ladder.sizes)
        seeds = [LadderSeed(job.seed + number) for number in range(ladder.seeds)]
        kept = Kept(folder / "cells", _token(cell))
        cells = complete(kept, seeds, cell, engine, progress, stage="ladder", unit="seeds")
        failed = [f"seed {one['seed']}: {one['error']}" for one in cells if "error" in one]
        whole = [one for one in cells if "error" not in one]
        results = {
            "format": FORMAT,
            "name": ladder.name,
            "card": card.name,
            **summarise(whole),
            "seeds": len(whole),
            "warnings": [*failed, *(_too_small(rung) for rung in summarise(whole)["rungs"] if rung["model"] is None)],
            "extra": {
                "table": table.label,
                "command": command,
                "versions": {name: version(name) for name in VERSIONS} | {"python": platform.python_version()},
                "seconds": round(time.monotonic() - began, 1),
                "cell_seconds": round(sum(one["seconds"] for one in whole), 1),
            },
        }
        write_json(folder / "ladder.json", results)
        _write_parquet(folder / "ladder.parquet", results)
        progress.finished("ladder", f"{len(whole)} seeds, {folder / 'ladder.json'}")
    return results, folder


def _too_small(rung: Mapping[str, Any]) -> str:
    return f"size {rung['size']}: no student for this table has {rung['most']:,} parameters or fewer"


def _token(cell: LadderCell) -> str:
    """What decides a seed beside its number."""
    job = cell.job.model_copy(update={"seed": 0, "root": "", "run": None})
    told = {**asdict(replace(cell, root="", table="")), "job": job.model_dump(mode="json"), "card": cell.card.name}
    return f"{key(repr(sorted(told.items())) + open_artifact(Path(cell.table)).digest):016x}"


def _write_parquet(path: Path, results: Mapping[str, Any]) -> None:
    """One row for each size; the metadata hold all that is not in rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    told = {name: value for name, value in results.items() if name != "rungs"}
    table = pa.Table.from_pylist(_plain(results["rungs"]))
    table = table.replace_schema_metadata({METADATA: json.dumps(told, sort_keys=True).encode()})
    draft = path.with_name(f"{path.name}.tmp")
    pq.write_table(table, draft)
    draft.replace(path)


def _plain(rungs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rungs with columns of one type each: the model as JSON."""
    return [{**rung, "model": None if rung["model"] is None else json.dumps(rung["model"])} for rung in rungs]


def read_rungs(table: Any) -> list[dict[str, Any]]:
    """The rungs of ladder.json from the table of ladder.parquet."""
    return [{**row, "model": None if row["model"] is None else json.loads(row["model"])} for row in table.to_pylist()]
