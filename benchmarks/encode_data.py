"""A table in the shape of Criteo's, generated: label, 13 counts with long tails and gaps, 26 columns of 8 hex digits.

A value's rank in its column is `vocabulary ** u` for uniform u, so few values are frequent and most are rare: among a
million rows about 300,000 of the largest vocabulary's ten million occur, most of them once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from tgeokd_ray.hashing import key, mix

NUMERIC = tuple(f"I{n}" for n in range(1, 14))
CATEGORICAL = tuple(f"C{n}" for n in range(1, 27))
# Distinct values per column of the whole published table.
VOCABULARIES = (
    *(1460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5683, 8_351_593, 3194),
    *(27, 14_992, 5_461_306, 10, 5652, 2173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572),
)
MIN_COUNT = 4
CHUNK_ROWS = 1 << 16
_DIGITS = np.array([f"{n:04x}" for n in range(1 << 16)], dtype="S4").view(np.uint8).reshape(-1, 4)


def write_table(path: Path, rows: int, seed: int = 0) -> None:
    """Write so many rows as CSV with a header; the same bytes for the same seed."""
    with path.open("wb") as file:
        for number, first in enumerate(range(0, rows, CHUNK_ROWS)):
            random = np.random.default_rng((seed, number))
            chunk = _chunk(random, min(CHUNK_ROWS, rows - first))
            options = pacsv.WriteOptions(include_header=first == 0, quoting_style="none", quoting_header="none")
            pacsv.write_csv(chunk, file, options)


def hex_digits(words: NDArray[np.uint32]) -> pa.Array:
    """Each word as a text of 8 hex digits."""
    pairs = np.stack([_DIGITS[words >> np.uint32(16)], _DIGITS[words & np.uint32(0xFFFF)]], axis=1)
    offsets = np.arange(0, 8 * len(words) + 1, 8, dtype=np.int64)
    return pa.LargeStringArray.from_buffers(len(words), pa.py_buffer(offsets), pa.py_buffer(pairs.reshape(-1)))


def card() -> dict[str, Any]:
    """The card of such a table: log1p, standardised; categories that occur four times or more among the train rows."""
    return {
        "name": "criteo_shaped",
        "format": {"kind": "csv"},
        "label": {"column": "label", "classes": ["0", "1"]},
        "columns": {"numeric": list(NUMERIC), "categorical": list(CATEGORICAL)},
        "encoding": {"numeric": {"kind": "log1p"}, "categorical": {"min_count": MIN_COUNT}},
        "splits": {"kind": "hash", "salt": "criteo_shaped", "parts": {"train": 1.0}},
    }


def _chunk(random: np.random.Generator, rows: int) -> pa.Table:
    columns = {"label": pa.array((random.random(rows) < 0.25).astype(np.int8))}
    for place, name in enumerate(NUMERIC):
        counts = np.expm1(random.exponential(1.0 + place % 5, rows)).clip(max=1e6).astype(np.int64)
        columns[name] = pa.array(counts, mask=random.random(rows) < 0.05 * (place % 6))
    for place, (name, vocabulary) in enumerate(zip(CATEGORICAL, VOCABULARIES, strict=True)):
        ranks = (vocabulary ** random.random(rows)).astype(np.uint64)
        words = (mix(ranks ^ key("value", name)) >> np.uint64(32)).astype(np.uint32)
        missing = random.random(rows) < 0.03 * (place % 4 == 3)
        columns[name] = pc.if_else(pa.array(missing), None, hex_digits(words))
    return pa.table(columns)
