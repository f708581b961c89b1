"""What each command of `tgeokd` does, once its words are parsed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import yaml
from rich.console import Console
from rich.table import Table

from tgeokd_ray import artifacts
from tgeokd_ray.artifacts import Artifact, read_json
from tgeokd_ray.errors import ConfigError, IntegrityError, Problem


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def named(root: str, label: str, kind: str | None = None) -> Artifact:
    """The artifact that a user names: a folder, KIND/NAME/v000001, or KIND/NAME for the newest version.

    ConfigError where nothing of that name is there, or it is of another kind than the command needs.
    """
    candidates = [Path(label), Path(root) / label]
    for path in candidates:
        if (path / "manifest.json").exists():
            artifact = artifacts.open_artifact(path.absolute())
            break
        found = artifacts.latest(path.absolute().parent.parent, path.absolute().parent.name, path.name)
        if found is not None:
            artifact = found
            break
    else:
        known = ", ".join(a.label for a in artifacts.list_artifacts(root)[:10]) or "none"
        raise ConfigError(f"no artifact {label!r} under {root}", fix=f"name one of those there: {known}")
    if kind is not None and artifact.kind != kind:
        raise ConfigError([Problem(f"{label} is not of the right kind", expected=kind, got=artifact.kind)])
    return artifact


def check(card: str, data: Sequence[str], draft: str | None, stream: IO[str], as_json: bool) -> None:
    """Print a draft card, or the summary of raw files under a card."""
    if draft is not None:
        from tgeokd_ray.tables.draft import draft_card

        stream.write(draft_card(Path(draft)))
        return
    from tgeokd_ray.tables.cards import load_card
    from tgeokd_ray.tables.check import summarise
    from tgeokd_ray.tables.inputs import raw_files

    loaded = load_card(card)
    summary = summarise(loaded, raw_files(loaded, data))
    if as_json:
        json.dump(summary, stream)
        stream.write("\n")
        return
    from tgeokd_ray.report.terminal import summary_table

    summary_table(summary, _console())


def stage(
    name: str,
    options: dict[str, Any],
    local: bool,
    address: str | None,
    config: str | None,
    settings: Sequence[str],
    inputs: dict[str, str],
) -> None:
    """Run one stage of the chain on named artifacts."""
    from tgeokd_ray.config.resolve import resolve
    from tgeokd_ray.pipeline.job import Place, run_stage
    from tgeokd_ray.report.terminal import TerminalProgress

    job, card = resolve(options, config=config, settings=settings)
    kinds = {"table": "tables", "teacher": "teachers", "logits": "logits"}
    given = {role: named(job.root, label, kinds[role]) for role, label in inputs.items()}
    with TerminalProgress() as progress:
        made = run_stage(name, job, card, given, Place(local, address), progress)
    for artifact in made:
        print(artifact.label)


def predict(root: str, student: str, data: Sequence[str], out: str) -> None:
    """Score raw files with a student or a teacher."""
    from tgeokd_ray.pipeline.predict import predict as score
    from tgeokd_ray.report.terminal import TerminalProgress

    path = named(root, student).path
    with TerminalProgress() as progress:
        rows = score(path, data, Path(out), progress)
    print(f"{rows} rows: {out}")


def evaluate(root: str, model: str, table: str, split: str, stream: IO[str], as_json: bool) -> None:
    """Measure a committed model."""
    from tgeokd_ray.feed.table import EncodedTable
    from tgeokd_ray.report.terminal import TerminalProgress, summary_table
    from tgeokd_ray.training.assess import assess

    path = named(root, model).path
    encoded = EncodedTable.open(named(root, table, "tables").path)
    with TerminalProgress() as progress:
        results = assess(path, encoded, split, progress)
    if as_json:
        json.dump(results, stream)
        stream.write("\n")
        return
    results.pop("calibration", None)
    summary_table(results, _console())


def verify(root: str, labels: Sequence[str]) -> None:
    """Check every byte; IntegrityError lists all that is wrong."""
    problems: list[Problem] = []
    for label in labels:
        artifact = named(root, label)
        found, notes = artifacts.verify(artifact.path)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        if not found:
            print(f"{artifact.label} whole, {artifact.digest}")
        problems += found
    if problems:
        raise IntegrityError(problems, fix="make the damaged artifacts again; nothing was changed")


def list_artifacts(root: str, stream: IO[str], as_json: bool) -> None:
    """Every whole artifact: label, files, bytes, rows, digest, parents."""
    rows: list[dict[str, Any]] = [
        {
            "artifact": a.label,
            "files": len(a.manifest.files),
            "bytes": sum(entry.bytes for entry in a.manifest.files),
            "rows": sum(entry.rows or 0 for entry in a.manifest.files),
            "digest": a.digest,
            "parents": {role: parent.label for role, parent in a.manifest.parents.items()},
        }
        for a in artifacts.list_artifacts(root)
    ]
    if as_json:
        json.dump(rows, stream)
        stream.write("\n")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("artifact", "bytes", "rows", "digest", "parents"):
        table.add_column(heading, justify="right" if heading in ("bytes", "rows") else "left")
    for row in rows:
        parents = ", ".join(row["parents"].values())
        table.add_row(row["artifact"], f"{row['bytes']:,}", f"{row['rows']:,}", row["digest"][:12], parents)
    _console().print(table)


def collect(root: str, dry_run: bool) -> None:
    """Remove, or with `dry_run` only name, the staging folders of dead attempts."""
    removed = artifacts.collect(root, dry_run=dry_run)
    for path in removed:
        print(f"{'would remove' if dry_run else 'removed'} {path}")
    print(f"{len(removed)} folders")


def report(root: str, run: str) -> None:
    """Show a run again."""
    from tgeokd_ray.report.html import write_report
    from tgeokd_ray.report.terminal import results_table

    folder = next((p for p in (Path(run), Path(root) / "runs" / run) if (p / "results.json").exists()), None)
    if folder is None:
        raise ConfigError(f"no run {run!r} under {root}/runs", fix="name a folder that holds results.json")
    results = read_json(folder / "results.json")
    results_table(results, _console())
    config = yaml.safe_load((folder / "config.yaml").read_text()) if (folder / "config.yaml").exists() else {}
    write_report(results | {"config": config}, folder / "report.html")
    print(f"report: {folder / 'report.html'}")
