"""Learning curves as TensorBoard events, read back record by record."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from tgeokd_ray.report.tensorboard import write_events


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """{tag: [(step, value), ...]} of the one events file in a folder: records of length, checksum, event, checksum."""
    (path,) = folder.glob("events.out.tfevents.*")
    data, found = path.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        data = data[16 + length :]
    return found


def test_every_model_has_its_curves(results: dict[str, Any], tmp_path: Path) -> None:
    folders = write_events(results, tmp_path)
    assert [folder.name for folder in folders] == [model["name"] for model in results["models"]]
    assert scalars(tmp_path / "tensorboard" / "tgeo") == {
        "loss": [(340, pytest.approx(0.51)), (680, pytest.approx(0.47))],
        "valid/auc": [(340, pytest.approx(0.7)), (680, pytest.approx(0.7791))],
        "valid/nll": [(340, pytest.approx(0.52))],
    }


def test_events_are_replaced_not_added(results: dict[str, Any], tmp_path: Path) -> None:
    write_events(results, tmp_path)
    write_events(results, tmp_path)
    assert len(scalars(tmp_path / "tensorboard" / "tgeo")["loss"]) == 2


def test_a_model_without_history_is_left_out(results: dict[str, Any], tmp_path: Path) -> None:
    results["models"][0]["history"] = []
    assert "teacher" not in {folder.name for folder in write_events(results, tmp_path)}


@pytest.mark.parametrize("name", ["../x", "..", "/etc/x", "a/../../b", "", "x\x00y"])
def test_x3_no_name_leaves_the_folder(name: str, results: dict[str, Any], tmp_path: Path) -> None:
    results["models"] = [results["models"][4] | {"name": name}]
    (folder,) = write_events(results, tmp_path / "run")
    assert folder.parent == tmp_path / "run" / "tensorboard"
    assert [child.name for child in tmp_path.iterdir()] == ["run"]
    assert scalars(folder)
