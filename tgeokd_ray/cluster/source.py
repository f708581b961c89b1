"""Where a worker on the cluster gets its rows and class means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.cluster.data import RayDataReader
from tgeokd_ray.cluster.shared_rows import SharedRows
from tgeokd_ray.cluster.store import Shared
from tgeokd_ray.feed import LogitsTable, Rows, UnitReader, Wanted

FeedKind = Literal["direct", "ray_data"]


@dataclass(frozen=True)
class ClusterSource:
    """A training.data.Source: units read by the worker itself ("direct") or by Ray Data tasks ("ray_data"), class means
    from the object store, by the path of their logits, and splits from there too; a worker reads what is not shared."""

    feed: FeedKind
    means: Shared
    shared: SharedRows = field(default_factory=lambda: SharedRows({}))

    def reader(self, wanted: Wanted) -> UnitReader:
        direct = wanted.direct()
        return RayDataReader(direct) if self.feed == "ray_data" else direct

    def rows(self, wanted: Wanted) -> Rows | None:
        return self.shared.get(wanted)

    def class_means(self, logits: LogitsTable) -> NDArray[np.float32]:
        means = self.means.get().get(str(logits.artifact.path))
        return logits.class_means if means is None else means
