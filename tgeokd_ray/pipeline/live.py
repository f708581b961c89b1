"""The teacher that students ask in every step, where `distill.teacher` is live."""

from __future__ import annotations

from collections.abc import Sequence

from tgeokd_ray.artifacts import Artifact, lineage
from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import ConfigError, ProvenanceError


def live_teacher(job: Job, table: Artifact, logits: Sequence[Artifact]) -> str | None:
    """The path of the one teacher that made the logits; None where students learn from stored logits.

    ConfigError where it is not one teacher of ours, or sees columns that students do not; ProvenanceError where it is
    gone.
    """
    if job.distill.teacher == "stored":
        return None
    made_by = [one for artifact in logits for one in lineage(artifact) if one.parent.kind == "teachers"]
    why = None
    if len(made_by) != 1 or len(logits) != 1:
        why = f"it takes one teacher of ours, and {len(made_by)} made the logits"
    elif "teacher_only" in table.manifest.schema:
        why = "the teacher sees columns that a student's training does not read"
    if why is not None:
        raise ConfigError(f"distill.teacher=live: {why}", fix="take distill.teacher=stored")
    (teacher,) = made_by
    if teacher.artifact is None:
        raise ProvenanceError(f"distill.teacher=live: {teacher.parent.label} is gone", fix="run tgeokd teacher again")
    return str(teacher.artifact.path)
