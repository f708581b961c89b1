"""Folders that are not there, and names of files that promise another kind, are refused with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgeokd_ray.cli import commands
from tgeokd_ray.errors import ConfigError


def test_a_root_that_is_not_there_has_nothing_to_collect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder .*absent") as caught:
        commands.collect(str(tmp_path / "absent"), True)
    assert caught.value.fix == "name the root of the artifacts: tgeokd gc ROOT"
    commands.collect(str(tmp_path), True)
    assert capsys.readouterr().out == "0 folders\n"


@pytest.mark.parametrize("out", ["p.csv", "p.CSV", "p.tsv.gz", "folder.parquet/p.json"])
def test_predictions_are_no_text_file(tmp_path: Path, out: str) -> None:
    with pytest.raises(ConfigError, match="predictions are a Parquet file") as caught:
        commands.predict(str(tmp_path), "students/a", ["new.csv"], out)
    assert caught.value.fix == "name it so: --out NAME.parquet"


@pytest.mark.parametrize("out", ["p.parquet", "p", "csv.pq"])
def test_other_names_are_taken(tmp_path: Path, out: str) -> None:
    with pytest.raises(ConfigError, match="no artifact"):
        commands.predict(str(tmp_path), "students/a", ["new.csv"], out)
