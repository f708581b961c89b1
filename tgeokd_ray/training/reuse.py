"""Which runs are already there: answered from manifests alone, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, find, inputs_digest, open_artifact, read_json
from tgeokd_ray.training.spec import Finished, RunSpec

Plan = Callable[[Sequence[Finished]], Sequence[RunSpec]]
METRICS_BYTES = 64 << 20


def parents(spec: RunSpec) -> dict[str, Artifact]:
    """The artifacts that the run's result is made from, by role: `table`, `logits`, `ratios` and `judge` (numbered when
    several), the `channel`, a live `teacher`, and the `constant` that candidates have to beat."""
    paths = {"table": spec.table}
    for role, those in (("logits", spec.logits), ("ratios", spec.ratios), ("judge", spec.judges)):
        paths |= {role if len(those) == 1 else f"{role}_{k}": path for k, path in enumerate(those)}
    if spec.live is not None:
        paths["teacher"] = spec.live
    if spec.channel is not None:
        paths["channel"] = spec.channel
    if spec.choice is not None and spec.choice.incumbent is not None:
        paths["constant"] = spec.choice.incumbent
    return {role: open_artifact(Path(path)) for role, path in paths.items()}


def run_inputs(spec: RunSpec) -> str:
    """Digest of all that decides the run's result: kind, arguments, the content of its parents."""
    return inputs_digest(spec.kind, spec.arguments(), {r: a.as_parent() for r, a in parents(spec).items()})


def joint_digest(inputs: Sequence[str]) -> str:
    """Digest of all that decides the results of several runs; of one, its own."""
    return inputs[0] if len(inputs) == 1 else hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def lookup(spec: RunSpec, inputs: str | None = None) -> Finished | None:
    """The finished run, if its artifact was committed and is whole."""
    artifact = find(Path(spec.root), spec.kind, spec.artifact, inputs or run_inputs(spec))
    return None if artifact is None else finished(spec.name, artifact, reused=True, seconds=0.0)


def finished(name: str, artifact: Artifact, *, reused: bool, seconds: float) -> Finished:
    """The record of a committed run."""
    return Finished(name, str(artifact.path), artifact.digest, load_metrics(artifact), reused, seconds)


def load_metrics(artifact: Artifact) -> dict[str, Any]:
    """`metrics.json` of a teacher or student, with the pace of its training from the manifest's record."""
    metrics: dict[str, Any] = read_json(artifact.file("metrics.json"), METRICS_BYTES)
    return metrics | {"rows_per_second": artifact.manifest.record.get("rows_per_second")}


def replay(plan: Plan) -> list[Finished] | None:
    """What executing the plan would return if every run of it is already there; None if any is missing."""
    done: list[Finished] = []
    while specs := plan(done):
        for spec in specs:
            run = lookup(spec)
            if run is None:
                return None
            done.append(run)
    return done
