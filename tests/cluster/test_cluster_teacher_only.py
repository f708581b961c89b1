"""Columns that the teacher alone sees, in the object store: two views of one split, each as its reader gives it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from tgeokd_ray.cluster.shared_rows import share_rows
from tgeokd_ray.cluster.source import ClusterSource
from tgeokd_ray.cluster.store import share
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import DirectReader, EncodedTable, Wanted, decode
from tgeokd_ray.feed.rows import concatenate
from tgeokd_ray.pipeline.job import Place, run_stage
from tgeokd_ray.tables.cards import PACKAGED
from tgeokd_ray.training.spec import RunSpec

pytestmark = [pytest.mark.ray, pytest.mark.timeout(100), pytest.mark.usefixtures("cluster")]


def test_each_kind_of_model_gets_its_own_view(tmp_path: Path) -> None:
    text = yaml.safe_load((PACKAGED / "synthetic_privileged.yaml").read_text())
    text["format"] |= {"rows": 4000, "chunk_rows": 1500}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(text))
    options = {"card": str(tmp_path / "small.yaml"), "root": str(tmp_path)}
    (table,) = run_stage("encode", *resolve(options), {}, Place(local=True), Silent())
    runs = [
        RunSpec(name=kind, kind=kind, artifact=kind, root="", folder="", table=str(table.path))
        for kind in ("teachers", "students")
    ]
    shared = share_rows(runs, ClusterSource("direct", share({})))
    for kind, columns in (("teachers", 18), ("students", 16)):
        view = EncodedTable.open(table.path, model=kind)
        rows = shared.get(Wanted(view, ("valid",)))
        assert rows is not None
        assert rows.numeric.shape[1] == columns
        direct = [decode(piece, 2) for piece in DirectReader(view, (), "valid")(view.units("valid"))]
        for ours, theirs in zip(rows.tensors(), concatenate(direct).tensors(), strict=True):
            assert torch.equal(ours, theirs)
