"""FuxiCTR's own pass over rows (BaseModel.evaluate: AUC and log loss) on a model that was not trained.

The model and the batches are those of fuxictr_train.py: a tensor per column, ready in memory. Prints a line of JSON.
"""

from __future__ import annotations

import tempfile
import time
from importlib.metadata import version
from statistics import median

from fuxictr_train import Model, batches, feature_map
from rows import arguments, read, report, settled


def main() -> None:
    """Evaluate the held-out rows of the file a few times; rows per CPU-second, all threads together."""
    parser = arguments(__doc__)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    settled(options)
    data = read(options)
    held_out = batches(data.test, options.batch_rows)
    rows = len(data.test.labels) // options.batch_rows * options.batch_rows
    with tempfile.TemporaryDirectory() as root:
        model = Model(options.model, feature_map(data, 1), root)
        model.evaluate(held_out[: options.warm_up_steps], ["AUC", "logloss"])
        spent = []
        for _ in range(options.turns):
            began = time.process_time()
            found = model.evaluate(held_out, ["AUC", "logloss"])
            spent.append(time.process_time() - began)
    speed = rows / median(spent)
    report("fuxictr", options, rows_per_cpu_second=speed, rows=rows, auc=found["AUC"], version=version("fuxictr"))


if __name__ == "__main__":
    main()
