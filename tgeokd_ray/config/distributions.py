"""Parameters of a space as Optuna knows them."""

from __future__ import annotations

from typing import Any

from tgeokd_ray.config.space import Parameter


def distribution(parameter: Parameter) -> Any:
    """What Optuna draws an encoded value of the parameter from. ImportError where Optuna is not installed."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.values is not None:
        return CategoricalDistribution(range(len(parameter.values)))
    low, high = parameter.ends
    if parameter.kind == "int_uniform":
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=parameter.kind == "log_uniform")
