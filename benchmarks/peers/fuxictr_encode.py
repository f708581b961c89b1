"""FuxiCTR's preprocessing of one CSV file: `python fuxictr_encode.py FILE FOLDER MIN_COUNT HOW`, one line of JSON.

HOW is `build_dataset`, as its users run it, which transforms by tasks of Ray (what starting Ray costs is not counted),
or `in_process`: the same steps in batches of as many rows in this process, and the same file written.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

BATCH_ROWS = 100_000


def main(file: str, folder: str, min_count: int, how: str) -> None:
    import polars as pl
    from fuxictr.preprocess import FeatureProcessor
    from fuxictr.preprocess.build_dataset import build_dataset, init_ray

    def read_data(self: Any, data_path: str, **_: Any) -> Any:
        """As its own, which names an argument that polars 2 has no more."""
        return pl.scan_csv(data_path, schema_overrides=self.dtype_dict, low_memory=False)

    FeatureProcessor.read_data = read_data
    with Path(file).open() as lines:
        names = lines.readline().strip().split(",")
    numeric, categorical = ([name for name in names if name.startswith(kind)] for kind in "IC")
    columns = [
        {"active": True, "dtype": "float", "name": numeric, "type": "numeric", "normalizer": "StandardScaler"},
        {"active": True, "dtype": "str", "name": categorical, "type": "categorical"},
    ]
    if how == "build_dataset":
        init_ray()
    began, before = time.perf_counter(), _cpu_seconds()
    processor = FeatureProcessor(columns, {"name": "label", "dtype": "float"}, "criteo_shaped", folder)
    if how == "build_dataset":
        build_dataset(processor, train_data=file, min_categr_count=min_count)
    else:
        frame = processor.preprocess(processor.read_data(file))
        processor.fit(frame, min_categr_count=min_count)
        _transform(processor, frame.collect().to_arrow(), Path(folder) / "train.parquet")
    facts = {
        "cpu_seconds": _cpu_seconds() - before,
        "wall_seconds": time.perf_counter() - began,
        "rows": pl.scan_parquet(f"{folder}/**/train.parquet").select(pl.len()).collect().item(),
        "ids": {name: processor.feature_map.features[name]["vocab_size"] for name in categorical},
    }
    print(json.dumps(facts))


def _transform(processor: Any, table: Any, path: Path) -> None:
    import numpy as np
    import pandas as pd

    parts = []
    for first in range(0, table.num_rows, BATCH_ROWS):
        piece = table.slice(first, BATCH_ROWS)
        batch = {name: piece[name].to_numpy() for name in piece.column_names}
        parts.append(pd.DataFrame({name: np.asarray(values) for name, values in processor.transform(batch).items()}))
    pd.concat(parts).to_parquet(path)


def _cpu_seconds() -> float:
    """Of this process and of those of Ray that are still there, which all are until it is shut down."""
    import psutil

    total = 0.0
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
