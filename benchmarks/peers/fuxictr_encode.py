"""FuxiCTR's preprocessing of one CSV file: `python fuxictr_encode.py FILE FOLDER MIN_COUNT`, one line of JSON.

Its FeatureProcessor reads, fits and transforms in batches of 100,000 rows, as its build_dataset asks Ray to, but in this
process: what Ray costs is not counted. The result is written as build_dataset writes it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

BATCH_ROWS = 100_000


def main(file: str, folder: str, min_count: int) -> None:
    import numpy as np
    import pandas as pd
    import polars as pl
    from fuxictr.preprocess import FeatureProcessor

    names = Path(file).open().readline().strip().split(",")
    numeric, categorical = ([name for name in names if name.startswith(kind)] for kind in "IC")
    own = {"active": True, "dtype": "float"}
    columns = [
        {**own, "name": numeric, "type": "numeric", "normalizer": "StandardScaler"},
        {**own, "name": categorical, "type": "categorical", "dtype": "str", "min_categr_count": min_count},
    ]
    began, before = time.perf_counter(), _cpu_seconds()
    processor = FeatureProcessor(columns, {"name": "label", "dtype": "float"}, "criteo_shaped", folder)
    # what its read_data does, which names an argument that polars 2 has no more
    lazy = pl.scan_csv(file, schema_overrides=processor.dtype_dict, low_memory=False)
    frame = processor.preprocess(lazy)
    processor.fit(frame, min_categr_count=min_count)
    table = frame.collect().to_arrow()
    parts = []
    for first in range(0, table.num_rows, BATCH_ROWS):
        piece = table.slice(first, BATCH_ROWS)
        batch = {name: piece[name].to_numpy() for name in piece.column_names}
        parts.append(pd.DataFrame({name: np.asarray(values) for name, values in processor.transform(batch).items()}))
    pd.concat(parts).to_parquet(Path(folder) / "train.parquet")
    facts = {
        "rows": table.num_rows,
        "cpu_seconds": _cpu_seconds() - before,
        "wall_seconds": time.perf_counter() - began,
        "ids": {name: processor.feature_map.features[name]["vocab_size"] for name in categorical},
    }
    print(json.dumps(facts))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
