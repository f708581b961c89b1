"""Arrays in the object store: put once by the driver, one copy per node, read without copying by every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shared:
    """Names and references of shared arrays; picklable, it keeps them alive where it is held."""

    refs: Mapping[str, list[Any]]  # a reference inside a list is not resolved on the way

    def get(self) -> dict[str, NDArray[Any]]:
        """The arrays, read-only views of the node's one copy."""
        names = list(self.refs)
        return dict(zip(names, ray.get([self.refs[name][0] for name in names]), strict=True))


def share(arrays: Mapping[str, NDArray[Any]]) -> Shared:
    """Put every array into the object store once. Numeric arrays only: others would be copied by each reader."""
    objects = [name for name, value in arrays.items() if value.dtype.hasobject]
    if objects:
        raise TypeError(f"arrays of Python objects cannot be shared: {', '.join(objects)}")
    return Shared({name: [ray.put(np.ascontiguousarray(value))] for name, value in arrays.items()})
