"""Logits as plain files: whole or absent, and the same logits when they are read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from import_fixtures import LOCAL, SPLITS, import_file, job_of, rows, told_of, write, write_card

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import DirectReader, EncodedTable, LogitsTable
from tgeokd_ray.pipeline.export_logits import export_logits
from tgeokd_ray.pipeline.job import run_stage


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_card(tmp_path_factory.mktemp("card") / "small.yaml")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def table(card: Path, root: Path) -> Artifact:
    (made,) = run_stage("encode", *job_of(card, root, None), {}, LOCAL, Silent())
    return made


@pytest.fixture(scope="module")
def logits(card: Path, root: Path, table: Artifact) -> Artifact:
    return import_file(card, root, table, write(told_of(table), root / "told.parquet"))[0]


def through_the_feed(table: Artifact, logits: Artifact, split: str = "train") -> np.ndarray:
    encoded = EncodedTable.open(table.path)
    reader = DirectReader(encoded, [LogitsTable.open(logits.path)], split)
    return np.concatenate([np.array(piece["logits_0"].to_pylist()) for piece in reader(encoded.units(split))])


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_p5_round_trip(  # type: ignore[no-untyped-def]
    card: Path, table: Artifact, logits: Artifact, tmp_path: Path, form: str, shuffle: bool
) -> None:
    out = tmp_path / f"plain.{form}"
    assert export_logits(logits, out, [], probabilities=form == "csv") == (
        len(rows(logits, columns=("row_id",))["row_id"]),
        0,
    )
    plain = pq.read_table(out) if form == "parquet" else pacsv.read_csv(out)
    assert plain.column_names[:3] == ["row_id", "split", "fold"]
    assert plain.column_names[3:5] == (["logits"] if form == "parquet" else ["logit_0", "logit_1"])
    assert set(plain["split"].to_pylist()) == set(SPLITS)
    if shuffle:
        shuffled = plain.take(np.random.default_rng(0).permutation(len(plain)))
        pq.write_table(shuffled, out) if form == "parquet" else pacsv.write_csv(shuffled, out)
    back, warnings = import_file(card, tmp_path, table, out)
    assert warnings == []
    np.testing.assert_array_equal(through_the_feed(table, back), through_the_feed(table, logits))
    assert [e.sha256 for e in back.manifest.files if e.rows] == [e.sha256 for e in logits.manifest.files if e.rows]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".plain")] == []


def test_splits_on_request_and_probabilities_beside(logits: Artifact, tmp_path: Path) -> None:
    out = tmp_path / "plain.parquet"
    count, _ = export_logits(logits, out, ["valid"], probabilities=True)
    plain = pq.read_table(out)
    assert count == plain.num_rows == len(rows(logits, "valid", columns=("row_id",))["row_id"])
    np.testing.assert_allclose(np.array(plain["probabilities"].to_pylist()).sum(axis=1), 1, rtol=1e-6)
    assert plain.schema.metadata[b"classes"] == b"0,1"


def test_rows_that_nobody_scored_are_left_out(card: Path, table: Artifact, tmp_path: Path) -> None:
    told = told_of(table)
    lacking = np.sort(rows(table, "train")["row_id"])[:7]
    file = write(told.filter(~np.isin(told["row_id"].to_numpy(), lacking)), tmp_path / "told.parquet")
    made, _ = import_file(card, tmp_path, table, file, "teacher.imported.missing=labels")
    out = tmp_path / "plain.csv"
    assert export_logits(made, out, [], probabilities=False) == (len(told) - 7, 7)
    assert not set(pacsv.read_csv(out)["row_id"].to_pylist()) & set(lacking.tolist())


def test_what_cannot_be_written_is_told_and_leaves_nothing(logits: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no logits of a split 'vaild'; did you mean 'valid'"):
        export_logits(logits, tmp_path / "plain.csv", ["vaild"], probabilities=False)
    with pytest.raises(ConfigError, match=r"end it in \.parquet or \.csv"):
        export_logits(logits, tmp_path / "plain.txt", [], probabilities=False)
    with pytest.raises(ConfigError, match="there is no folder"):
        export_logits(logits, tmp_path / "no" / "plain.csv", [], probabilities=False)
    assert list(tmp_path.iterdir()) == []
