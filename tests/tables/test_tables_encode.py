"""Encoding a table: what is written, that it is the same every time, and that a kill costs only unfinished work."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

from tgeokd_ray.artifacts import Artifact, read_json, verify
from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import EncodedTable
from tgeokd_ray.tables import ingest as ingest_module
from tgeokd_ray.tables.cards import LABEL, ROW, SPLITS, Card
from tgeokd_ray.tables.encode import encode, encode_frame
from tgeokd_ray.tables.encoders import Encoder
from tgeokd_ray.tables.ingest import RawUnit
from tgeokd_ray.tables.inputs import find_table, raw_files, table_inputs
from tgeokd_ray.tables.outcome import raise_together, returning_errors, values
from tgeokd_ray.tables.quality import check_classes, warn_of_unseen
from tgeokd_ray.tables.shards import group_rows
from tgeokd_ray.tables.synthetic import CATEGORICAL, LOG_ODDS, NUMERIC, synthetic_rows

ROWS, CHUNK = 9000, 2000
PARTS = {"teacher": 0.3, "train": 0.3, "outer": 0.1, "valid": 0.1, "test": 0.15}


def synthetic_card(**format: Any) -> Card:
    return Card.model_validate(
        {
            "name": "small",
            "format": {"kind": "synthetic", "rows": ROWS, "chunk_rows": CHUNK, "seed": 3, **format},
            "label": {"column": "label", "classes": ["0", "1"]},
            "columns": {
                "numeric": [{"name": name, "kind": "standard", "missing_flag": name == "n3"} for name in NUMERIC],
                "categorical": [{"name": name, "min_count": 3} for name in CATEGORICAL],
            },
            "splits": {"kind": "hash", "salt": "a", "parts": PARTS},
        }
    )


class Engine:
    """The local engine: it counts items per stage, and dies before the n-th item of one."""

    def __init__(self, stage: str | None = None, items: int = 0) -> None:
        self.stage, self.items = stage, items
        self.done: dict[str, int] = {}

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any], *, stage: str) -> Iterator[Any]:
        for item in items:
            if stage == self.stage and self.done.get(stage, 0) == self.items:
                raise KeyboardInterrupt
            yield function(item)
            self.done[stage] = self.done.get(stage, 0) + 1


@pytest.fixture(scope="module")
def raw() -> pa.Table:
    return synthetic_rows(3, 0, ROWS)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    artifact, reused = encode(synthetic_card(), [], tmp_path_factory.mktemp("root"), Engine(), Silent())
    assert not reused
    return artifact


def shards(artifact: Artifact, split: str) -> pa.Table:
    """All rows of a split in stored order."""
    return pa.concat_tables(
        [pq.read_table(artifact.file(e.path)) for e in entries(artifact) if e.extra["split"] == split]
    )


def entries(artifact: Artifact) -> list[Any]:
    return [entry for entry in artifact.manifest.files if "split" in entry.extra]


def matrix(shard: pa.Table, name: str) -> np.ndarray:
    column = shard[name].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


class TestTable:
    def test_every_used_row_is_there_once_and_a_share_is_unused(self, table: Artifact) -> None:
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
            assert whole.schema.field("numeric").type.list_size == len(schema["numeric"])

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

    def test_a_finished_table_is_taken(self, table: Artifact) -> None:
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
    def test_after_a_kill_only_unfinished_work_is_done(
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

    def test_a_damaged_raw_unit_is_made_again(self, table: Artifact, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            encode(synthetic_card(), [], tmp_path, Engine("encode", 1), Silent())
        unit = next(tmp_path.rglob("raw-00002-00000.parquet"))
        unit.write_bytes(unit.read_bytes()[:-9])
        engine = Engine()
        assert encode(synthetic_card(), [], tmp_path, engine, Silent())[0].digest == table.digest
        assert engine.done == {"ingest": 1, "encode": 4}

    def test_units_are_cut_alike_whatever_the_reader_yields(self, raw: pa.Table) -> None:
        for cuts in ([], [1], [10, 11, 4000], list(range(100, 9000, 700))):
            bounds = [0, *cuts, ROWS]
            frames = [raw[a:b] for a, b in pairwise(bounds)]
            pieces = list(ingest_module._pieces(iter(frames), 2500))
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


def csv_card(**changes: Any) -> Card:
    data = {
        "name": "raw",
        "format": {"kind": "csv"},
        "label": {"column": "y", "classes": ["no", "yes"]},
        "columns": {"numeric": [{"name": "x", "kind": "standard"}], "categorical": [{"name": "c"}], "others": "ignore"},
        "splits": {"kind": "hash", "salt": "a", "parts": {"train": 0.6, "test": 0.4}},
    }
    return Card.model_validate({**data, **changes})


def write_csv(path: Path, rows: range, **columns: Callable[[int], str]) -> Path:
    """A file with columns id, y, x, c; `columns` replaces or adds some."""
    made: dict[str, Callable[[int], str]] = {
        "id": str,
        "y": lambda n: ("no", "yes")[n % 3 == 0],
        "x": lambda n: "" if n % 7 == 0 else str(n / 4),
        "c": lambda n: f"v{n % 5}",
        **columns,
    }
    lines = [",".join(made), *(",".join(make(n) for make in made.values()) for n in rows)]
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def encode_csv(card: Card, files: list[Path], root: Path) -> Artifact:
    return encode(card, files, root, Engine(), Silent())[0]


class TestRawFiles:
    def test_row_ids_are_the_place_in_files_sorted_by_base_name(self, tmp_path: Path) -> None:
        here = [write_csv(tmp_path / "z" / "a.csv", range(100)), write_csv(tmp_path / "b" / "b.csv", range(100, 150))]
        there = [write_csv(tmp_path / "c" / "b.csv", range(100, 150)), write_csv(tmp_path / "d" / "a.csv", range(100))]
        one = encode_csv(csv_card(), here, tmp_path / "one")
        two = encode_csv(csv_card(), there, tmp_path / "two")
        assert one.digest == two.digest
        ids = np.concatenate([shards(one, split)["row_id"].to_numpy() for split in ("train", "test")])
        assert sorted(ids.tolist()) == [*range(100), *range(2**40, 2**40 + 50)]

    def test_two_files_of_one_name_are_refused(self, tmp_path: Path) -> None:
        files = [write_csv(tmp_path / folder / "a.csv", range(9)) for folder in ("p", "q")]
        with pytest.raises(ConfigError, match=r"file a.csv: several files have this base name"):
            raw_files(csv_card(), files)

    def test_an_id_column_is_taken_as_it_is(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "a.csv", range(60), id=lambda n: str(n * 10**9 - 7))
        table = encode_csv(csv_card(row_id={"kind": "column", "column": "id"}), [file], tmp_path)
        ids = np.concatenate([shards(table, split)["row_id"].to_numpy() for split in ("train", "test")])
        assert sorted(ids.tolist()) == [n * 10**9 - 7 for n in range(60)]

    @pytest.mark.parametrize("kind", ["int", "text"])
    def test_repeated_ids_are_told_with_file_and_row(self, tmp_path: Path, kind: str) -> None:
        files = [
            write_csv(tmp_path / "a.csv", range(200)),
            write_csv(tmp_path / "b.csv", range(300, 400), id=lambda n: str(n if n >= 350 else n - 300)),
        ]
        card = csv_card(row_id={"kind": "column", "column": "id", "type": kind})
        with pytest.raises(DataError, match=r"file b.csv, column 'id', row \d+: another row has this row id") as caught:
            encode_csv(card, files, tmp_path)
        assert (len(caught.value.problems), caught.value.total) == (20, 50)
        assert "its own id" in str(caught.value.fix)
        again = [files[0], write_csv(tmp_path / "b.csv", range(300, 400))]
        assert sum(encode_csv(card, again, tmp_path).manifest.schema["rows"].values()) == 300

    def test_problems_of_all_files_come_at_once(self, tmp_path: Path) -> None:
        files = [
            write_csv(tmp_path / "a.csv", range(30), y=lambda n: "maybe" if n == 3 else "no"),
            write_csv(tmp_path / "b.csv", range(30), x=lambda n: "ten" if n == 5 else "1"),
        ]
        with pytest.raises(DataError) as caught:
            encode_csv(csv_card(), files, tmp_path / "root")
        found = [(Path(p.file or "").name, p.column, p.row) for p in caught.value.problems]
        assert found == [("a.csv", "y", 4), ("b.csv", "x", 6)]
        assert find_table(csv_card(), files, tmp_path / "root") is None

    def test_weights_and_times(self, tmp_path: Path) -> None:
        card = csv_card(
            weight="w",
            splits={
                "kind": "time",
                "column": "t",
                "periods": [{"until": 50, "to": {"train": 0.5, "valid": 0.5}}, {"until": None, "to": "test"}],
            },
        )
        file = write_csv(tmp_path / "a.csv", range(80), w=lambda n: str(n / 2), t=str)
        table = encode_csv(card, [file], tmp_path)
        assert table.manifest.schema["weight"] is True
        assert table.manifest.schema["rows"]["test"] == 30
        for split in ("train", "valid", "test"):
            part = shards(table, split)
            assert part["weight"].to_pylist() == [row / 2 for row in part["row_id"].to_pylist()]
            assert (part["row_id"].to_numpy() >= 50).all() == (split == "test")

    def test_a_table_without_categories_has_no_such_column(self, tmp_path: Path) -> None:
        card = csv_card(columns={"numeric": ["x"], "others": "ignore"})
        table = encode_csv(card, [write_csv(tmp_path / "a.csv", range(80))], tmp_path)
        assert EncodedTable.open(table.path).num_categorical == 0
        assert shards(table, "train").column_names == ["row_id", "label", "numeric"]

    def test_a_constant_or_empty_column_is_told(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "a.csv", range(80), x=lambda n: "5", c=lambda n: "")
        progress = Silent()
        encode(csv_card(), [file], tmp_path, Engine(), progress)
        assert "constant or empty in the train rows: x, c" in progress.warnings

    def test_a_file_that_changes_while_it_is_read_is_refused(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "a.csv", range(80))

        def changing(function: Callable[[Any], Any], items: Iterable[Any], *, stage: str) -> Iterator[Any]:
            yield from map(function, items)
            write_csv(file, range(81))

        with pytest.raises(DataError, match="changed while it was read"):
            encode(csv_card(), [file], tmp_path, changing, Silent())

    def test_prediction_needs_no_labels_and_gives_the_same_rows(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "a.csv", range(300))
        table = encode_csv(csv_card(), [file], tmp_path)
        card = Card.model_validate(read_json(table.file("card.json")))
        encoder = Encoder.from_json(read_json(table.file("encoder.json")))
        lines = [",".join(line.split(",")[2:]) for line in file.read_text().splitlines()]
        (tmp_path / "new.csv").write_text("\n".join(lines) + "\n")  # x, c
        ids, numeric, categorical = (
            np.concatenate(parts) for parts in zip(*encode_frame(card, encoder, tmp_path / "new.csv"), strict=True)
        )
        assert ids.tolist() == list(range(300))
        for split in ("train", "test"):
            part = shards(table, split)
            rows = part["row_id"].to_numpy()
            np.testing.assert_array_equal(matrix(part, "numeric"), numeric[rows])
            np.testing.assert_array_equal(matrix(part, "categorical"), categorical[rows])
        second = next(encode_frame(card, encoder, tmp_path / "new.csv", file_index=2))[0]
        assert second[:3].tolist() == [2**41, 2**41 + 1, 2**41 + 2]


def test_criteo(real_data: Path, tmp_path: Path) -> None:
    """80,000 rows of a click log: counts and encodings against plain numpy."""
    numbers, texts = [f"I{k}" for k in range(1, 14)], [f"C{k}" for k in range(1, 27)]
    card = csv_card(
        format={"kind": "tsv", "header": False, "names": ["label", *numbers, *texts]},
        label={"column": "label", "classes": ["0", "1"]},
        columns={"numeric": numbers, "categorical": [{"name": name, "min_count": 10} for name in texts]},
    )
    file = real_data / "criteo" / "criteo_first80k.tsv.gz"
    table = encode_csv(card, [file], tmp_path)
    rows = [line.split("\t") for line in gzip.decompress(file.read_bytes()).decode().splitlines()]
    train = shards(table, "train")
    ids = train["row_id"].to_numpy()
    assert train["label"].to_pylist() == [int(rows[i][0]) for i in ids]
    column = np.array([float(rows[i][1] or "nan") for i in ids])
    warped = np.sign(column) * np.log1p(np.abs(column))
    expected = np.nan_to_num((warped - np.nanmean(warped)) / np.nanstd(warped)).clip(-10, 10)
    np.testing.assert_allclose(matrix(train, "numeric")[:, 0], expected, atol=1e-5)
    counts = Counter(rows[i][14] for i in ids if rows[i][14])
    known = [value for value, count in counts.items() if count >= 10]
    assert table.manifest.schema["categorical"][0] == {"name": "C1", "offset": 0, "size": 2 + len(known)}
    best = max(counts, key=lambda value: (counts[value], value))
    assert matrix(train, "categorical")[[rows[i][14] == best for i in ids], 0].tolist() == [2] * counts[best]
    assert sum(table.manifest.schema["rows"].values()) == 80_000


class TestInputs:
    def test_what_shapes_the_table_counts_and_nothing_else(self, tmp_path: Path) -> None:
        base = table_inputs(synthetic_card(), [], tmp_path)
        described = synthetic_card().model_copy(update={"title": "t", "terms": "x", "files": ("a",), "name": "b"})
        assert table_inputs(described, [], tmp_path) == base
        assert table_inputs(synthetic_card(seed=4), [], tmp_path) != base

    def test_the_order_of_file_patterns_counts(self, tmp_path: Path) -> None:
        def with_patterns(*patterns: str) -> dict[str, Any]:
            data = json.loads(synthetic_card().model_dump_json())
            data["splits"] = {"kind": "file", "files": dict.fromkeys(patterns, "train")}
            return table_inputs(Card.model_validate(data), [], tmp_path)

        assert with_patterns("a*", "*") != with_patterns("*", "a*")


class TestOutcomes:
    def test_a_user_error_comes_back_as_a_value(self) -> None:
        @returning_errors
        def work(error: Exception | None) -> int:
            if error is not None:
                raise error
            return 1

        assert work(None) == 1
        found = DataError("bad")
        assert work(found) is found
        with pytest.raises(ZeroDivisionError):
            work(ZeroDivisionError())
        with pytest.raises(DataError, match="bad"):
            list(values([1, found, 2]))

    def test_problems_of_several_files_are_told_together(self) -> None:
        raise_together([])
        with pytest.raises(DataError) as caught:
            raise_together([DataError("a", fix="mend"), ConfigError("c"), DataError("b", total=5)])
        assert [problem.what for problem in caught.value.problems] == ["a", "b"]
        assert (caught.value.total, caught.value.fix) == (6, "mend")

    def test_stage_functions_travel(self) -> None:
        name = ingest_module.ingest.__qualname__
        assert getattr(ingest_module, name) is ingest_module.ingest


class TestQuality:
    def unit(self, **counts: tuple[int, int]) -> RawUnit:
        return RawUnit("f", "s", 9, tuple(counts.get(split, (0, 0)) for split in SPLITS))

    def test_a_class_without_train_rows_is_refused_by_name(self) -> None:
        with pytest.raises(DataError, match=r"column 'label': no train row is of class '1'"):
            check_classes(synthetic_card(), [self.unit(train=(4, 0), test=(1, 1))], Silent())
        with pytest.raises(DataError, match="class '0'"):
            check_classes(synthetic_card(), [], Silent())

    def test_a_class_that_another_split_lacks_is_told(self) -> None:
        progress = Silent()
        check_classes(synthetic_card(), [self.unit(train=(4, 0)), self.unit(train=(0, 1), test=(3, 0))], progress)
        assert progress.warnings == ["split test has no row of class 1"]

    def test_mostly_unseen_columns_are_told(self) -> None:
        progress = Silent()
        warn_of_unseen({"a": 0.5, "b": 0.51, "c": 1.0}, progress)
        assert progress.warnings == ["most test values are not among the train rows: b 51%, c 100%"]

    @pytest.mark.parametrize(
        ("rows", "size"), [(0, 256), (12_288, 256), (12_289, 257), (48_000, 1000), (10**8, 65_536)]
    )
    def test_row_groups(self, rows: int, size: int) -> None:
        assert group_rows(rows) == size
