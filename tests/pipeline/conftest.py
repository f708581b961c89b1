"""Table and logits that all sweeps of these tests start from."""

from __future__ import annotations

import pytest
import yaml
from sweep_runs import Sweeps

from tgeokd_ray.tables.cards import PACKAGED


@pytest.fixture(scope="session")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    """Table and logits for all sweeps, made once."""
    folder = tmp_path_factory.mktemp("sweeps")
    text = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    text["format"] |= {"rows": 1800, "chunk_rows": 900}
    (folder / "small.yaml").write_text(yaml.safe_dump(text))
    found = Sweeps(folder / "root", folder / "small.yaml")
    found.root.mkdir()
    found.prepared("first")
    return found
