"""Checkpoints of an unfinished run: artifacts like any other, so that a torn one is never taken for whole.

Our manifests decide which checkpoint is the newest whole one; what a cluster's own state says is not asked.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from tgeokd_ray.artifacts import Artifact, load_tensors, open_artifact, read_json, save_tensors, staging, write_json
from tgeokd_ray.artifacts.names import versions
from tgeokd_ray.errors import IntegrityError
from tgeokd_ray.events import Progress
from tgeokd_ray.training.state import State

KIND = "checkpoints"
KEPT = 2
CURSOR_BYTES = 64 << 20


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: `folder/checkpoints/name/v000001`, tied to the run's `inputs` digest."""

    folder: Path
    name: str
    inputs: str

    def save(self, state: State) -> None:
        """Commit the state; older checkpoints than the last two go."""
        cursor = {"epoch": state.epoch, "step": state.step, "history": list(state.history)}
        arguments = {"run": self.inputs, "epoch": state.epoch, "step": state.step}
        with staging(self.folder, KIND, self.name, arguments=arguments, parents={}) as stage:
            stage.write("state.safetensors", lambda path: save_tensors(path, state.flat()))
            stage.write("cursor.json", lambda path: write_json(path, cursor))
            stage.commit(schema={}, record={})
        for path in self._versions()[KEPT:]:
            shutil.rmtree(path)

    def newest(self, device: torch.device, progress: Progress) -> State | None:
        """The newest whole checkpoint of this run, fully verified; a torn one is named and the one before it taken."""
        for path in self._versions():
            try:
                artifact = open_artifact(path, level="full")
                if artifact.manifest.arguments.get("run") == self.inputs:
                    return _load(artifact, device)
            except IntegrityError as error:
                progress.warned(f"checkpoint {path.name} of {self.name} is not whole, using the one before: {error}")
        return None

    def _versions(self) -> list[Path]:
        """Newest first, whole or not."""
        return list(versions(self.folder / KIND / self.name))

    def clear(self) -> None:
        """Remove them all: the run has committed its result."""
        shutil.rmtree(self.folder / KIND / self.name, ignore_errors=True)


def _load(artifact: Artifact, device: torch.device) -> State:
    cursor = read_json(artifact.file("cursor.json"), CURSOR_BYTES)
    tensors = load_tensors(artifact.file("state.safetensors"))
    return State.from_flat(
        tensors, epoch=cursor["epoch"], step=cursor["step"], history=tuple(cursor["history"]), device=device
    )
