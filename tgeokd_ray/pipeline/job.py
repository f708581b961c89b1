"""One job from its configuration to its run folder: what jobs/*.py and the command line call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tgeokd_ray.artifacts import Artifact, check_name, open_artifact, write_json
from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import ResourceError
from tgeokd_ray.events import Progress
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.engine import Engine, Lazy, LocalEngine
from tgeokd_ray.pipeline.record import Recorder
from tgeokd_ray.pipeline.results import build_results
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.training.reuse import finished


@dataclass(frozen=True)
class Place:
    """Where a job runs: in this process (`local`), on a new Ray on this machine, or on the cluster at `address`."""

    local: bool = False
    address: str | None = None
    verbose: bool = False


def run_job(job: Job, card: Card, place: Place, progress: Progress) -> tuple[dict[str, Any], Path]:
    """Run the whole chain and write the run folder; returns what results.json holds, and the folder.

    Raises the first UserError of a stage; a student that fails alone is listed in `warnings` and the others stay.
    """
    root = prepare_root(job.root, place)
    run = check_name(job.run or (card.name if job.seed == 0 else f"{card.name}-seed{job.seed}"))
    folder = root / "runs" / run
    progress = Recorder(progress, folder / "log.txt")
    engine = Lazy(opener(job, place, root, progress))
    try:
        chain = Chain(job, card, root, folder, engine, progress)
        table = chain.encode(_files(job, card))
        teacher = chain.teacher(table)
        logits = chain.precompute(table, teacher)
        students = chain.students(table, [logits])
    finally:
        engine.close()
    if all(student.error is not None for student in students):
        raise next(student.error for student in students if student.error is not None)
    done = [finished("teacher", teacher, reused=True, seconds=0.0), *students]
    results = build_results(job, run, card.name, table, done, chain.stages, progress.warnings)
    write_run_folder(folder, job, results, changed=not all(stage.reused for stage in chain.stages))
    return results, folder


def run_stage(
    name: str, job: Job, card: Card, given: Mapping[str, Artifact], place: Place, progress: Progress
) -> list[Artifact]:
    """Run one stage of the chain on the artifacts given by role; returns what it made or found."""
    root = prepare_root(job.root, place)
    engine = Lazy(opener(job, place, root, progress))
    try:
        chain = Chain(job, card, root, root / "runs" / check_name(job.run or card.name), engine, progress)
        if name == "encode":
            return [chain.encode(_files(job, card))]
        if name == "teacher":
            return [chain.teacher(given["table"])]
        if name == "precompute":
            return [chain.precompute(given["table"], given["teacher"])]
        students = chain.students(given["table"], [given["logits"]])
    finally:
        engine.close()
    for student in students:
        if student.error is not None:
            raise student.error
    return [open_artifact(Path(student.artifact)) for student in students]


def _files(job: Job, card: Card) -> list[str]:
    return [] if card.format.kind == "synthetic" else list(job.data or card.files)


def prepare_root(root: str, place: Place) -> Path:
    """The artifact root, made if need be; ResourceError where it cannot be written."""
    if place.local:
        path = Path(root).absolute()
    else:
        from tgeokd_ray.cluster.roots import resolve_root

        path = resolve_root(root)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
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


def write_run_folder(folder: Path, job: Job, results: dict[str, Any], *, changed: bool) -> None:
    """results.json, config.yaml, report.html and, where training was done, TensorBoard events."""
    from tgeokd_ray.report.html import write_report

    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False)
    (folder / "config.yaml").write_text(config)
    write_json(folder / "results.json", results)
    write_report(results | {"config": job.model_dump(mode="json")}, folder / "report.html")
    if changed:
        from tgeokd_ray.report.tensorboard import write_events

        write_events(results, folder)
