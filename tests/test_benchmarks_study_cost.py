"""The cost of a study is a sum over rows, epochs, students and rates; the counts are those of the study's own plan."""

from __future__ import annotations

from pathlib import Path

import pytest
import study_cost

STUDIES = Path(__file__).resolve().parent.parent / "datasets" / "studies"
RATES = study_cost.Rates(encode=1e5, teacher=1e4, student=2e4, score=5e4)


def test_a_study_on_the_short_grid_counted_by_hand() -> None:
    cost = study_cost.cost_of(STUDIES / "criteo.yaml")
    # Labels; seven constants, ada and wls at two temperatures; two ratios, fifteen candidates for each.
    assert cost.students == 1 + 2 * (7 + 1 + 1) + 2 * (3.34 + 15)
    n = 45_840_617
    assert cost.rows == pytest.approx(
        {"teacher": 0.4875 * n, "train": 0.2125 * n, "outer": 0.05 * n, "valid": 0.05 * n, "test": 0.2 * n}
    )
    learned, valid, test = 0.2625 * n, 0.05 * n, 0.2 * n
    seconds = 0.4875 * n / 1e4 + (learned + valid + test) / 5e4
    seconds += cost.students * (2 * learned / 2e4 + (2 * valid + test) / 5e4)
    assert cost.cell(RATES) == pytest.approx(seconds / 3600)
    assert cost.hours(RATES) == pytest.approx((5 * seconds + n / 1e5) / 3600)


def test_a_full_grid_has_its_students_at_every_point() -> None:
    cost = study_cost.cost_of(STUDIES / "gas.yaml")
    assert cost.students == pytest.approx(2 * (1 + 3 * 9 + 3 * (3.34 + 15)))
    assert cost.seeds == 5
    assert cost.job.teacher.model.members == 3


def test_files_and_periods_send_rows_to_their_splits() -> None:
    rows = study_cost.cost_of(STUDIES / "hai.yaml").rows
    assert (rows["valid"], rows["test"]) == (86_400, 129_600)
    assert rows["teacher"] == pytest.approx((1_004_402 + 82_800 + 62_400) / 2)
    avazu = study_cost.cost_of(STUDIES / "avazu.yaml", (8, 1, 1)).rows
    assert avazu["teacher"] == pytest.approx(40_428_967 * 0.8 / 2)
    assert avazu["valid"] == avazu["test"] == pytest.approx(40_428_967 / 10)
    with pytest.raises(SystemExit, match="the weight of each of its 3 periods"):
        study_cost.cost_of(STUDIES / "avazu.yaml")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("full", "not a study of one"),
        ("cifar10", "name all of encode"),
        ("hil_power", "how many rows"),
    ],
)
def test_what_cannot_be_computed_is_refused(name: str, what: str) -> None:
    with pytest.raises(SystemExit, match=what):
        study_cost.main([str(STUDIES / f"{name}.yaml")])


def test_images_are_counted_by_the_files_together_and_need_rates_of_their_own() -> None:
    cost = study_cost.cost_of(STUDIES / "cifar10.yaml")
    assert (cost.total, cost.rows["teacher"], cost.rows["test"]) == (60_000, 22_500, 10_000)
    # Labels, seven constants, two rules, a run that learns a ratio, three candidates.
    assert cost.students == 1 + 7 + 2 + 3.34 + 3
    learned, valid, test = 24_500, 3_000, 10_000
    seconds = 22_500 * 240 / 1e4 + (learned + valid + test) / 5e4
    seconds += cost.students * (240 * learned / 2e4 + (240 * valid + test) / 5e4)
    assert cost.cell(RATES) == pytest.approx(seconds / 3600)
    assert study_cost.cost_of(STUDIES / "imagenet32.yaml").total == 1_331_167


TABLES = [*(str(STUDIES / f"{name}.yaml") for name in ("criteo", "avazu", "nsl_kdd", "unsw_nb15", "hai", "gas"))]
CIFAR, IMAGENET = [str(STUDIES / f"cifar{n}.yaml") for n in (10, 100)], [str(STUDIES / "imagenet32.yaml")]


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ([*TABLES, "--periods", "8,1,1"], 6),
        ([*CIFAR, "--encode", "46900", "--teacher", "179", "--student", "394", "--score", "1438"], 2),
        ([*IMAGENET, "--encode", "46900", "--teacher", "123", "--student", "581", "--score", "2087"], 1),
    ],
)
def test_the_document_has_what_the_command_prints(
    arguments: list[str], rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    study_cost.main(arguments)
    document = (STUDIES.parents[1] / "docs" / "recipes.md").read_text()
    printed = capsys.readouterr().out.strip().splitlines()
    assert len(printed) == 2 + rows
    assert printed[0] in document
    assert all(line in document for line in printed[2:])
