"""DeepCTR-Torch's own training loop (BaseModel.fit) on the rows of a file; a line of JSON with its speed and its AUC.

Its `fit` takes arrays only, so its own loader is part of what is timed. Penalties are off: by default every step
sums the squares of the whole tables.
"""

from __future__ import annotations

import contextlib
import io
import time
from importlib.metadata import version
from typing import Any

import requests
import torch
from rows import (
    CROSS_LAYERS,
    EMBEDDING,
    HIDDEN,
    LEARNING_RATE,
    Data,
    Rows,
    arguments,
    auc,
    read,
    report,
    settled,
)

NO_PENALTIES = {"l2_reg_linear": 0, "l2_reg_embedding": 0, "l2_reg_dnn": 0}


def refuse(url: str) -> None:
    """In place of `requests.get`: the library's import asks the network for newer versions, on a thread of its own."""
    raise ConnectionError(url)


def model(kind: str, data: Data) -> Any:
    """`dnn` (WDL without its linear columns), `dcnv2` (DCN with full matrices) or `wide_deep` (WDL), with Adam."""
    from deepctr_torch.inputs import DenseFeat, SparseFeat
    from deepctr_torch.models import DCN, WDL

    numeric = [DenseFeat(f"n{column}", 1) for column in range(data.train.numeric.shape[1])]
    columns = numeric + [SparseFeat(f"c{c}", size, EMBEDDING) for c, size in enumerate(data.sizes)]
    wide = columns if kind == "wide_deep" else []
    options: dict[str, Any] = {"dnn_hidden_units": HIDDEN, **NO_PENALTIES}
    if kind == "dcnv2":
        cross = {"cross_num": CROSS_LAYERS, "cross_parameterization": "matrix", "l2_reg_cross": 0}
        built = DCN(wide, columns, **options, **cross)
    else:
        built = WDL(wide, columns, **options)
    built.compile(torch.optim.Adam(built.parameters(), lr=LEARNING_RATE), "binary_crossentropy", metrics=[])
    return built


def columns(rows: Rows) -> dict[str, Any]:
    """One array per column, as float32: `fit` joins them into one matrix and converts each batch to that type."""
    numeric = {f"n{column}": values.numpy() for column, values in enumerate(rows.numeric.T)}
    return numeric | {f"c{column}": values.float().numpy() for column, values in enumerate(rows.categorical.T)}


def part(rows: Rows, first: int, last: int | None) -> Rows:
    """The rows from `first` to before `last`."""
    return Rows(rows.numeric[first:last], rows.categorical[first:last], rows.labels[first:last])


def main() -> None:
    """Train once over the rows, score the held-out ones, print the line."""
    options = arguments(__doc__).parse_args()
    settled(options)
    data = read(options)
    requests.get = refuse
    warm = options.warm_up_steps * options.batch_rows
    seconds = 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # import and `fit` print whatever the verbosity
        network = model(options.model, data)
        for rows in (part(data.train, 0, warm), part(data.train, warm, None)):
            values, labels = columns(rows), rows.labels.numpy()
            began = time.process_time()
            network.fit(values, labels, batch_size=options.batch_rows, verbose=0, shuffle=False)
            seconds = time.process_time() - began
        scores = network.predict(columns(data.test), options.batch_rows)
    timed = len(data.train.labels) - warm
    found = {"rows_per_cpu_second": timed / seconds, "auc": auc(data.test.labels, scores)}
    steps = len(data.train.labels) // options.batch_rows
    report("deepctr", options, **found, steps=steps, version=version("deepctr-torch"))


if __name__ == "__main__":
    main()
