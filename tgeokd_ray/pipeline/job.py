"""One job from its configuration to its run folder: what jobs/*.py and the command line call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tgeokd_ray.artifacts import BASE, DISK, Artifact, check_name, held, open_artifact, write_json
from tgeokd_ray.cluster.roots import resolve_root
from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import ConfigError, Problem, ResourceError
from tgeokd_ray.events import Progress
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.effect import check_truth
from tgeokd_ray.pipeline.engine import Engine, Lazy, LocalEngine
from tgeokd_ray.pipeline.own_card import check_card
from tgeokd_ray.pipeline.record import Recorder, known_digests, write_curves
from tgeokd_ray.pipeline.results import build_results, channel_entry, told_ratio
from tgeokd_ray.pipeline.segments import check_segments
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.inputs import raw_files


@dataclass(frozen=True)
class Place:
    """Where a job runs: in this process (`local`), on a new Ray on this machine, or on the cluster at `address`."""

    local: bool = False
    address: str | None = None
    verbose: bool = False


def run_job(
    job: Job, card: Card, place: Place, progress: Progress, *, students: bool = True
) -> tuple[dict[str, Any], Path]:
    """Run the whole chain, or without `students` the chain up to the logits, and write the run folder; returns what
    results.json holds, and the folder.

    Raises the first UserError of a stage; a student that fails alone is listed in `warnings` and the others stay.
    Nothing is made where options contradict each other or a raw file is not there. ResourceError while another process
    works in the same run folder.
    """
    check_place(job, place)
    if students and "train" not in job.logits.splits:
        got = ", ".join(job.logits.splits)
        problem = Problem("logits.splits lacks train, which students learn from", expected="train among them", got=got)
        raise ConfigError([problem], fix="add it, or run jobs/precompute_logits.py, which trains no student")
    raw_files(card, job.data)
    check_segments(job, card)
    check_truth(job)
    root = prepare_root(job.root)
    run = check_name(job.run or (card.name if job.seed == 0 else f"{card.name}-seed{job.seed}"))
    folder = root / "runs" / run
    with held(folder, DISK):
        recorder = Recorder(progress, folder / "log.txt")
        engine = Lazy(opener(job, place, root, recorder))
        return _run_chain(Chain(job, card, root, folder, engine, recorder), engine, recorder, students), folder


def _run_chain(chain: Chain, engine: Lazy, progress: Recorder, with_students: bool) -> dict[str, Any]:
    job, card, folder = chain.job, chain.card, chain.folder
    try:
        table, teachers, logits = chain.to_logits()
        students = chain.students(table, [logits]) if with_students else []
        ratio = chain.ratio(table, [logits], students)
    finally:
        engine.close()
    if with_students and all(student.error is not None for student in students):
        raise next(student.error for student in students if student.error is not None)
    done = [chain.teacher_figures(teachers, logits), *students]
    results = build_results(job, folder.name, card, table, done, chain.stages, progress.warnings)
    results["extra"] |= {"logits": logits.label, **told_ratio(results["models"], ratio)}
    if chain.channel is not None:
        results["channel"] = channel_entry(chain.channel, results["table"]["classes"])
    write_run_folder(folder, job, results, reused=[run_.name for run_ in done if run_.reused])
    return results


def run_stage(
    name: str, job: Job, card: Card, given: Mapping[str, Sequence[Artifact]], place: Place, progress: Progress
) -> list[Artifact]:
    """Run one stage of the chain on the artifacts given by role; returns what it made or found.

    ConfigError where the card is not the one that made the table.
    """
    check_place(job, place)
    for table in [*given.get("table", ()), *given.get(BASE, ())]:
        check_card(card, job.card, table)
    if name == "encode":
        raw_files(card, job.data)
    root = prepare_root(job.root)
    folder = root / "runs" / check_name(job.run or card.name)
    engine = Lazy(opener(job, place, root, progress))
    alone = held(folder, DISK) if name in ("teacher", "distill") else nullcontext()
    try:
        with alone:
            return _run_stage(name, job, given, Chain(job, card, root, folder, engine, progress))
    finally:
        engine.close()


def _run_stage(name: str, job: Job, given: Mapping[str, Sequence[Artifact]], chain: Chain) -> list[Artifact]:
    if name == "encode":
        return [chain.encode(job.data, next(iter(given.get(BASE, ())), None))]
    (table,) = given["table"]
    if name == "teacher":
        return chain.teachers(table)
    if name == "import":
        return [chain.imported(table)]
    if name == "precompute":
        return [chain.precompute(table, given["teacher"])]
    students = chain.students(table, given["logits"])
    for student in students:
        if student.error is not None:
            raise student.error
    return [open_artifact(Path(student.artifact)) for student in students]


def check_place(job: Job, place: Place) -> None:
    """ConfigError for what a job without Ray could only ignore."""
    problems = []
    if place.local and job.workers > 1:
        problems.append(Problem("--local trains in this process alone", expected="workers 1", got=str(job.workers)))
    if place.local and place.address is not None:
        problems.append(Problem("--local uses no cluster", expected="no --address", got=place.address))
    if problems:
        raise ConfigError(problems, fix="leave --local out, or the other option")


def prepare_root(root: str) -> Path:
    """The artifact root, made if need be; ResourceError where it cannot be written."""
    path = resolve_root(root)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ResourceError(f"root {path} cannot be written: {error.strerror}", fix="name another --root") from None
    return path


def opener(job: Job, place: Place, root: Path, progress: Progress) -> Callable[[], Engine]:
    """What opens the engine of this job when a stage first needs it."""

    def open_engine() -> Engine:
        if place.local:
            return LocalEngine(job.device, job.threads)
        from tgeokd_ray.cluster.engine import open_engine as open_cluster

        return open_cluster(
            address=place.address,
            workers=job.workers,
            device=job.device,
            threads=job.threads,
            feed=job.feed,
            root=root,
            verbose=place.verbose,
            progress=progress,
        )

    return open_engine


def write_run_folder(folder: Path, job: Job, results: dict[str, Any], *, reused: Sequence[str]) -> None:
    """results.json, config.yaml, report.html, metrics.jsonl and TensorBoard events of all models.

    Training wrote its own lines of metrics.jsonl; those of models that were `reused` come from their histories.
    """
    from tgeokd_ray.report.html import write_report

    folder.mkdir(parents=True, exist_ok=True)
    before = known_digests(folder)
    config = yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False)
    (folder / "config.yaml").write_text(config)
    write_curves(folder, results["models"], before, reused)
    write_json(folder / "results.json", results)
    write_report(results | {"config": job.model_dump(mode="json")}, folder / "report.html")
