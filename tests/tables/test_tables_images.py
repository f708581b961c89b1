"""Images in CIFAR's binary form: what is read, what is refused and where, what the encoded table holds of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_rows import image_card, write_cifar
from raw_files import places, read, refused

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.batches import decode
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.models.pixels import Pixels
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.tables.cards import LABEL, PACKAGED, ROW, Card, load_card
from tgeokd_ray.tables.check import summarise
from tgeokd_ray.tables.encode import encode, encode_frame
from tgeokd_ray.tables.encoders import Encoder, fit_encoder, fit_partial
from tgeokd_ray.tables.sources import expand_files
from tgeokd_ray.tables.validation import validated
from tgeokd_ray.tables.views import Encoders


def make_card(kind: str = "cifar10", **changes: Any) -> Card:
    return Card.model_validate(image_card(kind, **changes))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("cifar")
    write_cifar(folder / "train_1.bin", 300)
    write_cifar(folder / "test_batch.bin", 60, seed=1)
    (folder / "batches.meta.txt").write_text("airplane\n")
    return folder / "train_1.bin", folder / "test_batch.bin"


@pytest.fixture(scope="module")
def table(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> EncodedTable:
    root = tmp_path_factory.mktemp("root")
    artifact, reused = encode(make_card(), files, root, LocalEngine("cpu", 1).map, Silent())
    assert not reused
    assert encode(make_card(), files, root, LocalEngine("cpu", 1).map, Silent()) == (artifact, True)
    return EncodedTable.open(artifact.path)


class TestReading:
    @pytest.mark.parametrize(("kind", "column", "place"), [("cifar10", "label", 0), ("cifar100", "coarse", 0)])
    def test_a_file_comes_back_as_it_was_written(self, tmp_path: Path, kind: str, column: str, place: int) -> None:
        labels, pixels = write_cifar(tmp_path / "a.bin", 130, kind=kind)
        classes = [str(k) for k in range(10 if kind == "cifar10" else 20)]
        frame = read(make_card(kind, label={"column": column, "classes": classes}), tmp_path / "a.bin")
        assert frame[ROW].to_pylist() == list(range(130))
        assert frame[LABEL].to_pylist() == labels[:, place].tolist()
        assert frame["pixels"].to_pylist() == pixels.tolist()

    def test_the_fine_label_is_the_second_byte(self, tmp_path: Path) -> None:
        labels, _ = write_cifar(tmp_path / "a.bin", 100, kind="cifar100")
        assert read(make_card("cifar100"), tmp_path / "a.bin")[LABEL].to_pylist() == labels[:, 1].tolist()

    def test_without_labels_for_prediction(self, files: tuple[Path, Path]) -> None:
        assert read(make_card(), files[0], labels=False).column_names == [ROW, "pixels"]

    def test_a_folder_stands_for_its_binary_files(self, files: tuple[Path, Path]) -> None:
        assert expand_files(make_card(), [files[0].parent]) == sorted(files)


class TestRefusals:
    def test_labels_that_are_no_class_come_with_row_rule_and_value(self, tmp_path: Path) -> None:
        labels, pixels = write_cifar(tmp_path / "a.bin", 50)
        labels = labels.copy()
        labels[[7, 31]] = [[10], [255]]
        (tmp_path / "a.bin").write_bytes(np.concatenate([labels, pixels], axis=1).tobytes())
        error = refused(make_card(), tmp_path / "a.bin")
        assert places(error) == [("label", 8), ("label", 32)]
        assert str(error.problems[0]).endswith("row 8: the label is no class; expected 0 to 9; got 10")

    def test_both_labels_of_cifar100_are_looked_at_and_all_are_counted(self, tmp_path: Path) -> None:
        labels, pixels = write_cifar(tmp_path / "a.bin", 60, kind="cifar100")
        wrong = np.full_like(labels, 100)
        (tmp_path / "a.bin").write_bytes(np.concatenate([wrong, pixels], axis=1).tobytes())
        error = refused(make_card("cifar100"), tmp_path / "a.bin")
        assert error.total == 120
        assert {column for column, _ in places(error)} == {"coarse", "fine"}

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"\0" * 3072, "row 1: the file ends inside this row; expected 3073 bytes per row of kind cifar10; got 30"),
            (b"\0" * 9000, "row 3: the file ends inside this row; expected 3073 bytes per row of kind cifar10; got 28"),
            (b"", "is empty; expected 3073 bytes per row"),
            (b"\x1f\x8b\x08" + b"\0" * 3070, "is packed: unpack it first"),
        ],
    )
    def test_files_that_are_not_whole_rows(self, tmp_path: Path, content: bytes, what: str) -> None:
        (tmp_path / "a.bin").write_bytes(content)
        assert what in str(refused(make_card(), tmp_path / "a.bin").problems[0])

    def test_a_file_of_the_other_kind_ends_inside_a_row(self, tmp_path: Path) -> None:
        write_cifar(tmp_path / "a.bin", 60)
        assert "cifar100" in str(refused(make_card("cifar100"), tmp_path / "a.bin"))

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"columns": {"numeric": ["x"]}}, "kind cifar10 needs columns: {image: pixels}"),
            ({"columns": {"image": "pixels", "numeric": ["x"]}}, "a table of images has no other features"),
            ({"format": {"kind": "csv"}}, "columns.image: kind csv has no images"),
            ({"label": {"column": "fine", "classes": ["a", "b"]}}, "label.column: kind cifar10 has label, got 'fine'"),
            ({"label": {"column": "label", "classes": ["a", "b"]}}, "label of kind cifar10 has 10, got 2"),
            ({"weight": "w"}, "kind cifar10 takes no weight, got 'w'"),
            ({"row_id": {"kind": "column", "column": "id"}}, "kind cifar10 takes no row_id.column, got 'id'"),
            ({"splits": {"kind": "column", "salt": "s", "column": "part"}}, "kind cifar10 has no column 'part'"),
        ],
    )
    def test_cards_that_do_not_fit_their_format(self, changes: dict[str, Any], what: str) -> None:
        with pytest.raises(ConfigError) as caught:
            validated(Card, image_card(**changes), "card.yaml")
        assert what in str(caught.value)

    def test_classes_stand_in_the_order_of_the_labels(self) -> None:
        label = {"column": "label", "classes": list("abcdefghij"), "mapping": {"a": ["1"]}}
        with pytest.raises(ConfigError, match=r"label\.mapping: kind cifar10 takes none"):
            validated(Card, image_card(label=label), "card.yaml")


class TestEncoded:
    def test_pixels_stay_bytes_in_their_places(self, table: EncodedTable, files: tuple[Path, Path]) -> None:
        shards = {entry.path: entry.extra["split"] for entry in table.artifact.manifest.files if "split" in entry.extra}
        stored = pa.concat_tables(pq.read_table(table.artifact.file(name)) for name in shards)
        assert stored["numeric"].type == pa.binary(3072)
        assert "categorical" not in stored.column_names
        raw = {0: read(make_card(), files[1]), 1: read(make_card(), files[0])}
        for row_id, label, pixels in zip(*(stored[n].to_pylist() for n in ("row_id", "label", "numeric")), strict=True):
            source = raw[row_id >> 40].slice(row_id & (2**40 - 1), 1)
            assert (label, list(pixels)) == (source[LABEL][0].as_py(), source["pixels"][0].as_py())

    def test_the_scale_is_that_of_the_train_rows(self, table: EncodedTable) -> None:
        entries = [e for e in table.artifact.manifest.files if e.extra.get("split") == "train"]
        rows = [decode(pq.read_table(table.artifact.file(entry.path)), 10) for entry in entries]
        pixels = np.concatenate([one.numeric.numpy() for one in rows]).reshape(-1, 3, 1024).astype(np.float64)
        assert table.image is not None
        np.testing.assert_allclose(table.image["means"], pixels.mean((0, 2)), rtol=1e-12)
        np.testing.assert_allclose(table.image["stds"], pixels.std((0, 2)), rtol=1e-12)
        scaled = Pixels.of(table.image).scaled(rows[0].numeric).reshape(-1, 3, 1024)
        np.testing.assert_allclose(scaled.mean((0, 2)), 0.0, atol=1e-5)
        np.testing.assert_allclose(scaled.std((0, 2)), 1.0, atol=1e-4)

    def test_the_table_says_what_a_network_must_know(self, table: EncodedTable) -> None:
        assert (table.num_numeric, table.num_categorical, table.feature_columns) == (3072, 0, ("numeric",))
        assert {key: table.image[key] for key in ("channels", "height", "width")} == {
            "channels": 3,
            "height": 32,
            "width": 32,
        }
        assert sum(table.splits.values()) == 360

    def test_a_row_takes_a_byte_a_pixel(self, table: EncodedTable) -> None:
        entry = next(e for e in table.artifact.manifest.files if e.extra.get("split") == "train")
        rows = decode(pq.read_table(table.artifact.file(entry.path)), 10)
        assert 3072 <= rows.bytes_per_row < 3072 + 64

    def test_parts_of_the_rows_in_any_order_give_the_same_encoder(self, files: tuple[Path, Path]) -> None:
        card, frame = make_card(), read(make_card(), files[0])
        ids = frame[ROW].to_numpy()
        parts = [fit_partial(card, frame[a:b], ids[a:b]) for a, b in ((0, 7), (7, 120), (120, 300))]
        whole = fit_encoder(card, [fit_partial(card, frame, ids)])
        assert whole == fit_encoder(card, parts) == fit_encoder(card, parts[::-1])
        assert Encoder.from_json(whole.to_json()) == whole

    def test_a_constant_channel_is_left_in_its_scale(self) -> None:
        frame = pa.table({"pixels": pa.array([[5] * 3072] * 4, type=pa.list_(pa.uint8(), 3072))})
        encoder = fit_encoder(make_card(), [fit_partial(make_card(), frame, np.arange(4))])
        assert encoder.image is not None
        assert (encoder.image.means, encoder.image.stds) == ((5.0,) * 3, (1.0,) * 3)

    def test_new_files_are_encoded_as_the_table_was(self, table: EncodedTable, files: tuple[Path, Path]) -> None:
        encoders = Encoders.read([table.artifact.file("encoder.json")])
        ((_, numeric, categorical),) = encode_frame(make_card(), encoders, files[1])
        assert numeric.dtype == np.uint8
        assert categorical.shape == (60, 0)
        assert numeric.tolist() == read(make_card(), files[1])["pixels"].to_pylist()

    def test_check_counts_rows_and_classes(self, files: tuple[Path, Path]) -> None:
        told = summarise(make_card(), files)
        assert (told["rows"], told["numeric"], told["categorical"]) == (360, [], [])
        assert next(row for row in told["splits"] if row["split"] == "test")["class 3"] == 6


def test_the_digits_need_no_files() -> None:
    pytest.importorskip("sklearn")
    card = load_card(PACKAGED / "digits.yaml")
    told = summarise(card, [])
    assert (card.format.makes_rows, told["rows"], told["warnings"]) == (True, 1797, [])


@pytest.mark.parametrize(
    ("kind", "train", "test"),
    [("cifar10", "data_batch_3.bin", "test_batch.bin"), ("cifar100", "train.bin", "test.bin")],
)
def test_the_cards_of_the_repository_read_files_of_their_names(
    tmp_path: Path, kind: str, train: str, test: str
) -> None:
    write_cifar(tmp_path / train, 2000, kind=kind)
    write_cifar(tmp_path / test, 300, seed=1, kind=kind)
    card = load_card(Path(__file__).parents[2] / "datasets" / f"{kind}.yaml")
    told = summarise(card, sorted(tmp_path.iterdir()))
    rows = {row["split"]: row["rows"] for row in told["splits"]}
    assert (rows["test"], sum(rows.values())) == (300, 2300)
    assert all(rows[split] > 50 for split in ("teacher", "train", "outer", "valid"))
    assert f"{train} has 2000 rows, the published copy {10_000 if kind == 'cifar10' else 50_000}" in told["warnings"]
