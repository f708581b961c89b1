"""Ray Tune runs the trials of a sweep: it places them, tries lost ones again, stops hopeless ones, asks Optuna.

What a trial does and what came of it is passed in and written elsewhere; of Ray's own state nothing is read back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from tgeokd_ray.cluster.beside import beside
from tgeokd_ray.cluster.environment import environment
from tgeokd_ray.cluster.failures import RAISED
from tgeokd_ray.cluster.ray_folder import ray_folder
from tgeokd_ray.config.distributions import distribution
from tgeokd_ray.config.proposals import Asked, Listed, Listener, Round
from tgeokd_ray.config.sweep import FUSION_RATE, Sweep
from tgeokd_ray.training.data import Source

Tell = Callable[[Mapping[str, float]], None]
Run = Callable[[Any, Tell, Source], None]
Member = Callable[[Any, float, Path | None, str, Callable[[Mapping[str, float], Path | None], None], Source], None]
VALUE, EPOCH, RATE = "value", "epoch", "rate"
LOST_TWICE = 2  # a trial whose process or node is lost is tried again so often
# Read in the process of a trial: its workers have so many seconds to write a checkpoint and end when it is stopped.
# Tune takes a process that is late for broken, and the next trial with it.
ENDS_IN = ("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")
# Read while a sweep begins: its own files are nobody's, and Ctrl-C is ours.
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # it prints whatever one asks for
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
}


def run_trials(what: Round, source: Source, storage: Path, workers: int = 1) -> bool:
    """Run every trial of a round, at most `concurrency` of its sweep at once; whether there was time for all of them.

    The curves of the listener are what the scheduler judges by, too. A population's `run` gets its rate, the folder of
    a checkpoint or None, and its member's name beside, and tells with a folder. `storage` is a folder that every node
    sees. A trial reserves what its sweep says; one of several `workers` so much for each, and nothing for itself, which
    only starts them and waits.
    """
    proposals, sweep = what.proposals, what.sweep
    budget, callback = _Budget(what.seconds), _Callback(proposals, what.listener)
    with environment(SETTINGS), ray_folder(storage) as folder:
        function = _member if sweep.scheduler == "pbt" else _trial
        trainable = tune.with_parameters(function, run=what.run, proposals=proposals, source=source)
        tuner = tune.Tuner(
            tune.with_resources(trainable, _resources(sweep, workers)),
            param_space=_param_space(proposals, sweep),
            tune_config=tune.TuneConfig(
                metric=VALUE,
                mode="max",
                num_samples=1 if isinstance(proposals, Listed) else proposals.number,
                # A population takes turns: all of it is begun, and what resources there are say how many run.
                max_concurrent_trials=None if sweep.scheduler == "pbt" else sweep.concurrency,
                reuse_actors=True,
                scheduler=_scheduler(sweep, what.epochs, what.listener.curves),
                search_alg=None if isinstance(proposals, Listed) else _optuna(proposals),
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(folder),
                failure_config=tune.FailureConfig(max_failures=LOST_TWICE),
                callbacks=[callback],
                stop=budget,
                verbose=0,
            ),
        )
        try:
            beside(tuner.fit, lambda: None)
        finally:
            callback.mute()  # what ends because we do is neither lost nor stopped
    return not budget.over


def _trial(config: dict[str, Any], run: Run, proposals: Listed | Asked, source: Source) -> None:
    """The trainable."""
    os.environ.setdefault(*ENDS_IN)

    def tell(metrics: Mapping[str, float]) -> None:
        tune.report(dict(metrics))

    run(proposals.unit(config), tell, source)


def _member(config: dict[str, Any], run: Member, proposals: Listed, source: Source) -> None:
    """The trainable of a population, which Tune starts again from another one's checkpoint."""

    def tell(metrics: Mapping[str, float], folder: Path | None) -> None:
        tune.report(dict(metrics), checkpoint=None if folder is None else tune.Checkpoint.from_directory(folder))

    given = tune.get_checkpoint()
    name = tune.get_context().get_trial_id()
    with nullcontext(None) if given is None else given.as_directory() as folder:
        run(proposals.unit(config), config[RATE], None if folder is None else Path(folder), name, tell, source)


def _param_space(proposals: Listed | Asked, sweep: Sweep) -> dict[str, Any]:
    """What Tune itself draws: places in the list; of a population also the first rate of each."""
    if isinstance(proposals, Asked):
        return {}
    space: dict[str, Any] = {"unit": tune.grid_search(list(range(proposals.number)))}
    if sweep.scheduler == "pbt":
        rates = [unit.points[0][FUSION_RATE] for unit in proposals.units]
        space[RATE] = tune.sample_from(lambda config: rates[config["unit"]])
    return space


def _population(sweep: Sweep) -> PopulationBasedTraining:
    low, high = sweep.space[FUSION_RATE].ends
    log = sweep.space[FUSION_RATE].kind == "log_uniform"
    return PopulationBasedTraining(
        time_attr=EPOCH,
        perturbation_interval=sweep.pbt.every_epochs,
        hyperparam_mutations={RATE: tune.loguniform(low, high) if log else tune.uniform(low, high)},
        log_config=False,
    )


def _resources(sweep: Sweep, workers: int) -> tune.PlacementGroupFactory:
    """All of a trial at once, so that trials that have a part of what they need never wait for one another."""
    one = {"CPU": sweep.resources.cpu} | ({"GPU": sweep.resources.gpu} if sweep.resources.gpu else {})
    return tune.PlacementGroupFactory([one] if workers == 1 else [{}, *[one] * workers])


def _scheduler(sweep: Sweep, epochs: int, curves: Mapping[str, Sequence[float]]) -> TrialScheduler:
    if sweep.scheduler == "none":
        return FIFOScheduler()
    if sweep.scheduler == "pbt":
        return _population(sweep)
    scheduler = ASHAScheduler(
        time_attr=EPOCH,
        max_t=epochs,
        grace_period=min(sweep.asha.grace_epochs, epochs),
        reduction_factor=sweep.asha.reduction,
        stop_last_trials=False,
    )
    (bracket,) = scheduler._brackets
    for milestone, recorded in bracket._rungs:  # it has no way to be told of trials before its time
        recorded |= {name: max(curve[: int(milestone)]) for name, curve in curves.items() if len(curve) >= milestone}
    return scheduler


def _optuna(asked: Asked) -> Any:
    """The searcher, which is told of all that is known."""
    import optuna  # an extra, which is asked for before anything starts

    from tgeokd_ray.cluster.patient import PatientOptuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    searcher = PatientOptuna(
        asked.key,
        space={name: distribution(parameter) for name, parameter in asked.space.items()},
        metric=VALUE,
        mode="max",
        points_to_evaluate=[dict(raw) for raw in asked.first],
        sampler=optuna.samplers.TPESampler(seed=asked.seed),
    )
    for raw, value in asked.known:
        searcher.add_evaluated_point(dict(raw), value if value is not None else 0.0, error=value is None)
    return searcher


class _Budget(tune.Stopper):  # type: ignore[misc]
    """Ends the sweep when its time is up; trials that run leave their checkpoints."""

    def __init__(self, seconds: float | None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds
        self.over = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        del trial_id, result
        return self.over

    def stop_all(self) -> bool:
        self.over = self.over or (self._until is not None and time.monotonic() >= self._until)
        return self.over


class _Callback(TrialProgressCallback):  # type: ignore[misc]
    """Passes on what Tune says of its trials, in place of Tune's own callback, which prints that a trial is over that
    told nothing."""

    def __init__(self, proposals: Listed | Asked | None, listener: Listener | None) -> None:
        self._proposals, self._listener = proposals, listener

    def __reduce__(self) -> tuple[Any, ...]:
        return _Callback, (None, None)  # a copy, as in Tune's snapshots of itself, hears nothing

    def mute(self) -> None:
        """Pass on nothing any more."""
        self._listener = None

    def _unit(self, trial: Any) -> Any:
        assert self._proposals is not None
        return self._proposals.unit(trial.config)

    def on_trial_start(self, **info: Any) -> None:
        if self._listener is not None:
            self._listener.began(self._unit(info["trial"]))

    def on_trial_result(self, **info: Any) -> None:
        result = info["result"]
        if self._listener is not None and result.get(VALUE) is not None:
            self._listener.told(self._unit(info["trial"]), int(result[EPOCH]), float(result[VALUE]))

    def on_trial_complete(self, **info: Any) -> None:
        if self._listener is not None:
            self._listener.ended(self._unit(info["trial"]), None)

    def on_trial_error(self, **info: Any) -> None:
        if self._listener is not None:
            self._listener.ended(self._unit(info["trial"]), _reason(info["trial"]))


def _reason(trial: Any) -> str:
    """The last failure of a trial in one line, from where Tune writes it down first; `trial.get_error` looks where it
    has not yet copied it to."""
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8") if path is not None and Path(path).exists() else ""
    lines = text.rpartition("Failure # ")[2].strip().splitlines()[1:]
    return next((line for line in reversed(lines) if RAISED.match(line)), lines[0] if lines else "nothing is known")
