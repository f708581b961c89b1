"""Parameters as Optuna draws them: the same ends, scale and places as those of the space itself."""

from __future__ import annotations

import pytest

from tgeokd_ray.config.distributions import distribution
from tgeokd_ray.config.space import Parameter

distributions = pytest.importorskip("optuna").distributions


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (Parameter(log_uniform=(1e-4, 1e-1)), distributions.FloatDistribution(1e-4, 1e-1, log=True)),
        (Parameter(uniform=(0.5, 2.0)), distributions.FloatDistribution(0.5, 2.0)),
        (Parameter(int_uniform=(2, 8)), distributions.IntDistribution(2, 8)),
        (Parameter(choice=([8], [16, 8])), distributions.CategoricalDistribution((0, 1))),
        (Parameter(grid=("a", "b", "c")), distributions.CategoricalDistribution((0, 1, 2))),
    ],
)
def test_a_parameter_is_drawn_as_it_is_written(parameter: Parameter, expected: object) -> None:
    assert distribution(parameter) == expected
