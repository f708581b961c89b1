"""A small encoded table with logits for every test of training that asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_table import Small, make_small


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return make_small(tmp_path / "artifacts")
