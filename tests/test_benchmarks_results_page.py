"""The tables of studies in a document: from the Parquet file alone, the same every time, between markers that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import results_page

from tgeokd_ray.pipeline import ladder
from tgeokd_ray.pipeline.study import _write_parquet

PAGE = f"# Results\n\nby hand\n\n{results_page.BEGIN}\nolden\n{results_page.END}\n\n## After\n\n|a|\n"


def row(rule: str, **more: Any) -> dict[str, Any]:
    known = {"dataset": "synth.soft", "rule": rule, "seeds": 3, "nll": 0.51234, "auc": 0.75, "accuracy": None}
    known |= {"nll_vs_constant": -0.0123, "low": -0.02, "high": -0.0046, "low_all": -0.04, "high_all": 0.0154}
    return {
        **known,
        "p": 0.001,
        "p_holm": 0.0123,
        "survives": True,
        "chosen": "tau 2",
        "refused": None,
        **more,
    }


NOTHING = dict.fromkeys(
    ("nll", "auc", "nll_vs_constant", "low", "high", "low_all", "high_all", "p", "p_holm", "survives")
)


def study(name: str = "s") -> dict[str, Any]:
    rows = [row("tgeo"), row("ada", survives=False, nll_vs_constant=0.02), row("dkd", **NOTHING, refused="two|classes")]
    extra = {"command": "python jobs/benchmark.py --seeds 3", "versions": {"torch": "2.1", "numpy": "2.0"}}
    extra |= {"cell_seconds": 1234.5}
    return {"format": 1, "name": name, "rows": rows, "notes": ["one <b> note"], "warnings": ["a\nb"], "extra": extra}


def written(folder: Path, name: str = "s") -> tuple[Path, Path]:
    page, parquet = folder / "page.md", folder / f"{name}.parquet"
    page.write_text(PAGE, encoding="utf-8")
    _write_parquet(parquet, study(name))
    return page, parquet


def test_the_table_stands_between_the_markers_and_the_rest_stays(tmp_path: Path) -> None:
    page, parquet = written(tmp_path)
    assert results_page.main([str(parquet), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Results\n\nby hand\n\n{results_page.BEGIN}\n")
    assert text.endswith(f"\n{results_page.END}\n\n## After\n\n|a|\n")
    assert "olden" not in text
    for line in (
        "### Study `s`",
        "python jobs/benchmark.py --seeds 3",
        "1,234 s for its cells, one after another; numpy 2.0, torch 2.1.",
        "| `tgeo` | 3 | 0.5123 | 0.7500 |  | -0.0123\\* [-0.0200, -0.0046] | [-0.0400, +0.0154] | 0.012 | tau 2 |",
        "| `dkd` | 3 |  |  |  |  |  |  | refused: two\\|classes |",
        "- one &lt;b> note",
        "- warning: a b",
    ):
        assert line in text.split("\n"), line
    assert "+0.0200 [" in text, "no star"
    assert {path.name for path in tmp_path.iterdir()} == {"page.md", "s.parquet", "figures"}
    assert "![synth.soft-differences](figures/s-synth.soft-differences.svg)" in text
    (drawn,) = (tmp_path / "figures").iterdir()
    assert drawn.name == "s-synth.soft-differences.svg"
    root = ElementTree.fromstring(drawn.read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "tgeo" in drawn.read_text(encoding="utf-8")


def test_it_is_the_same_every_time(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    page, parquet = written(tmp_path)
    other = written(tmp_path, "other")[1]
    command = [str(parquet), str(other), "--page", str(page)]
    assert results_page.main([*command, "--check"]) == 1
    assert page.read_text(encoding="utf-8") == PAGE, "--check writes nothing"
    assert results_page.main(command) == 0
    first = page.read_bytes()
    assert results_page.main(command) == 0
    assert page.read_bytes() == first
    assert results_page.main([*command, "--check"]) == 0
    assert first.index(b"Study `s`") < first.index(b"Study `other`")
    assert "up to date" in capsys.readouterr().out
    plot = tmp_path / "figures" / "s-synth.soft-differences.svg"
    drawn = plot.read_bytes()
    plot.write_text("<svg/>")
    assert results_page.main([*command, "--check"]) == 1
    assert results_page.main(command) == 0
    assert plot.read_bytes() == drawn
    assert results_page.main([str(other), "--page", str(page)]) == 0
    assert not plot.exists(), "no part shows it any more"


def test_a_ladder_has_its_table_and_its_plots(tmp_path: Path) -> None:
    page = written(tmp_path)[0]
    test = {"auc": 0.76, "nll": 0.45, "accuracy": 0.79, "macro_f1": 0.5}
    rung = {"size": "1/4", "most": 250, "parameters": 240, "latency_ms": 0.25, "constant": "0.75", "labels": test}
    rung |= {"model": {"kind": "mlp", "hidden": [16], "embedding": 4}, "distilled": {**test, "auc": 0.77}}
    rung |= {"kept": {"auc": 0.99}, "gain": 0.01, "low": 0.005, "high": 0.015, "valid": [0.7, 0.71]}
    none = dict.fromkeys(rung) | {"size": "10", "most": 10}
    told = {"format": 1, "name": "steps", "card": "criteo", "metric": "auc", "seeds": 2, "knee": "1/4"}
    told |= {"teacher": {"parameters": 1000, "latency_ms": 1.5, "test": {**test, "auc": 0.78}}, "warnings": ["no 10"]}
    told |= {"extra": {"command": "python jobs/size_ladder.py", "versions": {"torch": "2.1"}, "cell_seconds": 12.0}}
    ladder._write_parquet(tmp_path / "ladder.parquet", told | {"rungs": [rung, none]})
    assert results_page.main([str(tmp_path / "ladder.parquet"), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    for line in (
        "### Sizes `steps`",
        "python jobs/size_ladder.py",
        "| teacher |  | 1,000 | 1.5000 | 0.7800 |  |  |  |",
        "| 1/4 (knee) | mlp 16, embedding 4 | 240 | 0.2500 | 0.7600 | 0.7700 (0.75) | 99.0% "
        "| +0.0100 [+0.0050, +0.0150] |",
        "- warning: no 10",
    ):
        assert line in text.split("\n"), line
    assert {one.name for one in (tmp_path / "figures").iterdir()} == {"steps-CPU-time.svg", "steps-parameters.svg"}
    assert "figures/steps-CPU-time.svg" in text


@pytest.mark.parametrize(
    "text",
    ["nothing", results_page.BEGIN, f"{results_page.END} {results_page.BEGIN}", PAGE + PAGE, PAGE + results_page.END],
)
def test_a_page_without_its_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    page, parquet = written(tmp_path)
    page.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="once each and in this order"):
        results_page.main([str(parquet), "--page", str(page)])
    assert page.read_text(encoding="utf-8") == text


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    page, parquet = written(tmp_path)
    pq.write_table(pa.table({"dataset": ["d"]}), parquet)
    with pytest.raises(SystemExit, match="no study of this version"):
        results_page.main([str(parquet), "--page", str(page)])


def test_the_document_has_the_markers() -> None:
    text = results_page.PAGE.read_text(encoding="utf-8")
    assert text.count(results_page.BEGIN) == text.count(results_page.END) == 1
    assert text.index(results_page.BEGIN) < text.index(results_page.END)
