"""Learning curves as TensorBoard events, read back record by record."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.api_pb2 import DataType, Status
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from tgeokd_ray.report.tensorboard import write_events, write_trials


def events(folder: Path) -> list[Event]:
    """The events of the one file in a folder: records of length, checksum, event, checksum."""
    (path,) = folder.glob("events.out.tfevents.*")
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """{tag: [(step, value), ...]} of the events in a folder."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
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


def hparams(folder: Path) -> dict[str, Any]:
    """What HPARAMS reads of a trial: types of all parameters, values of this one's, its status, the metric's tag."""
    found: dict[str, Any] = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                found |= {field.name: content for field, content in data.ListFields()}
    experiment, start = found["experiment"], found["session_start_info"]
    return {
        "types": {info.name: DataType.Name(info.type) for info in experiment.hparam_infos},
        "metrics": [info.name.tag for info in experiment.metric_infos],
        "values": {name: getattr(v, v.WhichOneof("kind")) for name, v in start.hparams.items()},
        "status": Status.Name(found["session_end_info"].status),
    }


def test_every_trial_has_its_curve_and_its_hyperparameters(swept: dict[str, Any], tmp_path: Path) -> None:
    sweep = swept["extra"]["sweep"]
    folders = write_trials(sweep, tmp_path)
    assert [folder.name for folder in folders] == [trial["name"] for trial in sweep["trials"]]
    assert scalars(folders[0]) == {
        "valid/auc": [(1, pytest.approx(0.7112)), (2, pytest.approx(0.7212)), (3, pytest.approx(0.7312))],
        "hparam/auc": [(3, pytest.approx(0.7312))],
        **{f"_hparams_/{name}": [(0, 0.0)] for name in ("experiment", "session_start_info", "session_end_info")},
    }
    rate, hidden = "student.training.optimizer.learning_rate", "student.model.hidden"
    first, failed = hparams(folders[0]), hparams(folders[4])
    assert first["values"] == {rate: 0.003, "rule": "tgeo", hidden: "[32, 16]"}
    assert (
        first["types"]
        == failed["types"]
        == {
            rate: "DATA_TYPE_FLOAT64",
            "rule": "DATA_TYPE_STRING",
            "constant": "DATA_TYPE_FLOAT64",
            hidden: "DATA_TYPE_STRING",
        }
    ), "each names all parameters, for TensorBoard reads one"
    assert first["metrics"] == ["hparam/auc"]
    assert [hparams(folder)["status"] for folder in folders[::4]] == ["STATUS_SUCCESS", "STATUS_FAILURE"]
    assert "hparam/auc" not in scalars(folders[4])


def test_trials_are_replaced_and_odd_values_are_kept(swept: dict[str, Any], tmp_path: Path) -> None:
    sweep = swept["extra"]["sweep"]
    points = [{"x": 1}, {"x": True}, {"x": None}, {"y": False}, {"z": 3}, {"bad\x00\udc80": float("nan")}]
    for trial, point in zip(sweep["trials"], points, strict=True):
        trial["point"] = point
    sweep["trials"][0]["curve"] = [None, float("nan"), 0.7]
    write_trials(sweep, tmp_path)
    folders = write_trials(sweep, tmp_path)
    assert scalars(folders[0])["valid/auc"] == [(3, pytest.approx(0.7))]
    values = [hparams(folder)["values"] for folder in folders]
    assert values == [{"x": "1"}, {"x": "true"}, {"x": "null"}, {"y": False}, {"z": 3.0}, {r"bad\x00\udc80": "nan"}]


@pytest.mark.parametrize("name", ["../x", "..", "a/../../b", "", "x\x00y"])
def test_x3_no_trial_leaves_the_folder(name: str, swept: dict[str, Any], tmp_path: Path) -> None:
    sweep = swept["extra"]["sweep"]
    sweep["trials"] = [sweep["trials"][0] | {"name": name}]
    (folder,) = write_trials(sweep, tmp_path / "run")
    assert folder.parent == tmp_path / "run" / "tensorboard"
    assert [child.name for child in tmp_path.iterdir()] == ["run"]


def test_a_sweep_without_trials_writes_nothing(swept: dict[str, Any], tmp_path: Path) -> None:
    assert write_trials(swept["extra"]["sweep"] | {"trials": []}, tmp_path) == []
