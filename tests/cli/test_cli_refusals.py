"""What must be refused, through the command line: exit code, one block with a way out, nothing made or executed."""

from pathlib import Path

import pytest
from faults_children import end, start
from faults_refusals import CASES, Case, not_a_block, prepare, refused
from faults_work import warm

pytestmark = [
    pytest.mark.forks,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with tables, teachers and logits, and forgeries of them."""
    made = tmp_path_factory.mktemp("refusals")
    warm()
    assert end(start(lambda: prepare(made)), 60) == 0
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row} {case.what}".strip())
def test_refused(folder: Path, case: Case):
    assert refused(case, folder) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data: a bad row\n",
        "config: another code\n  next: mend it\n",
        "data: a bad row\nnot indented\n  next: mend it\n",
        "Traceback (most recent call last):\ndata: a bad row\n  next: mend it\n",
    ],
)
def test_what_is_no_block_is_found(text: str):
    assert not_a_block(text, "data")
    assert not not_a_block("encode  100 rows\ndata: a bad row\n  another\n  next: mend it\n", "data")
