"""Columns that the teacher alone sees, on Ray: the same numbers as in one process, and two views of one split."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cluster_chain import SMALL

from tgeokd_ray.artifacts import latest
from tgeokd_ray.cluster.connect import Connection
from tgeokd_ray.cluster.shared_rows import share_rows
from tgeokd_ray.cluster.source import ClusterSource
from tgeokd_ray.cluster.store import share
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import EncodedTable
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.tables.cards import PACKAGED
from tgeokd_ray.training.spec import RunSpec


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_ray_gives_the_numbers_of_one_process(cluster: Connection, tmp_path: Path) -> None:
    text = yaml.safe_load((PACKAGED / "synthetic_privileged.yaml").read_text())
    text["format"] |= {"rows": 4000, "chunk_rows": 1500}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(text))
    digests = []
    for name, place in (("local", Place(local=True)), ("ray", Place(address=cluster.address))):
        options = {"card": str(tmp_path / "small.yaml"), "root": str(tmp_path / name)}
        results, _ = run_job(*resolve(options, settings=SMALL), place, Silent())
        digests.append([model["digest"] for model in results["models"]])
    assert digests[0] == digests[1]
    table = latest(tmp_path / "ray", "tables", "synthetic_privileged")
    assert table is not None
    runs = [
        RunSpec(name=kind, kind=kind, artifact=kind, root="", folder="", table=str(table.path))
        for kind in ("teachers", "students")
    ]
    shared = share_rows(runs, ClusterSource("direct", share({})))
    for kind, columns in (("teachers", 18), ("students", 16)):
        rows = shared.get(EncodedTable.open(table.path, model=kind), (), "valid")
        assert rows is not None
        assert rows.numeric.shape[1] == columns
