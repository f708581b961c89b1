"""What a table warned of when it was encoded is said again whenever it is used again."""

from __future__ import annotations

from pathlib import Path

import yaml

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Heard, Silent
from tgeokd_ray.pipeline.job import Place, run_stage

CARD = {
    "name": "small",
    "format": {"kind": "csv"},
    "label": {"column": "y", "classes": ["a", "b"]},
    "columns": {"numeric": ["x"], "categorical": ["z"]},
    "splits": {"kind": "column", "column": "part", "salt": "s"},
}


def test_a_table_that_is_used_again_warns_as_it_did_at_first(tmp_path: Path) -> None:
    card, data = tmp_path / "small.yaml", tmp_path / "small.csv"
    card.write_text(yaml.safe_dump(CARD))
    splits = ["teacher", "train", "outer", "valid", "test"]
    rows = [(k, splits[k % 5]) for k in range(100)]
    lines = [f"{'a' if part == 'valid' or k % 2 else 'b'},{k},z{k % 3},{part}" for k, part in rows]
    data.write_text("\n".join(["y,x,z,part", *lines]) + "\n")
    job, whole = resolve({"card": str(card), "data": [str(data)], "root": str(tmp_path)}, settings=[])
    heard, again = Silent(), Silent()
    (table,) = run_stage("encode", job, whole, {}, Place(local=True), heard)
    (same,) = run_stage("encode", job, whole, {}, Place(local=True), again)
    assert same.digest == table.digest
    assert heard.warnings == again.warnings == ["split valid has no row of class b"]


def test_a_listener_between_passes_everything_on() -> None:
    told: list[tuple[object, ...]] = []

    class Listener(Silent):
        def started(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
            told.append((stage, total, unit))

        def finished(self, stage: str, note: str = "") -> None:
            told.append((stage, note))

    listener = Listener()
    heard = Heard(listener)
    heard.started("encode", 3)
    heard.warned("a")
    heard.finished("encode", "done")
    assert told == [("encode", 3, "rows"), ("encode", "done")]
    assert heard.warnings == listener.warnings == ["a"]
