"""A job on a table that is damaged on purpose: what its results, its report and its artifacts say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_card import small_card

from tgeokd_ray.artifacts import Artifact, list_artifacts
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.own_card import check_card, own_card
from tgeokd_ray.tables.card_damage import damage_told
from tgeokd_ray.tables.cards import Card, load_card

SETTINGS = (
    "teacher.training.epochs=1",
    "teacher.model.hidden=[8]",
    "teacher.model.members=1",
    "student.training.epochs=1",
    "distill.constants=[0.5]",
    "distill.rule=tgeo_one_step",
)
DAMAGE = ("damage.flip=0.5", "damage.where={kind: above_median, column: n0}")
Told = tuple[dict[str, Any], Path]


def run(folder: Path, *settings: str) -> Told:
    results, place = run_job(
        *resolve({"card": str(folder / "small.yaml"), "root": str(folder / "root")}, settings=(*SETTINGS, *settings)),
        Place(local=True),
        Silent(),
    )
    return results, place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage")
    small_card(path, 3000, 1000)
    return path


@pytest.fixture(scope="module")
def damaged(folder: Path) -> Told:
    return run(folder, *DAMAGE)


def damaging_card(folder: Path) -> Card:
    return resolve({"card": str(folder / "small.yaml")}, settings=DAMAGE)[1]


def tables(folder: Path) -> list[Artifact]:
    return [one for one in list_artifacts(folder / "root") if one.kind == "tables"]


def test_results_and_report_warn_and_say_what_was_done(damaged: Told, folder: Path) -> None:
    results, place = damaged
    (table,) = tables(folder)
    known = table.manifest.schema["damage"]
    assert results["table"]["damage"] == known
    assert known["flip"] == 0.5
    warning = f"{table.label} is damaged on purpose: wrong labels: {known['rows']['flipped']['train']} of train"
    assert results["warnings"].count(warning) == 1
    assert warning in (place / "report.html").read_text()
    assert yaml.safe_load((place / "config.yaml").read_text())["damage"]["flip"] == 0.5


def test_a_job_that_finds_its_table_warns_again(damaged: Told, folder: Path) -> None:
    results, _ = run(folder, *DAMAGE)
    assert [stage["reused"] for stage in results["stages"] if stage["name"] == "encode"] == [True]
    assert results["warnings"] == damaged[0]["warnings"]


def test_without_the_option_another_table_is_made_and_nothing_is_said(damaged: Told, folder: Path) -> None:
    results, _ = run(folder)
    assert "damage" not in results["table"]
    assert not any("damaged" in warning for warning in results["warnings"])
    assert results["table"]["digest"] != damaged[0]["table"]["digest"]
    assert results["models"][0]["digest"] != damaged[0]["models"][0]["digest"], "of another table"


def test_a_hidden_class_is_named() -> None:
    assert damage_told({}) is None
    schema = {"damage": {"hidden": ["1"], "rows": {"flipped": {}, "hidden": {"teacher": 7}}}}
    assert damage_told(schema) == "wrong labels: none; the teacher never sees 1 (7 rows left out)"


def test_the_card_of_a_damaged_table_is_another(damaged: Told, folder: Path) -> None:
    plain = load_card(folder / "small.yaml")
    for table in tables(folder):
        _, own = own_card(table)
        check_card(own, "own", table)
        other = plain.model_copy(update={"damage": None if own.damage else damaging_card(folder).damage})
        with pytest.raises(ConfigError, match="damage differ"):
            check_card(other, "other", table)
