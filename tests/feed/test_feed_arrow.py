"""Between Arrow and numpy nothing is copied, and nothing large is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from feed_fixtures import make_columns, write_logits, write_table

from tgeokd_ray.feed.arrow import bytes_of, flat, listed, lists, viewed, whole, width_of

REPOSITORY = Path(__file__).resolve().parents[2]
READS = """
import sys
from pathlib import Path
from tgeokd_ray.feed import EncodedTable, LogitsTable, Wanted, decode
table = EncodedTable.open(Path(sys.argv[1]))
wanted = Wanted(table, ("train",), (LogitsTable.open(Path(sys.argv[2]), table),))
assert sum(len(decode(piece, 3)) for piece in wanted.direct()(wanted.units)) == 300
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.int64, np.uint8, np.uint16, np.float64])
def test_there_and_back_in_the_same_memory(dtype: type[np.generic]) -> None:
    values = np.arange(12).astype(dtype)
    back = viewed(flat(values))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, values)
    assert np.shares_memory(back, values)


def test_lists_of_a_slice_are_its_own() -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    part = lists(values).slice(1, 2)
    np.testing.assert_array_equal(viewed(listed(part)).reshape(-1, 3), values[1:3])
    assert np.shares_memory(viewed(listed(part)), values)
    assert part.to_pylist() == values[1:3].tolist()


def test_rows_that_are_not_contiguous_and_none_at_all() -> None:
    values = np.arange(12, dtype=np.int32).reshape(4, 3)
    assert lists(values[::2]).to_pylist() == values[::2].tolist()
    assert len(lists(values[:0])) == 0
    assert viewed(flat(values[:0])).shape == (0,)


def test_a_column_in_pieces_becomes_one() -> None:
    pieces = pa.chunked_array([pa.array([1, 2]), pa.array([3])])
    assert whole(pieces).to_pylist() == [1, 2, 3]


def test_reading_rows_with_logits_loads_no_pandas(tmp_path: Path) -> None:
    columns = make_columns(300)
    table = write_table(tmp_path, {"train": columns})
    logits = write_logits(tmp_path, table, {"train": columns})
    paths = [str(table.artifact.path), str(logits.artifact.path)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", READS, *paths], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "pandas" not in done.stdout.split()


def test_bytes_of_a_fixed_size_are_views_too_also_of_a_part() -> None:
    values = np.arange(60, dtype=np.uint8).reshape(10, 6)
    column = bytes_of(values)
    assert (column.type, width_of(column)) == (pa.binary(6), 6)
    assert column[3].as_py() == values[3].tobytes()
    part = viewed(listed(column[4:9]))
    assert part.dtype == np.uint8
    assert np.array_equal(part.reshape(5, 6), values[4:9])
    assert width_of(lists(values)) == 6
    assert width_of(flat(values)) is None
