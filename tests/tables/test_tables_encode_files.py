"""Encoding raw files: row ids, weights, times, and what is refused; the same rows again for prediction."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoded_tables import (
    Engine,
    csv_card,
    encode_csv,
    matrix,
    shards,
    write_csv,
)

from tgeokd_ray.artifacts import read_json
from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import EncodedTable
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.encode import encode, encode_frame
from tgeokd_ray.tables.encoders import Encoder
from tgeokd_ray.tables.inputs import raw_files


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

    def test_d7_a_file_without_rows_among_others_adds_none(self, tmp_path: Path) -> None:
        rows = pa.table({"y": ["no", "yes"] * 40, "x": np.arange(80.0), "c": ["a", "b", "c", "d"] * 20})
        for name, part in (("a", rows), ("b", rows[:0]), ("c", rows[:30])):
            pq.write_table(part, tmp_path / f"{name}.parquet")
        card = csv_card(format={"kind": "parquet"})
        table = encode_csv(card, [tmp_path / f"{name}.parquet" for name in "abc"], tmp_path)
        ids = np.concatenate([shards(table, split)["row_id"].to_numpy() for split in ("train", "test")])
        assert sorted(ids.tolist()) == [*range(80), *range(2 * 2**40, 2 * 2**40 + 30)]
        empty = tmp_path / "b.parquet"
        with pytest.raises(DataError, match="no train row"):
            encode_csv(card, [empty], tmp_path / "other")

    @pytest.mark.parametrize("kind", ["int", "text"])
    def test_d9_repeated_ids_are_told_with_file_and_row(self, tmp_path: Path, kind: str) -> None:
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

    def test_d10_a_constant_or_empty_column_is_told(self, tmp_path: Path) -> None:
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
