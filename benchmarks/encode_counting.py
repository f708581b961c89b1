"""Counting very many distinct texts in a process of its own: `python encode_counting.py DISTINCT HELD`, one JSON line.

Every text is new but for one in 16, which comes four times, so those alone are kept.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from encode_data import hex_digits

from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.encoders import Partial, fit_encoder, fit_partial

PART_ROWS = 1 << 16
SHARE, TIMES = 16, 4


def main(distinct: int, held: int) -> None:
    card = Card.model_validate(
        {
            "name": "counting",
            "format": {"kind": "csv"},
            "label": {"column": "label", "classes": ["0", "1"]},
            "columns": {"categorical": [{"name": "id", "min_count": TIMES}]},
            "splits": {"kind": "hash", "parts": {"train": 1.0}},
        }
    )
    for _ in _parts(card, PART_ROWS):  # what the libraries take once is taken
        pass
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before, began = _peak_kib(), time.process_time()
    encoder = fit_encoder(card, _parts(card, distinct), max_held=held)
    values = encoder.categorical[0][1].values
    facts = {
        "kept": len(values or ()),
        "expected": len(range(0, distinct, SHARE)),
        "peak_mib": (_peak_kib() - before) / 1024,
        "cpu_seconds": time.process_time() - began,
    }
    print(json.dumps(facts))


def _parts(card: Card, distinct: int) -> Iterator[Partial]:
    for first in range(0, distinct, PART_ROWS):
        numbers = np.arange(first, min(first + PART_ROWS, distinct), dtype=np.uint32)
        yield _part(card, numbers)
        for _ in range(1, TIMES):
            yield _part(card, numbers[numbers % SHARE == 0])


def _part(card: Card, numbers: np.ndarray) -> Partial:  # type: ignore[type-arg]
    scattered = numbers * np.uint32(2_654_435_761)  # a bijection, so that texts come in no order
    return fit_partial(card, pa.table({"id": hex_digits(scattered)}), numbers.astype(np.int64))


def _peak_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
