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
from tgeokd_ray.training.worker import Worker

KIND = "checkpoints"
KEPT = 2
CURSOR_BYTES = 64 << 20


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: `folder/checkpoints/NAME-INPUTS/v000001`.

    The first digits of the run's `inputs` digest keep those of another configuration apart.
    """

    folder: Path
    name: str
    inputs: str

    def save(self, state: State) -> None:
        """Commit the state; older checkpoints than the last two go."""
        cursor = {"epoch": state.epoch, "step": state.step, "history": list(state.history)}
        arguments = {"run": self.inputs, "epoch": state.epoch, "step": state.step}
        with staging(self.folder, KIND, self.home.name, arguments=arguments, parents={}) as stage:
            stage.write("state.safetensors", lambda path: save_tensors(path, state.flat()))
            stage.write("cursor.json", lambda path: write_json(path, cursor))
            stage.commit(schema={}, record={})
        for path in self._versions()[KEPT:]:
            shutil.rmtree(path, ignore_errors=True)

    def adopt(self, path: Path, device: torch.device) -> None:
        """Take over the state in the checkpoint at `path`, of a run that was like this one up to there. IntegrityError
        where it is not whole."""
        self.save(_load(open_artifact(path, level="full"), device))

    def newest(self, worker: Worker, progress: Progress) -> State | None:
        """The newest whole checkpoint of this run, fully verified; a torn one is named and the one before it taken.

        Worker 0 chooses and the others open the same one: where a listing is late, starting apart would be worse than
        the IntegrityError of a worker that does not see it.
        """
        chosen = self._choose(progress) if worker.rank == 0 else None
        number = worker.broadcast(torch.tensor([float(chosen.name[1:]) if chosen else 0.0], device=worker.device))
        if not int(number):
            return None
        return _load(open_artifact(self.home / f"v{int(number):06d}", level="full"), worker.device)

    def _choose(self, progress: Progress) -> Path | None:
        for path in self._versions():
            try:
                if open_artifact(path, level="full").manifest.arguments.get("run") == self.inputs:
                    return path
            except IntegrityError as error:
                progress.warned(f"checkpoint {path.name} of {self.name} is not whole, using the one before: {error}")
        return None

    @property
    def home(self) -> Path:
        """The folder of these checkpoints alone."""
        return self.folder / KIND / f"{self.name}-{self.inputs[:12]}"

    def _versions(self) -> list[Path]:
        """Newest first, whole or not."""
        return list(versions(self.home))

    def clear(self) -> None:
        """Remove them all: the run has committed its result."""
        shutil.rmtree(self.home, ignore_errors=True)


def _load(artifact: Artifact, device: torch.device) -> State:
    cursor = read_json(artifact.file("cursor.json"), CURSOR_BYTES)
    tensors = load_tensors(artifact.file("state.safetensors"))
    return State.from_flat(
        tensors, epoch=cursor["epoch"], step=cursor["step"], history=tuple(cursor["history"]), device=device
    )
