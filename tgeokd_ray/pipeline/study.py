"""A study: rules on datasets over seeds, each cell of it one task, and one file with what came of it."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import DISK, check_name, held, write_json
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.events import Progress
from tgeokd_ray.hashing import key
from tgeokd_ray.pipeline.engine import Engine
from tgeokd_ray.pipeline.kept import Kept, complete
from tgeokd_ray.pipeline.other_teachers import OTHER_TEACHERS
from tgeokd_ray.pipeline.rivals import RIVALS
from tgeokd_ray.pipeline.study_all import corrected, surviving
from tgeokd_ray.pipeline.study_cell import PERMUTED, TWO_PHASES, Cell, StudyCell
from tgeokd_ray.pipeline.study_models import teachers
from tgeokd_ray.pipeline.study_start import WHOLE, whole_of
from tgeokd_ray.pipeline.study_summary import nothing_to_win, summarise
from tgeokd_ray.tables.cards import load_card
from tgeokd_ray.tables.regimes.catalogue import NAMES, table_of
from tgeokd_ray.tables.validation import did_you_mean

FORMAT = 1
VERSIONS = ("torch", "numpy")
METADATA = b"tgeokd_ray.study"
RULES = ("labels", "constant", *RIVALS, *OTHER_TEACHERS, "tgeo", "tgeo_one_step", "reference", "permuted")


@dataclass(frozen=True)
class Study:
    """What is compared: names of regimes, rules beside labels, constants and the reference, and how many seeds."""

    name: str
    datasets: tuple[str, ...]
    rules: tuple[str, ...]
    seeds: int

    def check(self, data: Sequence[str], cards: Mapping[str, str] | None = None) -> None:
        """ConfigError for datasets, rules and tables of `data` that there are not, all at once, and for real data
        without files. `cards` are the files of the tables that there are, which may be asked for as a whole."""
        cards = cards or {}
        names = [*NAMES, *(f"{card}{WHOLE}" for card in cards)]
        problems = [Problem(f"no dataset {n!r}{did_you_mean(n, names)}") for n in self.datasets if n not in names]
        problems += [Problem(f"no rule {n!r}{did_you_mean(n, RULES)}") for n in self.rules if n not in RULES]
        problems += [Problem(f"data: no table {n!r}{did_you_mean(n, cards)}") for n in data if n not in cards]
        for name in self.datasets:
            whole = whole_of(name)
            table = (whole or table_of(name)) if name in names else None
            own = whole is not None and whole in cards and _brings_rows(cards[whole])
            if table is not None and table not in data and not own:
                problems.append(Problem(f"{name} is made of the table {table}", expected=f"--data {table}=FILE"))
        if PERMUTED in self.rules and TWO_PHASES not in self.rules:
            problems.append(Problem(f"{PERMUTED} deals the ratio of {TWO_PHASES} to other rows", expected=TWO_PHASES))
        if not self.datasets or self.seeds < 1:
            problems.append(Problem("a study needs a dataset and a seed", got=f"{self.datasets}, {self.seeds} seeds"))
        check_name(self.name)
        if problems:
            raise ConfigError(problems, fix=f"datasets are {', '.join(names)}; rules are {', '.join(RULES)}")


def _brings_rows(card: str) -> bool:
    """Whether a table needs no files: the card names them, or makes its rows."""
    told = load_card(card)
    return bool(told.files) or told.format.makes_rows


def run_study(
    study: Study,
    cell: StudyCell,
    folder: Path,
    engine: Callable[[], Engine],
    progress: Progress,
    command: str | None = None,
) -> dict[str, Any]:
    """Run what is missing of the cells, and write study.json and study.parquet; returns what the first holds.

    Finished cells lie in `folder/cells`, so that the same study goes on where it ended, and one with more seeds or
    datasets takes over what there is. The first error is raised where no cell came to an end. `command` is what the
    files say that they came from; the metadata of the Parquet file hold all of study.json but its rows.
    """
    study.check(list(cell.data), cell.cards)
    began = time.monotonic()
    with held(folder, DISK):
        cells = [Cell(dataset, seed) for dataset in study.datasets for seed in range(study.seeds)]
        whole = {one.dataset: cell.place(one) for one in cells if whole_of(one.dataset) is not None}
        kept = Kept(folder / "cells", _token(cell, {n: p.identity(cell.settings_for) for n, p in whole.items()}))
        for dataset in dict.fromkeys(one.dataset for one in cells if kept.get(one.name) is None):
            if dataset in whole:
                whole[dataset].encoded(cell.settings_for, engine, progress)
        told_cells = complete(kept, cells, cell, engine, progress, stage="study", unit="cells")
        rows, failed = summarise(told_cells)
        asked = {*study.rules, "labels", "constant", "reference", "tgeo.each"}
        rows = corrected([row for row in rows if row["rule"] in asked])
        results = {
            "format": FORMAT,
            "name": study.name,
            "rows": rows,
            "notes": [*nothing_to_win(rows), *surviving(rows)],
            "warnings": failed,
            "extra": {
                "settings": list(cell.settings),
                "grid": None if cell.grid is None else asdict(cell.grid),
                "teachers": teachers([one for one in told_cells if "error" not in one]),
                "command": command,
                "versions": {name: version(name) for name in VERSIONS} | {"python": platform.python_version()},
                "seconds": round(time.monotonic() - began, 1),
                "cell_seconds": round(sum(one["seconds"] for one in told_cells), 1),
            },
        }
        write_json(folder / "study.json", results)
        _write_parquet(folder / "study.parquet", results)
        progress.finished("study", f"{len(told_cells)} cells, {folder / 'study.json'}")
    return results


def _token(cell: StudyCell, whole: Mapping[str, str] | None = None) -> str:
    """What decides a cell beside its name: rules, settings, files, the grid where the study names one, and the identity
    of each `whole` table."""
    told = asdict(replace(cell, root="", folder=""))
    if cell.grid is None:
        del told["grid"]
    if whole:
        told["whole"] = sorted(whole.items())
    return f"{key(repr(sorted(told.items()))):016x}"


def _write_parquet(path: Path, results: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    told = {key: value for key, value in results.items() if key != "rows"}
    table = pa.Table.from_pylist(results["rows"])
    table = table.replace_schema_metadata({METADATA: json.dumps(told, sort_keys=True).encode()})
    draft = path.with_name(f"{path.name}.tmp")
    pq.write_table(table, draft)
    draft.replace(path)
