"""FBGEMM's table-batched embedding, TorchRec's kernel, in a plain loop: row-wise Adagrad inside the backward pass.

The ids of each batch lie ready column by column with their offsets, as TorchRec's own batches do.
"""

from __future__ import annotations

import logging
from importlib.metadata import version

import torch
from dense import PRECISIONS, Dense, trainer
from rows import EMBEDDING, Clocked, Rows, arguments, auc, read, report, settled

TABLE_RATE = 0.05


def tables(sizes: list[int]) -> torch.nn.Module:
    """One table per column in host memory, one lookup for all; initial values as TorchRec draws them."""
    logging.disable(logging.CRITICAL)  # it warns of every pair of versions that its own list does not hold
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    built = SplitTableBatchedEmbeddingBagsCodegen(
        [(size, EMBEDDING, EmbeddingLocation.HOST, ComputeDevice.CPU) for size in sizes],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=TABLE_RATE,
        pooling_mode=PoolingMode.SUM,
    )
    for weights, size in zip(built.split_embedding_weights(), sizes, strict=True):
        weights.data.uniform_(-(size**-0.5), size**-0.5)
    return built


def main() -> None:
    """Train once over the rows, score the held-out ones, print the line."""
    parser = arguments(__doc__, ("dnn", "dcnv2"))
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--compile", action="store_true", help="compile the dense part")
    options = parser.parse_args()
    settled(options)
    data = read(options)
    embedding = tables(data.sizes)
    dense = Dense(options.model, data.train.numeric.shape[1], len(data.sizes))
    if options.compile:
        dense.compile()
    step = trainer(dense, options.precision)
    offsets = torch.arange(options.batch_rows * len(data.sizes) + 1)
    batches = [(batch, ids(batch)) for batch in data.train.batches(options.batch_rows)]
    train = Clocked(batches, options.warm_up_steps)
    for batch, indices in train:
        step(batch.numeric, embedding(indices, offsets), batch.labels)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bf16"):
        tested = data.test
        embedded = embedding(ids(tested), torch.arange(tested.categorical.numel() + 1))
        scores = dense(tested.numeric, embedded).float()
    found = {"rows_per_cpu_second": train.rows_per_cpu_second(options.batch_rows), "auc": auc(tested.labels, scores)}
    context = {"precision": options.precision, "compiled": options.compile}
    report("fbgemm", options, **found, steps=len(train), version=version("fbgemm-gpu-cpu"), **context)


def ids(rows: Rows) -> torch.Tensor:
    """[26 x N]: column after column."""
    return rows.categorical.T.reshape(-1)


if __name__ == "__main__":
    main()
