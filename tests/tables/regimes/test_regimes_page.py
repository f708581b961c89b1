"""docs/regimes.md names every regime, and its examples run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tgeokd_ray.tables.regimes.catalogue import NAMES
from tgeokd_ray.tables.regimes.damage import Damage

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = (REPOSITORY / "docs" / "regimes.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_names_every_regime_and_every_key_of_damage() -> None:
    shown = set(re.findall(r"`([a-z_0-9.]+)`", PAGE))
    assert set(NAMES) <= shown
    assert set(Damage.model_fields) <= shown


@pytest.mark.parametrize("number", range(2))
def test_an_example_runs(number: int, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[number]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("C: labels noisy (0.5" if number == 0 else "true_label: large_string") in done.stdout
    assert len(EXAMPLES) == 2
