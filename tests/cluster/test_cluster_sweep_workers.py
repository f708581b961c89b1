"""Trials of two workers on Ray: the numbers of one, stopped by halving, and nothing of a stopped one is left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cluster_chain import Chain
from test_cluster_sweep import RATE, swept

from tgeokd_ray.pipeline.job import Place


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.usefixtures("cluster")
def test_trials_of_two_workers_have_the_values_of_one(chain: Chain, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(chain.root, root)
    shutil.rmtree(root / "runs")
    points = [{RATE: rate, "rule": "labels"} for rate in (1e-3, 3e-2)]
    told = swept(chain, root, Place(), name="two", trials=2, concurrency=1, known=points, base={"workers": 2})
    print(told["extra"]["sweep"])
