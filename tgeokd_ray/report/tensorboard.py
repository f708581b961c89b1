"""The learning curves of a run as TensorBoard events, and the hyperparameters of the trials of a sweep."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tgeokd_ray.report.sweep_wording import paths
from tgeokd_ray.report.sweep_wording import written as text
from tgeokd_ray.report.wording import plain


def write_events(results: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """One folder of events per model that has a history, `folder/tensorboard/MODEL`; returns these folders.

    Every number of an entry but `epoch` and `step` becomes a scalar at its step; null is left out. Leading dots of a
    name and characters outside `A-Za-z0-9._-` become `_`, so that no name leaves the folder. Earlier events of these
    models are replaced.
    """
    new_writer = _writer()
    written = []
    for model in results["models"]:
        history = model.get("history") or []
        if not history:
            continue
        target = _emptied(folder, model["name"])
        with new_writer(str(target)) as writer:
            for entry in history:
                for key, value in entry.items():
                    if key not in ("epoch", "step") and _drawable(value):
                        writer.add_scalar(key.replace("valid_", "valid/"), value, int(entry["step"]))
        written.append(target)
    return written


def write_trials(sweep: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """One folder of events per trial of a sweep (results.json, `extra.sweep`), named as `write_events` names them.

    The metric on valid is the scalar `valid/METRIC`, by epoch. Parameters and the trial's value, `hparam/METRIC`, are
    what the tab HPARAMS of TensorBoard lists; a parameter that is no number or truth value in some trial is text.
    """
    new_writer = _writer()
    metric, parameters, written = str(sweep["metric"]), _parameters(sweep), []
    for trial in sweep["trials"]:
        target = _emptied(folder, trial["name"])
        with new_writer(str(target)) as writer:
            for summary in _hparams(trial, parameters, metric):
                writer.file_writer.add_summary(summary)
            for epoch, value in enumerate(trial["curve"], 1):
                if _drawable(value):
                    writer.add_scalar(f"valid/{metric}", value, epoch)
            if _drawable(trial["value"]):
                writer.add_scalar(f"hparam/{metric}", trial["value"], int(trial["epochs"]))
        written.append(target)
    return written


def _emptied(folder: str | Path, name: str) -> Path:
    """The folder of events of this name, without earlier ones."""
    target = Path(folder) / "tensorboard" / (re.sub(r"^\.+|[^A-Za-z0-9._-]", "_", name) or "_")
    for old in target.glob("events.out.tfevents.*"):
        old.unlink()
    return target


def _parameters(sweep: Mapping[str, Any]) -> dict[str, str]:
    """The field of a protocol buffer's value that holds each parameter, the same in all trials."""
    points = [trial["point"] for trial in sweep["trials"]]
    kinds = {path: {_field(point[path]) for point in points if path in point} for path in paths(sweep)}
    return {path: found.pop() if len(found) == 1 else "string_value" for path, found in kinds.items()}


def _field(value: object) -> str:
    if isinstance(value, bool):
        return "bool_value"
    return "number_value" if _drawable(value) else "string_value"


def _hparams(trial: Mapping[str, Any], parameters: Mapping[str, str], metric: str) -> Iterator[Any]:
    """The experiment, of which TensorBoard reads one trial's and which therefore names all parameters; what this trial
    began with; how it ended. tensorboardX's own would name the trial's only, and call each a success."""
    from tensorboardX.proto import api_pb2 as api
    from tensorboardX.proto import plugin_hparams_pb2 as plugin
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

    types = {"bool_value": "BOOL", "number_value": "FLOAT64", "string_value": "STRING"}
    infos = [
        api.HParamInfo(name=plain(path), type=api.DataType.Value(f"DATA_TYPE_{types[field]}"))
        for path, field in parameters.items()
    ]
    metrics = [api.MetricInfo(name=api.MetricName(tag=f"hparam/{metric}"), display_name=f"{metric} on valid")]
    start = plugin.SessionStartInfo()
    for path, field in parameters.items():
        if path in trial["point"]:
            value = trial["point"][path]
            setattr(start.hparams[plain(path)], field, plain(text(value)) if field == "string_value" else value)
    status = api.Status.Value("STATUS_FAILURE" if trial["status"] == "failed" else "STATUS_SUCCESS")
    for tag, content in (
        ("experiment", {"experiment": api.Experiment(hparam_infos=infos, metric_infos=metrics)}),
        ("session_start_info", {"session_start_info": start}),
        ("session_end_info", {"session_end_info": plugin.SessionEndInfo(status=status)}),
    ):
        data = plugin.HParamsPluginData(version=0, **content).SerializeToString()
        whose = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=data))
        yield Summary(value=[Summary.Value(tag=f"_hparams_/{tag}", metadata=whose)])


def _writer() -> Any:
    """SummaryWriter without torch, unless that is there already: tensorboardX takes it where it can, for graphs and
    tensors, and seconds of import would be all that a job whose artifacts are all re-used does."""
    modules: dict[str, Any] = sys.modules
    absent = "torch" not in modules
    if absent:
        modules["torch"] = None  # an import of it fails, which tensorboardX allows for
    try:
        from tensorboardX import SummaryWriter
    finally:
        if absent:
            del modules["torch"]
    return SummaryWriter


def _drawable(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
