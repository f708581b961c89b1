"""The dense part of a network as compiled code (torch.compile)."""

from __future__ import annotations

import copy
import os
import shutil
import warnings

import torch

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.models.network import Network

COMPILERS = ("g++", "clang++")


def compiled(network: Network) -> Network:
    """A copy of the network whose dense part is compiled at its first call, which takes up to a minute, for any number
    of rows and of embeddings.

    Its gradients can be taken once, not twice: torch's compiler has no second derivative. ConfigError where there is no
    C++ compiler, which it needs on a CPU, and for networks of images, whose packs run under torch.func.vmap.
    """
    if not network.stacks:
        raise ConfigError("training.compile is not for networks of images", fix="leave training.compile out")
    if next(network.parameters()).device.type == "cpu" and not _has_compiler():
        raise ConfigError(
            f"training.compile needs a C++ compiler, and neither CXX nor {' nor '.join(COMPILERS)} is there",
            fix="install one, or leave training.compile out",
        )
    # The compiler looks at every input's gradient while it traces, and embeddings are no leaves.
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf", UserWarning)
    fast = copy.deepcopy(network)
    fast.dense = torch.compile(network.__class__.dense.__get__(fast), dynamic=True)  # type: ignore[method-assign]
    return fast


def _has_compiler() -> bool:
    named = os.environ.get("CXX")
    return shutil.which(named) is not None if named else any(shutil.which(name) for name in COMPILERS)
