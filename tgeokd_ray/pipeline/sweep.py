"""A sweep from its file to its leaderboard and its best student: what jobs/sweep.py and `tgeokd sweep` call."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import DISK, Artifact, check_name, held, open_artifact
from tgeokd_ray.config.proposals import Round
from tgeokd_ray.config.sweep import Resolved
from tgeokd_ray.errors import (
    ConfigError,
    DataError,
    IntegrityError,
    Problem,
    ProvenanceError,
    ResourceError,
    UserError,
)
from tgeokd_ray.events import Progress
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.engine import Engine, Lazy
from tgeokd_ray.pipeline.job import Place, opener, prepare_root, write_run_folder
from tgeokd_ray.pipeline.record import Recorder
from tgeokd_ray.pipeline.results import build_results
from tgeokd_ray.pipeline.sweep_board import STAGE, Board, best_of
from tgeokd_ray.pipeline.sweep_check import check_cluster, check_more, check_sweep
from tgeokd_ray.pipeline.sweep_confirm import confirm
from tgeokd_ray.pipeline.sweep_journal import Journal, Trial, trial_name
from tgeokd_ray.pipeline.sweep_population import Member
from tgeokd_ray.pipeline.sweep_record import FILE, begin, begun, keep_sweep, told_sweep
from tgeokd_ray.pipeline.sweep_student import ForGood, point_job, student_plan
from tgeokd_ray.pipeline.sweep_student import Place as StudentPlace
from tgeokd_ray.pipeline.sweep_trial import Trials, Unit
from tgeokd_ray.pipeline.sweep_units import first_runs, proposals, total_of
from tgeokd_ray.training.spec import Finished, RunSpec

ERRORS = {e.code: e for e in (ConfigError, DataError, ProvenanceError, IntegrityError, ResourceError, UserError)}


@dataclass(frozen=True)
class Prepared:
    """What trials start from, and where the sweep is."""

    resolved: Resolved
    chain: Chain
    table: Artifact
    logits: Artifact
    teachers: Sequence[Artifact]
    trials: Trials

    @property
    def place(self) -> StudentPlace:
        """Where students of the sweep come from and go."""
        chain = self.chain
        return StudentPlace(chain.card.name, self.table, self.logits, chain.root, chain.folder)

    @property
    def parents(self) -> dict[str, Artifact]:
        """What the sweep is made from."""
        return {"table": self.table, "logits": self.logits}


def run_sweep(
    resolved: Resolved, place: Place, progress: Progress, *, add_trials: int = 0, resume: bool = False
) -> tuple[dict[str, Any], Path]:
    """Make table and logits where they are not there, try what is still to be tried, train the best student for good;
    returns what results.json holds, and the run folder.

    The same sweep goes on where it ended; with `resume` it must have begun. ConfigError, before anything starts, for
    what can't be placed and for another sweep of this name. A failed trial is listed; the first one's error is raised
    where none finished.
    """
    began = time.monotonic()
    check_sweep(resolved, place)
    check_more(resolved.sweep, add_trials)
    root = prepare_root(resolved.job.root)
    folder = root / "runs" / check_name(resolved.name)
    if resume and not (folder / FILE).exists():
        raise ConfigError(f"--resume: there is no sweep runs/{folder.name} under {root}", fix="leave --resume out")
    begun(folder, resolved.identity, resolved.sweep.trials)
    with held(folder, DISK):
        recorder = Recorder(progress, folder / "log.txt")
        engine = Lazy(opener(resolved.job, place, root, recorder))
        try:
            check_cluster(resolved.sweep, place, engine)
            prepared = prepare(resolved, root, folder, engine, recorder)
            state = begin(folder, resolved, prepared.parents, add_trials)
            known, left = _tried(prepared, state.trials, engine, recorder, began)
            best = best_of(known, resolved.sign)
            if best is None:
                raise _no_winner(known, left)
            finished = _for_good(prepared, best)
            confirmed = confirm(resolved, best, prepared.chain, prepared.place)
        finally:
            engine.close()
        told = told_sweep(resolved, state, list(known.values()), left, round(time.monotonic() - began, 3))
        told |= {"confirmation": confirmed}
        return _written(prepared, told, best, finished, folder, recorder), folder


def prepare(resolved: Resolved, root: Path, folder: Path, engine: Callable[[], Engine], progress: Progress) -> Prepared:
    """The chain up to the logits, and what trials start from."""
    job, card = resolved.job, resolved.card
    chain = Chain(job, card, root, folder, engine, progress)
    table, teachers, logits = chain.to_logits()
    trials = Trials(
        job,
        card.name,
        str(table.path),
        str(logits.path),
        folder,
        epochs=resolved.most_epochs + 1,
        device="cuda" if resolved.sweep.resources.gpu else "cpu",
        seeds=resolved.sweep.seeds,
        cpu=resolved.sweep.resources.cpu,
        memory_mib=resolved.sweep.memory_mib,
    )
    return Prepared(resolved, chain, table, logits, teachers, trials)


def _tried(
    prepared: Prepared, number: int, engine: Callable[[], Engine], progress: Recorder, began: float
) -> tuple[dict[str, Trial], int]:
    """All trials that are over, and how many of `number` are not. TPE may think of a point twice, so it is asked until
    there are enough, or nothing new comes of it."""
    resolved, trials = prepared.resolved, prepared.trials
    sweep, journal = resolved.sweep, Journal(trials.folder)
    known = journal.known()
    pbt = sweep.scheduler == "pbt"
    board = Board(journal, resolved.metric, resolved.sign, trials.epochs, progress, known, population=pbt)
    total = total_of(sweep, number)
    if known:
        progress.finished(STAGE, f"{len(known)} of {total} are over and are kept")
    progress.started(STAGE, max(total - len(known), 0), "trials")
    while (what := proposals(sweep, trials, number, known)) is not None:
        before = len(known)
        seconds = None if sweep.budget_minutes is None else began + 60 * sweep.budget_minutes - time.monotonic()
        run = Member(trials, sweep.pbt.every_epochs) if pbt else trials
        one = Round(run, what, sweep, trials.epochs, _shared_by(prepared), board, seconds)
        whole = engine().trials(one, progress)
        known |= journal.known()
        if not whole:
            progress.warned(f"the budget of {sweep.budget_minutes:g} minutes is used up: the same command goes on")
            break
        if len(known) == before:
            break
    homes = [trials.home(trial.name) for trial in known.values() if trial.status != "finished"]
    for home in homes if len(known) < total else [trials.folder / "work"]:
        shutil.rmtree(home, ignore_errors=True)  # what was stopped, lost, or has other company now could not clear up
    failed = [trial for trial in known.values() if trial.status == "failed"]
    for trial in failed:
        progress.warned(f"{trial.name} failed: {trial.reason}")
    progress.finished(STAGE, board.note)
    return known, max(total - len(known), 0)


def _shared_by(prepared: Prepared) -> list[RunSpec]:
    """Runs that read all that any trial reads from the start."""
    return [spec for point in prepared.resolved.samples for spec in first_runs(point, prepared.trials)]


def _for_good(prepared: Prepared, best: Trial) -> Finished:
    """The best student, trained once more and measured on test."""
    plan = student_plan(prepared.resolved.job, best.point, prepared.place)
    runs = prepared.chain.planned("best", ForGood(plan, prepared.resolved.name))
    wrong = next((run.error for run in runs if run.error is not None), None)
    if wrong is not None:
        raise wrong
    return runs[-1]


def _no_winner(known: dict[str, Trial], left: int) -> UserError:
    failed = sorted((trial for trial in known.values() if trial.status == "failed"), key=lambda trial: trial.name)
    if not failed:
        return ResourceError(
            f"no trial is finished, {left} are left", fix="more budget_minutes; the same command goes on"
        )
    problems = [Problem(f"trial {trial.name}: {trial.reason}") for trial in failed]
    problems += [Problem(f"{left} more are not over, with which the same command goes on")] * (left > 0)
    error = ERRORS.get(failed[0].code or "", UserError)
    return error(problems, fix="no trial finished; errors/ in the run folder has tracebacks of what is unexpected")


def _written(
    prepared: Prepared, told: dict[str, Any], best: Trial, finished: Finished, folder: Path, progress: Recorder
) -> dict[str, Any]:
    """The artifact of the sweep and its run folder."""
    from tgeokd_ray.report.tensorboard import write_trials

    resolved, chain = prepared.resolved, prepared.chain
    job = point_job(resolved.job, best.point)
    student = open_artifact(Path(finished.artifact))
    config = job.model_dump(mode="json", exclude={"root", "run", "checkpoint_seconds", "profile"})
    kept = keep_sweep(chain.root, resolved, told, config, prepared.parents | {"student": student})
    progress.finished("sweep", kept.label)
    done = [chain.teacher_figures(prepared.teachers, prepared.logits), finished]
    results = build_results(job, folder.name, chain.card, prepared.table, done, chain.stages, progress.warnings)
    results["extra"] |= {"sweep": told | {"artifact": kept.label}, "logits": prepared.logits.label}
    write_run_folder(folder, job, results, reused=[run.name for run in done if run.reused])
    write_trials(told, folder)
    return results


def dry_run(resolved: Resolved, place: Place, progress: Progress, *, add_trials: int = 0) -> dict[str, Any]:
    """What the sweep would do: its space, the number of its trials, and how long they take, from one trial that is
    trained for this on a CPU and thrown away. Table and logits are made and stay. ConfigError as of `run_sweep`."""
    check_sweep(resolved, place)
    check_more(resolved.sweep, add_trials)
    root = prepare_root(resolved.job.root)
    folder = root / "runs" / check_name(resolved.name)
    there = begun(folder, resolved.identity, resolved.sweep.trials)
    with held(folder, DISK):
        engine = Lazy(opener(resolved.job, place, root, progress))
        try:
            check_cluster(resolved.sweep, place, engine)
            prepared = prepare(resolved, root, folder, engine, progress)
            known = len(Journal(folder).known())
        finally:
            engine.close()
        return _measured(prepared, there.trials + add_trials, known)


def _measured(prepared: Prepared, number: int, known: int) -> dict[str, Any]:
    import tempfile

    from tgeokd_ray.training.data import DirectSource

    resolved, sweep = prepared.resolved, prepared.resolved.sweep
    number = total_of(sweep, number)
    with tempfile.TemporaryDirectory(prefix=".dry-", dir=prepared.trials.folder) as home:
        alone = prepared.trials.job.model_copy(update={"workers": 1})
        trials = replace(prepared.trials, job=alone, folder=Path(home), device="cpu")
        point = resolved.samples[0]
        trials(Unit((point,)), _nobody, DirectSource())
        trial = Journal(Path(home)).get(trial_name(point))
    assert trial is not None, "a trial leaves an entry whatever happens in it"
    again = 0 if sweep.confirm is None else 2 * sweep.confirm  # students, one after another
    waits = -(-max(number - known, 0) // sweep.concurrency)
    return {
        "name": resolved.name,
        "space": {name: p.model_dump(mode="json", exclude_none=True) for name, p in sweep.ordered.items()},
        "trials": number,
        "over": known,
        "point": dict(point),
        "trial_seconds": trial.seconds,
        "failed": trial.reason,
        "expected_seconds": waits * trial.seconds + again * trial.seconds / sweep.seeds,
        "confirm": sweep.confirm,
        "concurrency": sweep.concurrency,
    }


def _nobody(told: Mapping[str, float]) -> None:
    del told
