"""How much the labels that students are chosen by surprise the teacher: an artifact, so that it is asked only once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, find, inputs_digest, read_json, staging, write_json

JUDGING = ("outer", "valid")
FILE, FILE_BYTES = "surprise.json", 1 << 16


def evidence(root: Path, name: str, table: Artifact, logits: Sequence[Artifact]) -> dict[str, Any]:
    """`found`, `expected` (nats) and `rows` of `training.surprise` over the outer and valid rows: from `evidence/NAME`,
    which is made where no whole one has these parents."""
    arguments = {"splits": list(JUDGING)}
    parents = {"table": table, **{f"logits_{number}": one for number, one in enumerate(logits)}}
    inputs = inputs_digest("evidence", arguments, {role: parent.as_parent() for role, parent in parents.items()})
    there = find(root, "evidence", name, inputs)
    if there is None:
        from tgeokd_ray.training.surprise import surprise

        seen = surprise(table, logits, JUDGING)
        told = {"found": seen.found, "expected": seen.expected, "rows": seen.rows}
        with staging(root, "evidence", name, arguments=arguments, parents=parents) as stage:
            stage.write(FILE, lambda path: write_json(path, told))
            there = stage.commit(schema={}, record={})
    found: dict[str, Any] = read_json(there.file(FILE), FILE_BYTES)
    return found
