"""A ladder from its command line to its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_card import small_card

from tgeokd_ray.cli.ladder import ladder_main

CHEAP = ["--set", "teacher.model.members=1", "--set", "distill.constants=[0.5]", "--quick", "--local"]


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        ladder_main(argv)
    return int(ended.value.code or 0)


def test_the_whole_command(tmp_path: Path, capfd) -> None:  # type: ignore[no-untyped-def]
    card, root = small_card(tmp_path, 4000, 4000), tmp_path / "root"
    command = ["--card", str(card), "--root", str(root), "--sizes", "1/4,3000", "--seeds", "1", *CHEAP]
    assert run(*command) == 0
    shown = capfd.readouterr().out
    assert "AUC on test by size of the student" in shown
    folder = root / "studies" / "synthetic_ctr-sizes"
    told = json.loads((folder / "ladder.json").read_text())
    assert [rung["size"] for rung in told["rungs"]] == ["1/4", "3000"]
    assert told["extra"]["command"] == (
        "python jobs/size_ladder.py --sizes 1/4,3000 --seeds 1 --card small.yaml --set teacher.model.members=1 "
        "--set 'distill.constants=[0.5]' --quick"
    )
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert run(*command, "--json") == 0
    again = json.loads(capfd.readouterr().out)
    assert again["rungs"] == told["rungs"]


def test_what_is_wrong_ends_before_anything_is_made(tmp_path: Path, capfd) -> None:  # type: ignore[no-untyped-def]
    root = tmp_path / "root"
    for wrong, said in ((("--sizes", "1/4,big"), "'big' is no size"), (("--card", "nowhere"), "nowhere")):
        assert run(*wrong, "--root", str(root), "--local") == 2
        assert said in capfd.readouterr().err
    assert not root.exists()
