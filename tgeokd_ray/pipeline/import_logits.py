"""A file of a teacher from elsewhere as an artifact like those of our own teachers: `logits/NAME`, parent the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, file_digests, find, inputs_digest, staging, write_json
from tgeokd_ray.config.job import Imported, Job
from tgeokd_ray.errors import ConfigError, DataError, Problem
from tgeokd_ray.events import Progress
from tgeokd_ray.pipeline.precompute import MEANS_SPLIT, asked_shards

# Raised when the same file and table are to give other logits than before.
IMPORTING = 1


@dataclass(frozen=True)
class Importing:
    """What decides the logits beside file and table: how the file is read, and how they are stored."""

    imported: Imported
    dtype: str = "float32"
    top_k: int | None = None
    splits: tuple[str, ...] = ("train", "outer", "valid", "test")

    @classmethod
    def of(cls, job: Job) -> Importing:
        return cls(job.teacher.imported, job.logits.dtype, job.logits.top_k, job.logits.splits)

    @property
    def file(self) -> Path:
        """The file; ConfigError where none is named, DataError where none is there."""
        named = self.imported.file
        if named is None:
            raise ConfigError("no file of logits is named", fix="--teacher-logits FILE")
        try:
            there = Path(named).is_file()
        except (OSError, ValueError):
            there = False
        if not there:
            raise DataError([Problem("there is no such file", file=named)], fix="correct the name of the file")
        return Path(named)

    def arguments(self, root: Path) -> dict[str, Any]:
        """For the artifact's digest; the file's own is cached in the root, so that it is read once."""
        (sha256,) = file_digests([self.file], root / ".cache" / "digests.json")
        return {
            "importing": IMPORTING,
            "file": {"name": self.file.name, "sha256": sha256},
            "kind": self.imported.kind,
            "calibrate": self.imported.calibrate,
            "missing": self.imported.missing,
            "dtype": self.dtype,
            "top_k": self.top_k,
            "splits": list(self.splits),
            "means": MEANS_SPLIT,
        }


def import_logits(
    root: Path, name: str, table: Artifact, importing: Importing, progress: Progress
) -> tuple[Artifact, bool]:
    """Read, check, join and commit; (artifact, whether it was there already). Nothing is visible after an error.

    ConfigError for a calibration without valid rows; DataError as `read_teacher_file`, where no id is one of the
    table, and for rows without logits unless `missing` says that they learn from labels. Warnings go to `progress`.
    """
    if importing.imported.calibrate and "valid" not in importing.splits:
        raise ConfigError(
            "--calibrate fits on the valid rows, and logits.splits leaves them out", fix="add valid to logits.splits"
        )
    parents, arguments = {"table": table.as_parent()}, importing.arguments(root)
    there = find(root, "logits", name, inputs_digest("logits", arguments, parents))
    if there is None:
        made = _import(root, name, table, importing, progress, arguments)
        tell(made, progress)
        return made, False
    tell(there, progress)
    return there, True


def _import(
    root: Path, name: str, table: Artifact, importing: Importing, progress: Progress, arguments: Mapping[str, Any]
) -> Artifact:
    from tgeokd_ray.pipeline.joining import Joining  # torch: not for a chain that finds everything finished
    from tgeokd_ray.tables.teacher_file import read_teacher_file

    shards = asked_shards(table, importing.splits, importing.dtype, importing.top_k)
    progress.started("import", sum(shard.rows or 0 for shard in shards.values()))
    schema = table.manifest.schema
    told = read_teacher_file(importing.file, schema["classes"], int(schema["negative"]), importing.imported.kind)
    if importing.arguments(root) != arguments:
        raise DataError(
            [Problem("the file changed while it was read", file=str(importing.file))], fix="run the same command again"
        )
    joining = Joining.of(table, told, importing.splits, importing.file, importing.dtype, importing.top_k)
    joining.check(refuse_missing=importing.imported.missing == "refuse")
    calibration = joining.calibrate() if importing.imported.calibrate else None
    with staging(root, "logits", name, arguments=arguments, parents={"table": table}) as stage:
        entries = []
        for path, shard in shards.items():
            entry = stage.kept.get(path) or joining.write(stage.folder, path, calibration)
            entries.append(entry)
            progress.advanced("import", shard.rows or 0)
        metrics = joining.metrics(stage.folder, entries)
        stage.write("metrics.json", lambda path: write_json(path, metrics))
        return stage.commit(schema=joining.finish(stage, entries, calibration), record={})


def tell(logits: Artifact, progress: Progress) -> None:
    """Warn of what the manifest of logits says: rows that nobody scored, ids that no row has, a limit that was hit."""
    schema, table = logits.manifest.schema, logits.manifest.parents["table"].label
    for split, rows in schema.get("uncovered", {}).items():
        what = "they learn from their labels alone" if split == MEANS_SPLIT else "no figure of the teacher counts them"
        progress.warned(f"{rows} rows of the split {split!r} have no logits in {logits.label}: {what}")
    unknown = schema.get("imported", {}).get("unknown_ids", 0)
    if unknown:
        progress.warned(f"{unknown} rows of the file behind {logits.label} are of no row of {table}: they are left out")
    lacking = [c for c, rows in zip(schema["classes"], schema["class_counts"], strict=True) if not rows]
    if lacking and MEANS_SPLIT in logits.manifest.arguments["splits"]:
        what = f"no scored train row is of class {', '.join(lacking)}"
        progress.warned(f"{what}: {logits.label} takes the uniform distribution for the mean of its teacher's")
    if schema.get("calibration", {}).get("at_limit"):
        progress.warned(f"the temperature of {logits.label} stands at its limit: do its logits fit the labels?")


def calibrated(logits: Artifact) -> str:
    """`temperature 1.234, valid NLL 0.4500 to 0.4400`, or nothing for logits that were not calibrated."""
    found = logits.manifest.schema.get("calibration")
    if found is None:
        return ""
    change = f"{found['nll_before']:.4f} to {found['nll_after']:.4f}"
    return f"temperature {found['temperature']:.4g}, valid NLL {change}"
