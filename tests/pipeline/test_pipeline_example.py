"""The worked example of docs/teachers.md, run as it stands but for fewer trees."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.pipeline.job import Place, run_stage
from tgeokd_ray.tables.cards import PACKAGED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "teachers.md"


@pytest.mark.timeout(120)
def test_a_teacher_of_ones_own_is_trained_on_the_shards_and_scores_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    card |= {"name": "criteo", "format": card["format"] | {"rows": 2000, "chunk_rows": 1000}}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    monkeypatch.chdir(tmp_path)
    (made,) = run_stage("encode", *resolve({"card": "card.yaml"}, settings=[]), {}, Place(local=True), Silent())
    table = EncodedTable.open(made.path)
    example = PAGE.read_text().partition("```python\n")[2].partition("```")[0]
    assert "max_iter=600" in example
    exec(compile(example.replace("max_iter=600", "max_iter=5"), str(PAGE), "exec"), {})
    scores = pq.read_table("boosting.parquet")
    rows = sum(unit.rows for split in ("train", "outer", "valid", "test") for unit in table.units(split))
    assert scores.num_rows == rows
    assert all(sum(row) == pytest.approx(1) for row in scores["probabilities"].to_pylist())
