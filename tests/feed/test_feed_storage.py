"""How logits are stored: round trips within their bounds, top-k with the mass of the rest, refusals (N1 N2 N10 P8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tgeokd_ray.artifacts import staging
from tgeokd_ray.errors import ConfigError, DataError, IntegrityError
from tgeokd_ray.feed.class_means import ClassMeans, probabilities
from tgeokd_ray.feed.folds import FOLD_MEAN, FOLD_NOBODY
from tgeokd_ray.feed.logits_files import Piece, one_fold, storage_schema, write_logits
from tgeokd_ray.feed.storage import Storage

FILE = Path("train-00000.parquet")
TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def back(storage: Storage, logits: np.ndarray) -> np.ndarray:
    return storage.decode(pa.table(storage.encode(logits)), FILE, logits.shape[1])


def some(rows: int = 200, classes: int = 40, seed: int = 0) -> np.ndarray:
    return (5 * np.random.default_rng(seed).normal(size=(rows, classes))).astype(np.float32)


def test_float32_comes_back_to_the_bit_and_without_a_copy() -> None:
    logits = some()
    stored = pa.table(Storage().encode(logits))
    found = Storage().decode(stored, FILE, 40)
    np.testing.assert_array_equal(found, logits)
    assert np.shares_memory(found, stored.column("logits").chunk(0).flatten().to_numpy())


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, (7, 3), elements=st.floats(-6e4, 6e4, width=32)))
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_n10_half_precision_is_torch_rounding_and_within_the_bound(dtype: str, logits: np.ndarray) -> None:
    storage = Storage(dtype)
    found = back(storage, logits)
    np.testing.assert_array_equal(found, torch.from_numpy(logits).to(TORCH[dtype]).float().numpy())
    error = np.abs(found.astype(np.float64) - logits).max()
    assert error <= storage.rounding_bound(float(np.abs(logits).max()))


def test_the_k_largest_keep_their_probabilities_and_the_rest_its_mass() -> None:
    logits = some()
    found = probabilities(back(Storage(top_k=5), logits))
    expected = probabilities(logits)
    top = np.argsort(-logits, axis=1)[:, :5]
    np.testing.assert_allclose(
        np.take_along_axis(found, top, axis=1), np.take_along_axis(expected, top, axis=1), rtol=2e-6
    )
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    others = np.delete(found[0], top[0])
    assert others.std() < 1e-12, "the mass of the rest is spread evenly"


@pytest.mark.parametrize("classes", [3, 70_000])
def test_all_but_one_class_kept(classes: int) -> None:
    """The left-out class is exact too, up to rounding; more classes than 16 bits number are numbered with 32."""
    logits = some(4, classes)
    np.testing.assert_allclose(back(Storage(top_k=classes - 1), logits), logits, rtol=1e-5, atol=1e-5)


def test_equal_logits_keep_the_first_classes() -> None:
    stored = pa.table(Storage(top_k=2).encode(np.zeros((1, 5), np.float32)))
    assert stored.column("classes").to_pylist() == [[0, 1]]
    np.testing.assert_allclose(back(Storage(top_k=2), np.zeros((1, 5), np.float32)), 0, atol=1e-6)


def test_n2_huge_finite_logits_keep_their_order() -> None:
    logits = np.array([[3e38, -3e38, 0], [-1e30, -2e30, -3e30]], np.float32)
    for storage in (Storage(), Storage("bfloat16"), Storage(top_k=2)):
        assert np.isfinite(back(storage, logits)).all()
        assert back(storage, logits).argmax(axis=1).tolist() == [0, 0]


@pytest.mark.parametrize(("storage", "rule"), [(Storage("int8"), "logits.dtype"), (Storage(top_k=3), "logits.top_k")])
def test_what_cannot_hold_the_rows_is_refused(storage: Storage, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        storage.check(3)
    Storage("float16", top_k=2).check(3)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("logits", pa.array([[1.0, np.nan]], pa.list_(pa.float32(), 2))),
        ("logits", pa.array([[1.0]], pa.list_(pa.float32(), 1))),
        ("classes", pa.array([[0, 9]], pa.list_(pa.uint16(), 2))),
        ("classes", pa.array([[0, 1]], pa.list_(pa.int64(), 2))),
        ("rest", pa.array([np.inf], pa.float32())),
    ],
)
def test_p8_n1_damaged_columns_are_named_when_read(column: str, values: pa.Array) -> None:
    stored = pa.table(Storage(top_k=2).encode(np.zeros((1, 5), np.float32)))
    index = stored.column_names.index(column)
    with pytest.raises(IntegrityError, match=f"column '{column}'"):
        Storage(top_k=2).decode(stored.set_column(index, column, values), FILE, 5)


def piece(logits: np.ndarray) -> Piece:
    return Piece(np.arange(100, 100 + len(logits)), logits, one_fold(len(logits)))


def write(folder: Path, pieces: Sequence[Piece], storage: Storage, extra: dict | None = None):  # type: ignore[no-untyped-def]
    with staging(folder, "logits", "a", arguments={}, parents={}) as stage:
        entry = write_logits(stage.folder, FILE.name, pieces, storage, scored_by="teachers/a", extra=extra or {})
        return entry, pq.read_table(stage.folder / FILE.name)


def test_lossy_storage_records_its_error(tmp_path: Path) -> None:
    logits = some()
    entry, table = write(tmp_path, [piece(logits[:150]), piece(logits[150:])], Storage("float16", top_k=8))
    assert table.num_rows == 200
    error = storage_schema([entry], Storage("float16", top_k=8))["error"]
    assert 0 < error["logit"] <= error["bound"] < 0.01
    distance = np.abs(probabilities(logits) - probabilities(back(Storage("float16", top_k=8), logits))).sum(1) / 2
    np.testing.assert_allclose([error["variation"], error["variation_mean"]], [distance.max(), distance.mean()])


def test_exact_storage_records_none(tmp_path: Path) -> None:
    entry, _ = write(tmp_path, [piece(some())], Storage())
    assert storage_schema([entry], Storage()) == {"dtype": "float32", "top_k": None}


@pytest.mark.parametrize(
    ("value", "storage", "error", "words"),
    [
        (np.nan, Storage(), IntegrityError, r"teachers/a gives logits that are not finite for 1 rows .*row ids 103"),
        (70_000.0, Storage("float16"), DataError, r"too large for float16 .*row ids 103\).*dtype=float32"),
    ],
)
def test_n1_n2_logits_that_cannot_be_stored_name_their_rows_and_leave_nothing(
    tmp_path: Path, value: float, storage: Storage, error: type[Exception], words: str
) -> None:
    logits = some(8, 3)
    logits[3, 1] = value
    with pytest.raises(error, match=f"(?s){words}"):
        write(tmp_path, [piece(logits)], storage)
    assert not list(tmp_path.rglob("*.parquet"))


def test_n5_class_means_merge_like_one_pass_and_flag_a_class_without_rows() -> None:
    logits, labels = some(60, 4), np.random.default_rng(1).integers(0, 3, 60)
    parts = []
    for rows in (slice(0, 13), slice(13, 40), slice(40, 60)):
        part = ClassMeans(4)
        part.add(logits[rows], labels[rows])
        parts.append(part)
    merged = ClassMeans.merged(parts, 4)
    expected = [probabilities(logits)[labels == c].mean(axis=0) for c in range(3)]
    np.testing.assert_allclose(merged.means[:3], expected, rtol=1e-12)
    assert merged.means[3].tolist() == [0.25] * 4, "never zeros"
    assert merged.counts.tolist() == [*np.bincount(labels).tolist(), 0]


def test_the_fold_of_a_mean_is_told_apart() -> None:
    assert one_fold(2).tolist() == [0, 0]
    assert one_fold(2, mean=True).tolist() == [FOLD_MEAN, FOLD_MEAN]


def test_rows_that_nobody_scored_do_not_make_the_error_small(tmp_path: Path) -> None:
    logits = some()
    nobody = np.zeros_like(logits)
    told = Piece(np.arange(400), np.concatenate([logits, nobody]), np.repeat([0, FOLD_NOBODY], 200).astype(np.uint8))
    lacking, _ = write(tmp_path / "a", [told], Storage(top_k=5))
    whole, _ = write(tmp_path / "b", [piece(logits)], Storage(top_k=5))
    assert storage_schema([lacking], Storage(top_k=5)) == storage_schema([whole], Storage(top_k=5))
