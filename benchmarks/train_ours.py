"""Our student on the rows of a file, as a peer's script does it: one line of JSON with its speed and its AUC.

python benchmarks/train_ours.py FILE [--model dcnv2] [--embedding lazy_adam] [--precision bf16] [--compile] [--steps N]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from student_steps import BATCH, EMBEDDING_RATES, EMBEDDINGS, MODELS, Running, Student, Table
from workload import Clicks

from tgeokd_ray.metrics import Evaluation

WARM_UP = 5


def main() -> None:
    """Train once over the rows, score the held-out ones, print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", choices=MODELS, default="dnn")
    parser.add_argument("--embedding", choices=EMBEDDING_RATES, help="default: the model's")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--steps", type=int, help="steps in all, warm-up included (default: once over the file)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compile the dense part")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test, num_ids = _read(options.file)
    whole = len(train.labels) // BATCH
    steps = whole if options.steps is None else min(options.steps, whole)
    embedding = options.embedding or EMBEDDINGS[options.model]
    student = Student(options.model, num_ids, embedding, options.precision == "bf16", compile=options.compile)
    running = Running(student, train)
    for _ in range(WARM_UP):
        running.step()
    began = time.process_time()
    for _ in range(steps - WARM_UP):
        running.step()
    spent = time.process_time() - began
    evaluation = Evaluation(2, negative_class=0)
    evaluation.add(torch.cat(list(running.logits(test))).float().numpy(), test.labels.numpy(), None)
    speed = BATCH * (steps - WARM_UP) / spent
    found = {"rows_per_cpu_second": speed, "auc": evaluation.results()["auc"], "steps": steps}
    print(json.dumps({"peer": "ours", "model": options.model, "precision": options.precision} | found), flush=True)


def _read(path: Path) -> tuple[Table, Table, int]:
    with np.load(path, allow_pickle=False) as file:
        num_ids = int(file["sizes"].sum())
        parts = [
            Clicks(*(file[f"{prefix}{name}"] for name in ("numeric", "categorical", "labels")))
            for prefix in ("", "test_")
        ]
    train, test = (Table.of(part, num_ids) for part in parts)
    return train, test, num_ids


if __name__ == "__main__":
    main()
