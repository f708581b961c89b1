"""Encoding a table: what is written, that it is the same every time, and that a kill costs only unfinished work."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoded_tables import (
    ROWS,
    Engine,
    entries,
    matrix,
    shards,
    synthetic_card,
)
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

from tgeokd_ray.artifacts import Artifact, read_json, verify
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import EncodedTable
from tgeokd_ray.tables.cards import LABEL, ROW, SPLITS
from tgeokd_ray.tables.delimited import in_pieces
from tgeokd_ray.tables.encode import encode
from tgeokd_ray.tables.encoders import Encoder
from tgeokd_ray.tables.inputs import find_table
from tgeokd_ray.tables.synthetic import CATEGORICAL, LOG_ODDS, NUMERIC, synthetic_rows


@pytest.fixture(scope="module")
def raw() -> pa.Table:
    return synthetic_rows(3, 0, ROWS)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    artifact, reused = encode(synthetic_card(), [], tmp_path_factory.mktemp("root"), Engine(), Silent())
    assert not reused
    return artifact


class TestTable:
    def test_k11_every_used_row_is_there_once_and_a_share_is_unused(self, table: Artifact) -> None:
        ids = np.concatenate([shards(table, split)["row_id"].to_numpy() for split in SPLITS])
        assert len(np.unique(ids)) == len(ids) == sum(table.manifest.schema["rows"].values())
        assert set(ids.tolist()) <= set(range(ROWS))
        assert abs(len(ids) / ROWS - 0.95) < 0.01
        assert table.manifest.record["raw_rows"] == ROWS

    def test_rows_keep_their_labels_numbers_and_order(self, table: Artifact, raw: pa.Table) -> None:
        encoder = Encoder.from_json(read_json(table.file("encoder.json")))
        for split in SPLITS:
            part = shards(table, split)
            ids = part["row_id"].to_numpy()
            rows = raw.take(pa.array(ids))
            assert (np.diff(ids) > 0).all()
            assert part["label"].equals(rows[LABEL])
            numeric, categorical = encoder.transform(rows)
            np.testing.assert_array_equal(matrix(part, "numeric"), numeric)
            np.testing.assert_array_equal(matrix(part, "categorical"), categorical)

    def test_the_encoder_saw_train_rows_only(self, table: Artifact, raw: pa.Table) -> None:
        train = raw.take(pa.array(shards(table, "train")["row_id"].to_numpy()))
        encoder = Encoder.from_json(read_json(table.file("encoder.json")))
        scaler = StandardScaler().fit(np.stack([train[name].to_numpy() for name in NUMERIC], axis=1))
        np.testing.assert_allclose([column.mean for column in encoder.numeric], scaler.mean_, atol=1e-9)
        np.testing.assert_allclose([column.std for column in encoder.numeric], scaler.scale_, rtol=1e-9)
        for name, space in encoder.categorical:
            counts = train[name].drop_null().value_counts().to_pylist()
            assert set(space.values) == {row["values"] for row in counts if row["counts"] >= 3}

    def test_the_manifest_tells_what_readers_need(self, table: Artifact) -> None:
        schema = table.manifest.schema
        assert schema["classes"] == ["0", "1"]
        assert schema["numeric"] == [*NUMERIC, "n3:missing"]
        assert [column["name"] for column in schema["categorical"]] == list(CATEGORICAL)
        assert schema["num_ids"] == sum(column["size"] for column in schema["categorical"])
        for entry in entries(table):
            file = pq.ParquetFile(table.file(entry.path))
            split, index = entry.path.removesuffix(".parquet").split("-")
            assert (entry.extra["split"], entry.extra["shard"]) == (split, int(index))
            groups = [file.read_row_group(k) for k in range(file.num_row_groups)]
            assert [group.num_rows for group in groups] == entry.extra["groups"]
            counted = [np.bincount(group["label"].to_numpy(), minlength=2).tolist() for group in groups]
            assert counted == entry.extra["labels"]
            whole = pa.concat_tables(groups)
            assert whole.num_rows == entry.rows
            digest = hashlib.sha256(b"".join(i.to_bytes(8, "little") for i in whole["row_id"].to_pylist())).hexdigest()
            assert digest == entry.extra["row_ids"]
            chunks = [file.metadata.row_group(0).column(place) for place in range(len(whole.column_names))]
            kept = [chunk.path_in_schema for chunk in chunks if chunk.is_stats_set]
            assert kept == [name for name in whole.column_names if name not in ("numeric", "categorical")]
            for name, kind in (("numeric", "float"), ("categorical", "int32")):
                field = whole.schema.field(name)
                assert (field.type, field.metadata) == (pa.binary(4 * len(schema[name])), {b"numbers": kind.encode()})

    def test_the_feed_opens_it(self, table: Artifact) -> None:
        opened = EncodedTable.open(table.path)
        assert opened.splits == table.manifest.schema["rows"]
        assert opened.label_counts("train").tolist() == np.bincount(shards(table, "train")["label"]).tolist()

    def test_the_bayes_auc_is_that_of_the_true_log_odds(self, table: Artifact, raw: pa.Table) -> None:
        test = raw.take(pa.array(shards(table, "test")["row_id"].to_numpy()))
        labels, log_odds = test[LABEL].to_numpy(), test[LOG_ODDS].to_numpy()
        extra = table.manifest.schema["extra"]
        assert extra["bayes_auc"] == pytest.approx(roc_auc_score(labels, log_odds), abs=1e-5)
        assert extra["bayes_nll"] == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-log_odds))), abs=1e-6)

    def test_unseen_shares_are_of_test_rows(self, table: Artifact) -> None:
        ids = matrix(shards(table, "test"), "categorical")
        for k, column in enumerate(table.manifest.schema["categorical"]):
            share = (ids[:, k] == column["offset"] + 1).mean()
            assert table.manifest.schema["extra"]["unseen_test"][column["name"]] == pytest.approx(share, abs=1e-6)

    def test_it_verifies_and_nothing_else_is_left(self, table: Artifact) -> None:
        assert verify(table.path) == ([], [])
        assert [path.name for path in table.path.parent.iterdir()] == ["v000001"]

    def test_pages_carry_checksums(self, table: Artifact, tmp_path: Path) -> None:
        source = table.file(entries(table)[0].path)
        data = bytearray(source.read_bytes())
        data[len(data) // 3] ^= 1
        (tmp_path / "bad.parquet").write_bytes(data)
        with pytest.raises(OSError, match="CRC"):
            pq.read_table(tmp_path / "bad.parquet", page_checksum_verification=True)


class TestAgain:
    def test_the_same_inputs_give_the_same_digest_anywhere(self, table: Artifact, tmp_path: Path) -> None:
        other, _ = encode(synthetic_card(), [], tmp_path, Engine(), Silent(), name="other")
        assert other.digest == table.digest
        assert other.label == "tables/other/v000001"

    def test_k11_a_finished_table_is_taken(self, table: Artifact) -> None:
        root, engine = table.path.parent.parent.parent, Engine()
        again, reused = encode(synthetic_card(), [], root, engine, Silent())
        assert reused
        assert again == table == find_table(synthetic_card(), [], root)
        assert not engine.done
        assert find_table(synthetic_card(rows=ROWS + 1), [], root) is None

    @pytest.mark.parametrize(
        ("stage", "items", "left"),
        [
            ("ingest", 2, {"ingest": 3, "fit": 5, "encode": 5}),
            ("fit", 3, {"fit": 5, "encode": 5}),
            ("encode", 3, {"encode": 2}),
        ],
    )
    def test_k3_after_a_kill_only_unfinished_work_is_done(
        self, table: Artifact, tmp_path: Path, stage: str, items: int, left: dict[str, int]
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            encode(synthetic_card(), [], tmp_path, Engine(stage, items), Silent())
        assert find_table(synthetic_card(), [], tmp_path) is None
        engine = Engine()
        again, reused = encode(synthetic_card(), [], tmp_path, engine, Silent())
        assert not reused
        assert again.digest == table.digest
        assert engine.done == left
        assert [path.name for path in again.path.parent.iterdir()] == ["v000001"]

    def test_s1_a_damaged_raw_unit_is_made_again(self, table: Artifact, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            encode(synthetic_card(), [], tmp_path, Engine("encode", 1), Silent())
        unit = next(tmp_path.rglob("raw-00002-00000.arrow"))
        unit.write_bytes(unit.read_bytes()[:-9])
        engine = Engine()
        assert encode(synthetic_card(), [], tmp_path, engine, Silent())[0].digest == table.digest
        assert engine.done == {"ingest": 1, "encode": 4}

    def test_units_are_cut_alike_whatever_the_reader_yields(self, raw: pa.Table) -> None:
        for cuts in ([], [1], [10, 11, 4000], list(range(100, 9000, 700))):
            bounds = [0, *cuts, ROWS]
            frames = [raw[a:b] for a, b in pairwise(bounds)]
            pieces = list(in_pieces(iter(frames), 2500))
            assert [piece.num_rows for piece in pieces] == [2500, 2500, 2500, 1500]
            assert pa.concat_tables(pieces)[ROW].to_pylist() == list(range(ROWS))

    def test_finding_a_table_loads_no_table_library(self, table: Artifact) -> None:
        root = table.path.parent.parent.parent
        script = (
            "import sys, json; from pathlib import Path\n"
            "from tgeokd_ray.tables.cards import Card\n"
            "from tgeokd_ray.tables.inputs import find_table\n"
            f"card = Card.model_validate(json.loads({synthetic_card().model_dump_json()!r}))\n"
            f"print(find_table(card, [], Path({str(root)!r})).digest)\n"
            "print(sorted({'polars', 'pyarrow', 'numpy', 'torch', 'ray'} & set(sys.modules)))\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.split("\n")[:2] == [table.digest, "[]"]
