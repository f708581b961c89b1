"""How much each parameter decides whether a trial is among the best tenth: Optuna's figures (PED-ANOVA)."""

from __future__ import annotations

from collections.abc import Sequence

from tgeokd_ray.config.distributions import distribution
from tgeokd_ray.config.space import Space
from tgeokd_ray.pipeline.sweep_journal import Trial

LEAST = 4  # finished trials; of fewer there is nothing to explain


def importance(
    space: Space, trials: Sequence[Trial], *, higher_is_better: bool
) -> tuple[dict[str, float] | None, str | None]:
    """The share of each parameter that all finished trials have, largest first, and None; or None, and why."""
    finished = [trial for trial in trials if trial.status == "finished" and trial.value is not None]
    shared = [name for name in space if all(name in trial.point for trial in finished)]
    varied = [name for name in shared if len({str(trial.point[name]) for trial in finished}) > 1]
    if len(finished) < LEAST:
        return None, f"{len(finished)} finished trials say nothing of it, {LEAST} are needed"
    if not varied:
        return None, "no parameter that all trials have was varied"
    if len({trial.value for trial in finished}) == 1:
        return None, "all trials are equally good"
    try:
        import optuna
    except ImportError:
        return None, "Optuna is not installed: pip install 'tgeokd-ray[tune]'"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize")
    distributions = {name: distribution(space[name]) for name in varied}
    for trial in finished:
        params = {name: space[name].encoded(trial.point[name]) for name in varied}
        study.add_trial(optuna.trial.create_trial(value=trial.value, params=params, distributions=distributions))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    try:
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied)
    except (ValueError, RuntimeError) as error:
        return None, f"Optuna: {error}"
    return {name: float(share) for name, share in shares.items()}, None
