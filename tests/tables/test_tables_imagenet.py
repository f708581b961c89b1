"""ImageNet in small images: what is read, in what memory, and what is refused and where."""

from __future__ import annotations

import io
import os
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from raw_files import places, read, refused

from tgeokd_ray.tables import imagenet
from tgeokd_ray.tables.cards import LABEL, ROW, Card
from tgeokd_ray.tables.readers import read_frames
from tgeokd_ray.tables.sources import expand_files

SIDE = 16
PIXELS = 3 * SIDE * SIDE


def make_card(kind: str = "imagenet16", **changes: Any) -> Card:
    told = {
        "name": "small",
        "format": {"kind": kind},
        "label": {"column": "label", "classes": {"from": 1, "to": 1000}},
        "columns": {"image": "pixels"},
        "splits": {"kind": "hash", "parts": {"teacher": 0.4, "train": 0.3, "outer": 0.1, "valid": 0.1, "test": 0.1}},
    }
    return Card.model_validate(told | changes)


def drawn(rows: int, side: int = SIDE) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    rng = np.random.default_rng(rows)
    return rng.integers(1, 1001, rows), rng.integers(0, 256, (rows, 3 * side * side), dtype=np.uint8)


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def write_members(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


class Bomb:
    """Whoever unpickles it ends the process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("side", [16, 32, 64])
def test_a_file_comes_back_as_it_was_written(
    tmp_path: Path, save: Any, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet, "PIECE_BYTES", 40 * 3 * side * side)  # several pieces, the last one smaller
    labels, data = drawn(130, side)
    save(tmp_path / "train_data_batch_1.npz", data=data, labels=labels, mean=data.mean(axis=0))
    frame = read(make_card(f"imagenet{side}"), tmp_path / "train_data_batch_1.npz")
    assert frame[ROW].to_pylist() == list(range(130))
    assert frame[LABEL].to_pylist() == (labels - 1).tolist()
    assert frame["pixels"].to_pylist() == data.tolist()


def test_without_labels_for_prediction(tmp_path: Path) -> None:
    labels, data = drawn(5)
    np.savez(tmp_path / "a.npz", data=data, labels=labels)
    assert read(make_card(), tmp_path / "a.npz", labels=False).column_names == [ROW, "pixels"]


def test_a_folder_stands_for_its_archives(tmp_path: Path) -> None:
    for name in ("b.npz", "a.npz", "map_clsloc.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in expand_files(make_card(), [tmp_path])] == ["a.npz", "b.npz"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_memory_is_that_of_a_piece_and_not_of_the_file(
    tmp_path: Path, save: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet, "PIECE_BYTES", 1 << 20)
    labels, data = drawn(40_000)
    data &= 1  # so that it packs fast, and is small when packed
    save(tmp_path / "a.npz", data=data, labels=labels)
    size = data.nbytes
    del data
    tracemalloc.start()
    rows = sum(frame.num_rows for frame in read_frames(make_card(), tmp_path / "a.npz"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 40_000
    assert peak < size / 4


class TestRefusals:
    def test_labels_that_are_no_class_come_with_row_rule_and_value(self, tmp_path: Path) -> None:
        labels, data = drawn(50)
        labels[[7, 31]] = [0, 1001]
        np.savez(tmp_path / "a.npz", data=data, labels=labels)
        error = refused(make_card(), tmp_path / "a.npz")
        assert places(error) == [("label", 8), ("label", 32)]
        assert [(p.expected, p.got) for p in error.problems] == [("1 to 1000", "0"), ("1 to 1000", "1001")]

    def test_many_of_them_are_counted(self, tmp_path: Path) -> None:
        _, data = drawn(50)
        np.savez(tmp_path / "a.npz", data=data, labels=np.zeros(50, dtype=np.int64))
        error = refused(make_card(), tmp_path / "a.npz")
        assert (len(error.problems), error.total) == (20, 50)

    @pytest.mark.parametrize(
        ("arrays", "text"),
        [
            ({"data": drawn(4)[1]}, "has no array labels; expected data, labels; got data"),
            ({"labels": drawn(4)[0]}, "has no array data"),
            (
                {"data": drawn(4)[1], "labels": drawn(5)[0]},
                "column 'data': is of another form; expected uint8 [5, 768]",
            ),
            ({"data": drawn(4, 32)[1], "labels": drawn(4)[0]}, "got uint8 [4, 3072]"),
            ({"data": drawn(4)[1].astype(np.int16), "labels": drawn(4)[0]}, "got int16 [4, 768]"),
            ({"data": np.asfortranarray(drawn(4)[1]), "labels": drawn(4)[0]}, "is of another form"),
            ({"data": drawn(4)[1], "labels": drawn(4)[0].astype(float)}, "column 'labels': is of another form"),
            (
                {"data": drawn(4)[1], "labels": np.array(list("abcd"), dtype=object)},
                "expected whole numbers [N]; got object",
            ),
            ({"data": drawn(0)[1], "labels": drawn(0)[0]}, "has no rows"),
        ],
        ids=lambda value: None if isinstance(value, dict) else value[:20],
    )
    def test_arrays_of_another_form(self, tmp_path: Path, arrays: dict[str, Any], text: str) -> None:
        np.savez(tmp_path / "a.npz", **arrays)
        error = refused(make_card(), tmp_path / "a.npz")
        assert text in str(error)
        assert "format.kind" in str(error.fix)

    @pytest.mark.parametrize("damage", ["text", "cut", "turned", "no array"])
    def test_a_file_that_is_torn(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "a.npz"
        labels, data = drawn(300)
        np.savez(path, labels=labels, data=data)
        whole = path.read_bytes()
        if damage == "text":
            path.write_text("not found\n")
        elif damage == "cut":
            path.write_bytes(whole[:-1000])
        elif damage == "turned":
            path.write_bytes(whole[:100_000] + bytes([whole[100_000] ^ 1]) + whole[100_001:])
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("labels.npy", b"1 2 3")
                archive.writestr("data.npy", b"")
        assert "is no whole archive of NumPy" in str(refused(make_card(), path))

    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_however_it_is_packed_a_turned_bit_is_found(self, tmp_path: Path, method: int) -> None:
        path = tmp_path / "a.npz"
        labels, data = drawn(60)
        write_members(path, {"labels": npy(labels), "data": npy(data)}, method)
        assert read(make_card(), path).num_rows == 60
        whole = path.read_bytes()
        for place in range(1000, len(whole) - 1000, 2500):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
            refused(make_card(), path)

    @pytest.mark.parametrize(
        ("header", "text"),
        [
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }", "column 'labels': is of another form"),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (" + "9" * 30 + ",), }", "no whole archive of NumPy"),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (10**30,), }", "no whole archive of NumPy"),
            ("{{'descr': '<i8', 'fortran_order': False, 'shape': (4,), }", "no whole archive of NumPy"),
        ],
    )
    def test_what_stands_before_an_array_and_makes_no_sense(self, tmp_path: Path, header: str, text: str) -> None:
        labels, data = drawn(4)
        told = b"\x93NUMPY\x01\x00" + (117).to_bytes(2, "little") + header.ljust(116).encode() + b"\n"
        write_members(tmp_path / "a.npz", {"labels": told + labels.tobytes(), "data": npy(data)})
        assert text in str(refused(make_card(), tmp_path / "a.npz"))

    @pytest.mark.parametrize("name", ["labels", "data"])
    def test_an_array_that_goes_on_behind_its_rows(self, tmp_path: Path, name: str) -> None:
        labels, data = drawn(4)
        members = {"labels": npy(labels), "data": npy(data)}
        write_members(tmp_path / "a.npz", members | {name: members[name] + b"more"})
        assert "got more bytes than its arrays have" in str(refused(make_card(), tmp_path / "a.npz"))

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        labels, data = drawn(4)
        for name in ("labels", "data"):
            arrays = {"labels": labels, "data": data} | {name: np.array([Bomb()] * 4, dtype=object)}
            np.savez(tmp_path / "a.npz", **arrays)
            assert "is of another form" in str(refused(make_card(), tmp_path / "a.npz"))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        assert "cannot be read: No such file" in str(refused(make_card(), tmp_path / "a.npz"))


class TestClasses:
    def test_they_may_be_counted(self) -> None:
        assert make_card().label.classes == tuple(map(str, range(1, 1001)))

    @pytest.mark.parametrize(
        "told",
        [
            {"from": 1},
            {"from": 1, "to": 1},
            {"from": 1, "to": "9"},
            {"from": 1, "to": 9, "by": 2},
            {"from": 0, "to": 10**9},
        ],
        ids=str,
    )
    def test_what_counts_nothing_is_refused(self, told: dict[str, Any]) -> None:
        with pytest.raises(
            ValidationError, match=r"must be a list of names, or \{from: 1, to: 1000\} with at most 100000"
        ):
            make_card(label={"column": "label", "classes": told})

    def test_a_card_with_other_classes_does_not_fit(self) -> None:
        with pytest.raises(ValidationError, match="label of kind imagenet16 has 1000, got 10"):
            make_card(label={"column": "label", "classes": {"from": 1, "to": 10}})
