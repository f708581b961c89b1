"""What the options of a study come to, and the command that its files name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_card import small_card

from tgeokd_ray.cli import study


@pytest.fixture
def told(monkeypatch) -> list[dict[str, Any]]:  # type: ignore[no-untyped-def]
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(study, "_run", lambda told, *rest: found.append(told))
    return found


def run(*argv: str) -> None:
    with pytest.raises(SystemExit) as ended:
        study.study_main({}, argv)
    assert ended.value.code == 0


def test_a_full_study_has_the_full_grid_and_a_quick_one_a_point(told: list[dict[str, Any]]) -> None:
    run()
    run("--quick")
    run("--quick", "--seeds", "2", "--grid", "short")
    assert [(one["seeds"], one["grid"]) for one in told] == [(3, "full"), (1, "one"), (2, "short")]
    assert told[0]["settings"] == []
    assert told[1]["settings"] == list(study.QUICK)


def test_the_command_names_what_decides_the_rows_and_no_place(told: list[dict[str, Any]], tmp_path: Path) -> None:
    data = f"gas={tmp_path}/a b.dat,{tmp_path}/c.dat"
    run(
        "--datasets",
        "gas.both",
        "--rules",
        "ada",
        "--data",
        data,
        "--root",
        str(tmp_path),
        "--set",
        "seed=[1, 2]",
        "--local",
    )
    assert told[0]["command"] == (
        "python jobs/benchmark.py --datasets gas.both --rules ada --seeds 3 --grid full --data 'gas=a b.dat,c.dat' "
        "--set 'seed=[1, 2]' --local"
    )
    run("--quick")
    assert told[1]["command"].endswith("--seeds 1 --grid one --quick"), "its settings go with --quick"


def test_a_grid_that_there_is_not_ends_before_anything_is_made(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as ended:
        study.study_main({}, ["--grid", "half", "--root", str(tmp_path / "root")])
    assert ended.value.code
    assert "--grid: 'half' is no grid" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "root").exists()


def test_a_file_names_what_the_options_leave_open(told: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: mine\ndatasets: [gas.whole]\nrules: [ada]\nseeds: 7\ngrid: short\nset: [seed=1]\n"
        "data: {gas: [a.arff], criteo: [c.txt]}\n"
    )
    run("--study", str(path))
    run("--study", str(path), "--seeds", "2", "--rules", "wls,tgeo", "--data", "gas=b.arff", "--set", "seed=2")
    run("--study", str(path), "--quick")
    first, second, quick = told
    assert (first["name"], first["datasets"], first["rules"]) == ("mine", ("gas.whole",), ("ada",))
    assert (first["seeds"], first["grid"], first["settings"]) == (7, "short", ["seed=1"])
    assert first["data"] == {"gas": ("a.arff",), "criteo": ("c.txt",)}
    assert (second["seeds"], second["rules"], second["grid"]) == (2, ("wls", "tgeo"), "short")
    assert second["data"] == {"gas": ("b.arff",), "criteo": ("c.txt",)}
    assert second["settings"] == ["seed=1", "seed=2"], "the last one wins"
    assert (quick["seeds"], quick["grid"]) == (1, "one")


def test_a_study_file_of_a_whole_table_runs_and_is_told(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    cards = {"clicks": str(small_card(tmp_path, 4000, 4000))}
    path = tmp_path / "study.yaml"
    settings = ("teacher.training.epochs=1", "teacher.model.members=1", "student.training.epochs=1")
    path.write_text(f"name: tiny\ndatasets: [clicks.whole]\nrules: [ada]\nseeds: 1\ngrid: one\nset: {list(settings)}\n")
    with pytest.raises(SystemExit) as ended:
        study.study_main(cards, ["--study", str(path), "--local", "--root", str(tmp_path / "root")])
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "clicks.whole" in out
    assert "refused: no ratio is known to be right" in out
    made = json.loads((tmp_path / "root" / "studies" / "tiny" / "study.json").read_text())
    assert made["extra"]["command"].startswith("python jobs/benchmark.py --datasets clicks.whole --rules ada --seeds 1")
    assert {row["rule"] for row in made["rows"]} == {"reference", "labels", "constant", "ada"}
    assert (tmp_path / "root" / "studies" / "tiny" / "report.html").exists()
