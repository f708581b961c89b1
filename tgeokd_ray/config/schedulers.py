"""What a trial of a sweep reserves, and how schedulers stop or move trials."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tgeokd_ray.config.training import Count, Positive
from tgeokd_ray.tables.validation import Strict


class Resources(Strict):
    """What one trial reserves: CPUs and GPUs, or parts of one."""

    cpu: Positive = 1.0
    gpu: Annotated[float, Field(ge=0)] = 0.0


class Halving(Strict):
    """ASHA: no trial is stopped before `grace_epochs`; of those that reach a rung one in `reduction` goes on."""

    grace_epochs: Count = 1
    reduction: Annotated[int, Field(ge=2)] = 3


class Population(Strict):
    """Population based training of the fusion network's learning rate: after every `every_epochs` the worst quarter of
    the trials goes on from students of the best quarter, with another rate."""

    every_epochs: Count = 1
