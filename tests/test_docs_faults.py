"""The tables of docs/reliability.md: a line for each row of the fault list, and every test that they name is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROWS = {"K": 13, "S": 10, "P": 8, "N": 10, "D": 15, "X": 10}
LATER = {"with export", "with serving"}
LINE = re.compile(r"\| ([A-Z]\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|")


def lines() -> list[tuple[str, str]]:
    """(row, tests) of every line of the tables that is about a row."""
    text = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    return [(found[1], found[4]) for line in text.splitlines() if (found := LINE.fullmatch(line))]


@cache
def known() -> tuple[frozenset[str], frozenset[str]]:
    """Names of all test functions, and all texts in the tests' sources, which name their cases."""
    nodes = [
        node
        for path in (REPOSITORY / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(functions), frozenset(texts)


def numbered(name: str, row: str) -> bool:
    return row.lower() in re.split(r"[_ ]", name)


def wrong(row: str, cell: str) -> list[str]:
    """What is wrong with the tests that a line names."""
    functions, texts = known()
    if cell in LATER:
        return []
    found = re.findall(r"`(test_\w+)(?:\[([^\]`]+)\])?`", cell)
    problems = [] if found else [f"{row}: no test"]
    for name, cases in found:
        ids = cases.split(", ") if cases else []
        problems += [f"{row}: there is no {name}"] if name not in functions else []
        problems += [f"{row}: {name} has no case {case!r}" for case in ids if case not in texts]
        problems += [f"{row}: the number is not in {one!r}" for one in ids or [name] if not numbered(one, row)]
    return problems


def test_every_row_has_one_line() -> None:
    rows = [row for row, _ in lines()]
    assert [row for row in rows if row[0] in ROWS] == [
        f"{s}{n}" for s, last in ROWS.items() for n in range(1, last + 1)
    ]


@pytest.mark.parametrize(("row", "cell"), lines(), ids=[row for row, _ in lines()])
def test_the_tests_of_a_row_exist_and_carry_its_number(row: str, cell: str) -> None:
    assert wrong(row, cell) == []


def test_the_check_finds() -> None:
    assert wrong("K1", "") == ["K1: no test"]
    assert wrong("K1", "`test_k1_" + "nothing`") == ["K1: there is no test_k1_" + "nothing"]
    assert wrong("K1", "`test_every_row_has_one_line`") == ["K1: the number is not in 'test_every_row_has_one_line'"]
    assert wrong("D6", "`test_a_bad_file_is_told[d6 " + "nothing]`")[0].endswith("no case 'd6 " + "nothing'")
    assert wrong("X5", "with export") == []
