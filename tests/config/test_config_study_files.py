"""Studies as files: those of the repository are whole, wrong ones are refused with everything that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgeokd_ray.config.study_file import read_study_file
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.pipeline.other_teachers import OTHER_TEACHERS
from tgeokd_ray.pipeline.rivals import RIVALS
from tgeokd_ray.pipeline.study import Study
from tgeokd_ray.pipeline.study_grid import read_grid

FOLDER = Path(__file__).resolve().parents[2] / "datasets"
STUDIES = sorted((FOLDER / "studies").glob("*.yaml"))
CARDS = {path.stem: str(path) for path in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_repository_are_whole(path: Path) -> None:
    told = read_study_file(path)
    assert told.name == path.stem
    assert told.datasets is not None
    assert told.rules is not None
    assert told.seeds == 5
    Study(path.stem, told.datasets, told.rules, told.seeds).check([*CARDS], CARDS)
    assert told.grid is not None
    read_grid(told.grid)


def test_every_card_has_a_study_of_its_whole_table_and_a_recipe() -> None:
    told = {path.stem: read_study_file(path) for path in STUDIES if path.stem != "full"}
    assert {*told} == {*CARDS}
    recipes = (FOLDER.parent / "docs" / "recipes.md").read_text()
    for name, study in told.items():
        assert study.datasets == (f"{name}.whole",)
        assert study.rules == ("labels", "constant", "ada", "wls", "tgeo")
        assert f"| `{name}`" in recipes or f", `{name}` (" in recipes


def test_the_full_study_has_every_rule() -> None:
    told = read_study_file(FOLDER / "studies" / "full.yaml")
    assert {*RIVALS, *OTHER_TEACHERS, "labels", "constant", "tgeo", "tgeo_one_step"} == {*(told.rules or ())}


def test_all_that_is_wrong_is_said(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("datasets: []\nseed: 5\nseeds: 0\ndata: {gas: file}\n")
    with pytest.raises(ConfigError) as caught:
        read_study_file(path)
    text = str(caught.value)
    for said in ("wrong.yaml", "datasets", "did you mean 'seeds'", "seeds", "data.gas"):
        assert said in text
