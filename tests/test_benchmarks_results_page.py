"""The tables of studies in a document: from the Parquet file alone, the same every time, between markers that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import results_page

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
    assert {path.name for path in tmp_path.iterdir()} == {"page.md", "s.parquet"}


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
