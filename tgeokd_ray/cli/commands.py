"""What each command of `tgeokd` does, once its words are parsed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console

from tgeokd_ray import artifacts
from tgeokd_ray.artifacts import Artifact, Stored
from tgeokd_ray.cli.lookup import MODELS, is_store, named, root_folder, run_results
from tgeokd_ray.errors import ConfigError, IntegrityError, Problem

if TYPE_CHECKING:
    from tgeokd_ray.tables.cards import Card

# Names that promise something else than the Parquet file that predictions are.
TEXTS = (".csv", ".tsv", ".txt", ".json", ".jsonl")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def check(card: str, data: Sequence[str], draft: str | None, stream: IO[str], as_json: bool) -> None:
    """Print a draft card, or the summary of raw files under a card."""
    if draft is not None:
        from tgeokd_ray.tables.draft import draft_card

        stream.write(draft_card(Path(draft)))
        return
    from tgeokd_ray.tables.cards import load_card
    from tgeokd_ray.tables.check import in_brief, summarise
    from tgeokd_ray.tables.inputs import raw_files

    loaded = load_card(card)
    summary = summarise(loaded, raw_files(loaded, data))
    if as_json:
        json.dump(summary, stream)
        stream.write("\n")
        return
    from tgeokd_ray.report.terminal import summary_table

    summary_table(in_brief(loaded, summary), _console())


def stage(
    name: str,
    options: dict[str, Any],
    local: bool,
    address: str | None,
    config: str | None,
    settings: Sequence[str],
    inputs: Mapping[str, Sequence[str]],
) -> None:
    """Run one stage of the chain on named artifacts; where nobody names a card, the one in the table is taken."""
    from tgeokd_ray.config.resolve import resolve
    from tgeokd_ray.pipeline.job import Place, run_stage
    from tgeokd_ray.pipeline.own_card import own_card
    from tgeokd_ray.report.terminal import TerminalProgress

    tables = [label for role in ("table", artifacts.BASE) for label in inputs.get(role, ())]

    def of_table(root: str) -> tuple[str, Card]:
        return own_card(named(root_folder(root), tables[0], "tables"))

    job, card = resolve(options, config=config, settings=settings, own_card=of_table if tables else None)
    kinds = {"table": "tables", artifacts.BASE: "tables", "teacher": "teachers", "logits": "logits"}
    given = {role: [named(root_folder(job.root), label, kinds[role]) for label in inputs[role]] for role in inputs}
    if given:  # a name stands for its newest version, which need not be the one that the user thinks of
        print(f"from {', '.join(artifact.label for found in given.values() for artifact in found)}", file=sys.stderr)
    with TerminalProgress() as progress:
        made = run_stage(name, job, card, given, Place(local, address), progress)
    for artifact in made:
        print(artifact.label)
    if name == "import":
        from tgeokd_ray.pipeline.import_logits import calibrated

        for line in filter(None, map(calibrated, made)):
            print(line)


def logits(root: str | None, label: str, to: str, splits: Sequence[str], with_probabilities: bool) -> None:
    """Write logits as a plain file."""
    artifact = named(root_folder(root), label, "logits")
    from tgeokd_ray.pipeline.export_logits import export_logits

    rows, left_out = export_logits(artifact, Path(to), splits, probabilities=with_probabilities)
    print(f"{rows} rows: {to}" + (f"; {left_out} rows that nobody scored are left out" if left_out else ""))


def predict(root: str | None, student: str, data: Sequence[str], out: str) -> None:
    """Score raw files with a student or a teacher. ConfigError for the name of a text file, which `out` is not."""
    if Path(out.removesuffix(".gz")).suffix.lower() in TEXTS:
        raise ConfigError(f"--out {out}: predictions are a Parquet file", fix="name it so: --out NAME.parquet")
    path = named(root_folder(root), student, *MODELS).path
    from tgeokd_ray.pipeline.predict import predict as score
    from tgeokd_ray.report.terminal import TerminalProgress

    with TerminalProgress() as progress:
        rows = score(path, data, Path(out), progress)
    print(f"{rows} rows: {out}")


def evaluate(root: str | None, model: str, table: str, split: str, stream: IO[str], as_json: bool) -> None:
    """Measure a committed model; per-class figures carry the names of the classes, for people those for reports."""
    artifact, rows = named(root_folder(root), model, *MODELS), named(root_folder(root), table, "tables")
    from tgeokd_ray.feed.table import EncodedTable
    from tgeokd_ray.pipeline.own_card import own_card
    from tgeokd_ray.pipeline.results import by_name
    from tgeokd_ray.report.terminal import TerminalProgress, summary_table
    from tgeokd_ray.report.wording import displayed
    from tgeokd_ray.training.assess import assess

    encoded = EncodedTable.open(rows.path)
    with TerminalProgress() as progress:
        results = assess(artifact.path, encoded, split, progress)
    if as_json:
        json.dump(by_name(results, encoded.classes), stream)
        stream.write("\n")
        return
    display = own_card(rows)[1].label.display
    results = by_name(results, displayed(display, encoded.classes))
    results.pop("calibration", None)
    summary_table(results, _console())


def verify(root: str | None, labels: Sequence[str]) -> None:
    """Check every byte; IntegrityError lists all that is wrong."""
    problems: list[Problem] = []
    for label in labels:
        artifact = named(root_folder(root), label)
        found, notes = artifacts.verify(artifact.path)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        if not found:
            print(f"{artifact.label} whole, {artifact.digest}")
        problems += found
    if problems:
        raise IntegrityError(problems, fix="make the damaged artifacts again; nothing was changed")


def list_artifacts(root: str | None, stream: IO[str], as_json: bool) -> None:
    """Every whole artifact: label, files, bytes, rows, bytes of a row, digest, parents. ConfigError where there is no
    such folder. Of an object store, what its pointers say."""
    rows: list[dict[str, Any]] = [
        {
            "artifact": one.label,
            "files": len(one.manifest.files),
            "bytes": sum(entry.bytes for entry in one.manifest.files),
            "rows": sum(entry.rows or 0 for entry in one.manifest.files),
            "digest": one.manifest.digest,
            "parents": {role: parent.label for role, parent in one.manifest.parents.items()},
        }
        for one in _listed(root)
    ]
    if as_json:
        json.dump(rows, stream)
        stream.write("\n")
        return
    # Plain lines of any length: a name that is cut can be neither copied nor searched for.
    width = max([len(row["artifact"]) for row in rows], default=0)
    print(f"{'artifact':<{width}}  {'bytes':>14}  {'rows':>12}  {'a row':>7}  {'digest':<12}  parents")
    for row in rows:
        count, each = (f"{row['rows']:,}", f"{row['bytes'] / row['rows']:.1f}") if row["rows"] else ("-", "-")
        parents = ", ".join(row["parents"].values())
        facts = f"{row['bytes']:>14,}  {count:>12}  {each:>7}  {row['digest'][:12]}  {parents}"
        print(f"{row['artifact']:<{width}}  {facts}".rstrip())


def _listed(root: str | None) -> list[Artifact] | list[Stored]:
    if root is not None and is_store(root):
        return list(artifacts.pointers(artifacts.open_store(root)))
    return artifacts.list_artifacts(_folder(root, "list"))


def _folder(root: str | None, command: str) -> Path:
    """The root of the artifacts; ConfigError where there is no such folder."""
    folder = root_folder(root)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}", fix=f"name the root of the artifacts: tgeokd {command} ROOT")
    return folder


def lineage(root: str | None, label: str) -> None:
    """Print an artifact, and indented under it what it was made from, each once; raw files with their digests."""
    artifact = named(root_folder(root), label)
    print(f"{artifact.label}  {artifact.digest[:12]}")
    _print_files(artifact, "  ")
    told = {artifact.digest}
    for one in artifacts.lineage(artifact):
        *above, role = one.role.split("/")
        indent = "  " * (len(above) + 1)
        there = "" if one.artifact is not None else "  not under this root"
        print(f"{indent}{role}  {one.parent.label}  {one.parent.digest[:12]}{there}")
        if one.artifact is not None and one.parent.digest not in told:
            _print_files(one.artifact, f"{indent}  ")
        told.add(one.parent.digest)


def _print_files(artifact: artifacts.Artifact, indent: str) -> None:
    """The files from outside that an artifact was made from: raw files, or the file of a teacher from elsewhere."""
    arguments = artifact.manifest.arguments
    for file in [*arguments.get("raw", ()), *([arguments["file"]] if "file" in arguments else [])]:
        print(f"{indent}file  {file['name']}  sha256 {file['sha256'][:12]}")


def collect(root: str | None, dry_run: bool) -> None:
    """Remove, or with `dry_run` only name, what dead attempts left: staging folders, or unfinished uploads."""
    removed: list[Path] | list[str]
    if root is not None and is_store(root):
        removed = artifacts.collect_store(artifacts.open_store(root), dry_run=dry_run)
    else:
        removed = artifacts.collect(_folder(root, "gc"), dry_run=dry_run)
    for path in removed:
        print(f"{'would remove' if dry_run else 'removed'} {path}")
    print(f"{len(removed)} folders")


def report(root: str | None, run: str) -> None:
    """Show a run again, and write its report.html anew."""
    from tgeokd_ray.report.html import write_report
    from tgeokd_ray.report.terminal import results_table
    from tgeokd_ray.tables.card_yaml import read_yaml

    results, folder = run_results(root_folder(root), run)
    results_table(results, _console())
    config = read_yaml(folder / "config.yaml") if (folder / "config.yaml").exists() else {}
    write_report(results | {"config": config}, folder / "report.html")
    print(f"report: {folder / 'report.html'}")
