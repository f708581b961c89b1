"""Table and logits that all sweeps of these tests start from."""

from __future__ import annotations

import pytest
from small_card import small_card
from sweep_runs import Sweeps


@pytest.fixture(scope="session")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    """Table and logits for all sweeps, made once."""
    folder = tmp_path_factory.mktemp("sweeps")
    found = Sweeps(folder / "root", small_card(folder, 1800, 900))
    found.root.mkdir()
    found.prepared("first")
    return found
