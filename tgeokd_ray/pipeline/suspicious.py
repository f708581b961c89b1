"""The labels that a channel holds to be wrong, as a file for an audit, from which rows can come back as trusted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.feed.channels import ChannelTable
from tgeokd_ray.feed.parquet import read_shard
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.pipeline.denoising import SUSPICIOUS_FILE
from tgeokd_ray.training.channel import SUSPICIOUS


def write_suspicious(table: Artifact, channel: Artifact, folder: Path) -> Path:
    """Write `suspicious.parquet`: row_id, split and label of every row whose given label has less than a tenth of its
    denoised one, how much it has (`probability`), and the class that has most (`suggestion`); least probable first.

    The file appears whole or not at all.
    """
    encoded, told = EncodedTable.open(table.path), ChannelTable(channel)
    parts = [_shard(encoded, told, split, shard) for split in told.splits for shard in told.shards_of(split)]
    found = pa.concat_tables(parts).sort_by([("probability", "ascending"), ("row_id", "ascending")])
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{SUSPICIOUS_FILE}.{os.getpid()}.tmp"
    pq.write_table(found, draft)
    os.replace(draft, folder / SUSPICIOUS_FILE)
    return folder / SUSPICIOUS_FILE


def _shard(table: EncodedTable, channel: ChannelTable, split: str, shard: str) -> pa.Table:
    told = channel.arrays(shard)
    stored = read_shard(table.artifact.file(shard), len(told["row_id"]), ["label"])
    labels, targets = stored.column("label").to_numpy(), told["target"]
    classes = pa.array(table.classes)
    probability = targets[np.arange(len(labels)), labels]
    rows = np.flatnonzero((labels >= 0) & (probability < SUSPICIOUS))
    return pa.table(
        {
            "row_id": told["row_id"][rows],
            "split": pa.array([split] * len(rows), pa.string()),
            "label": classes.take(pa.array(labels[rows])),
            "probability": probability[rows].astype(np.float64),
            "suggestion": classes.take(pa.array(targets[rows].argmax(1))),
        }
    )
