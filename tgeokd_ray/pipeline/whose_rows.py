"""May these teachers score these rows? Encoded as their own were, and none of them one that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence

from tgeokd_ray.artifacts import Artifact, require_parent
from tgeokd_ray.errors import ProvenanceError
from tgeokd_ray.events import Progress


def check_teachers(
    table: Artifact, teachers: Sequence[Artifact], splits: Sequence[str], *, in_sample: bool, progress: Progress
) -> None:
    """ProvenanceError unless every teacher was made from this table or one that it grew from, and scores no row on
    which it was trained: by a split of its own, or as one of all F folds. `in_sample` allows such rows, with a warning:
    a teacher knows the labels of its own rows by heart, and distilling from them gains nothing."""
    for teacher in teachers:
        require_parent(teacher, "table", table)
    if len(teachers) > 1 or _folds(teachers[0]) > 1:
        _check_folds(teachers)
        return
    (teacher,) = teachers
    arguments = teacher.manifest.arguments
    trained_on = arguments.get("splits", [arguments.get("split")])  # one split, in artifacts of earlier versions
    own = [split for split in trained_on if split in splits]
    if not own:
        return
    if not in_sample:
        raise ProvenanceError(
            f"{teacher.label} was trained on the split {own[0]!r}, whose rows it would score here",
            fix="train it on a split of its own, cross-fit (--set teacher.folds=5), score other splits (--set "
            "logits.splits=[...]), or allow it: --set teacher.in_sample=true",
        )
    progress.warned(
        f"{teacher.label} scores rows on which it was trained (teacher.in_sample): expect little gain over labels"
    )


def _check_folds(teachers: Sequence[Artifact]) -> None:
    """ProvenanceError unless these are the teachers of fold 0, 1, ... F - 1, in order."""
    told = [(teacher.manifest.arguments.get("fold"), _folds(teacher)) for teacher in teachers]
    if told != [(fold, len(teachers)) for fold in range(len(teachers))]:
        lines = [
            f"{teacher.label}: fold {fold} of {folds}" if folds > 1 else f"{teacher.label}: no fold"
            for teacher, (fold, folds) in zip(teachers, told, strict=True)
        ]
        raise ProvenanceError(
            f"these are not the teachers of all folds in order: {', '.join(lines)}",
            fix="name the teachers of fold 0, 1, ... of one cross-fitting, each once",
        )


def _folds(teacher: Artifact) -> int:
    """How many teachers score each other's rows; a fold that one holds out for itself makes none."""
    arguments = teacher.manifest.arguments
    return 1 if arguments.get("held_out") else int(arguments.get("folds", 1))
