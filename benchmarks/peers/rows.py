"""What every peer's script shares: the rows of a file, the clock, and the line of JSON. Needs torch and numpy alone.

N rows, B rows of a batch, 13 numeric and 26 categorical columns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

HIDDEN = [400, 400, 400]
EMBEDDING, CROSS_LAYERS, LEARNING_RATE = 16, 3, 1e-3
MODELS = ("dnn", "dcnv2", "wide_deep")
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Rows:
    """numeric [N, 13], ids within each column [N, 26], labels [N] as float32."""

    numeric: Tensor
    categorical: Tensor
    labels: Tensor

    def batches(self, batch_rows: int) -> Iterator[Rows]:
        """Whole batches, in the file's order."""
        for start in range(0, len(self.labels) - batch_rows + 1, batch_rows):
            part = slice(start, start + batch_rows)
            yield Rows(self.numeric[part], self.categorical[part], self.labels[part])


@dataclass(frozen=True)
class Data:
    """Rows to train on, held-out rows to score, and the ids of each categorical column."""

    train: Rows
    test: Rows
    sizes: list[int]


class Clocked(Generic[Batch]):
    """Batches that note the process's CPU seconds at which each is asked for.

    The steps between the end of the warm-up and the asking for the last batch are timed: what a training loop does
    after its last step (evaluation, a checkpoint) is not.
    """

    def __init__(self, batches: Sequence[Batch], warm_up_steps: int) -> None:
        self.batches = batches
        self.warm_up_steps = warm_up_steps
        self.asked: list[float] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.asked.append(time.process_time())
            yield batch

    def rows_per_cpu_second(self, batch_rows: int) -> float:
        """Rows of the timed steps over their CPU seconds, all threads together."""
        timed = self.asked[self.warm_up_steps :]
        return batch_rows * (len(timed) - 1) / (timed[-1] - timed[0])


def arguments(description: str, models: Sequence[str] = MODELS) -> argparse.ArgumentParser:
    """The options that every script takes; the file is the first argument."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("file", help="the rows, as benchmarks/workload.py writes them")
    shared(parser, models)
    return parser


def shared(parser: argparse.ArgumentParser, models: Sequence[str] = MODELS) -> None:
    """Model, batch rows, steps, warm-up and threads."""
    parser.add_argument("--model", choices=models, default=models[0])
    parser.add_argument("--batch-rows", type=int, default=4096)
    steps = "steps in all, warm-up included; rows come again where the file is short (default: once over the file)"
    parser.add_argument("--steps", type=int, help=steps)
    parser.add_argument("--warm-up-steps", type=int, default=5, help="steps before the clock starts (default: 5)")
    parser.add_argument("--threads", type=int, default=1)


def settled(options: argparse.Namespace) -> None:
    """Set the number of threads and the seed."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)


def read(options: argparse.Namespace) -> Data:
    """The file's rows, cut or repeated to `--steps` whole batches; SystemExit where they are too few to time a step."""
    with np.load(options.file, allow_pickle=False) as file:
        columns = {name: torch.from_numpy(file[name]) for name in file.files}
    whole = len(columns["labels"]) // options.batch_rows
    steps = options.steps or whole
    least = options.warm_up_steps + 2
    if not whole or steps < least:
        raise SystemExit(f"{options.file}: {steps} steps of {options.batch_rows} rows, at least {least} are needed")
    names = ("numeric", "categorical", "labels")
    order = torch.arange(steps * options.batch_rows) % (whole * options.batch_rows)
    train = Rows(*(columns[name][order] for name in names))
    return Data(train, Rows(*(columns[f"test_{name}"] for name in names)), columns["sizes"].tolist())


def auc(labels: Tensor, scores: Any) -> float:
    """Area under the ROC curve by scikit-learn, which both libraries bring along."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels.numpy(), np.asarray(scores).reshape(-1)))


def report(peer: str, options: argparse.Namespace, **found: Any) -> None:
    """Print the line of JSON."""
    print(json.dumps({"peer": peer, "model": options.model, **found}), flush=True)
