"""The chain where the teacher sees more than the student: what reaches a student's artifact, and raw rows to score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tgeokd_ray.artifacts import open_artifact, read_json
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.predict import predict
from tgeokd_ray.training.assess import assess

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LOCAL = Place(local=True)
SMALL = [
    "teacher.training.epochs=2",
    "teacher.model={hidden: [16], members: 2}",
    "student.training.epochs=2",
    "distill.constants=[0.5]",
]
NAMES = ["number", "speed", "zq_seconds", "page", "zq_next", "clicked"]
HIDDEN = ["zq_seconds", "zq_next"]
CARD: dict[str, Any] = {
    "name": "pages",
    "format": {"kind": "csv"},
    "row_id": {"kind": "column", "column": "number"},
    "label": {"column": "clicked", "classes": ["0", "1"]},
    "columns": {
        "numeric": ["zq_seconds", "speed"],
        "categorical": [{"name": "zq_next", "shared": "pages"}, {"name": "page", "shared": "pages"}],
        "teacher_only": HIDDEN,
    },
    "splits": {
        "kind": "file",
        "salt": "s",
        "files": {"old*": {"teacher": 0.5, "train": 0.3, "outer": 0.1, "valid": 0.1}, "new*": "test"},
    },
}
Whole = tuple[dict[str, Any], Path]


def cells(k: int) -> dict[str, str]:
    draws = np.random.default_rng(k)
    clicked = int(draws.integers(2))
    seconds = f"{draws.normal(3 * clicked):.3f}" if k % 9 else ""
    values = [k, f"{draws.normal(clicked):.3f}", seconds, f"p{k % 7}", f"p{(k + clicked) % 7}", clicked]
    return dict(zip(NAMES, map(str, values), strict=True))


def write(path: Path, rows: range, names: list[str], header: bool = True) -> str:
    lines = [",".join(cells(k)[name] for name in names) for k in rows]
    path.write_text("\n".join([*([",".join(names)] if header else []), *lines]) + "\n")
    return str(path)


def run(folder: Path, card: dict[str, Any], header: bool = True) -> Whole:
    """(results, root) of the chain on 1,000 old and 200 new rows."""
    (folder / "pages.yaml").write_text(yaml.safe_dump(card))
    files = [write(folder / f"{n}.csv", rows, NAMES, header) for n, rows in (("old", OLD), ("new", NEW))]
    options = {"card": str(folder / "pages.yaml"), "root": str(folder / "root"), "data": files}
    return run_job(*resolve(options, settings=SMALL), LOCAL, Silent())[0], folder / "root"


OLD, NEW = range(1000), range(1000, 1200)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return run(tmp_path_factory.mktemp("pages"), CARD)


def artifact_of(whole: Whole, name: str) -> Path:
    results, root = whole
    return root / next(model["artifact"] for model in results["models"] if model["name"] == name)


def scored(model: Path, data: str, out: Path) -> dict[int, list[float]]:
    """Logits by row id."""
    predict(model, [data], out, Silent())
    return {row["row_id"]: row["logits"] for row in pq.read_table(out).to_pylist()}


def test_no_byte_of_a_student_names_a_hidden_column(whole: Whole) -> None:
    results, _ = whole
    for model in results["models"]:
        files = [path for path in artifact_of(whole, model["name"]).rglob("*") if path.is_file()]
        named = any(b"zq_" in path.read_bytes() for path in files)
        assert named == (model["role"] == "teacher")
        assert ("teacher_encoder.json" in {path.name for path in files}) == (model["role"] == "teacher")


def test_models_have_the_inputs_that_they_see(whole: Whole) -> None:
    results, root = whole
    opened = [EncodedTable.open(root / results["table"]["artifact"], model=kind) for kind in ("teachers", "students")]
    for name, table in zip(("teacher", "tgeo"), opened, strict=True):
        facts = read_json(artifact_of(whole, name) / "model.json")
        expected = (table.num_numeric, table.num_categorical, table.num_ids)
        assert (facts["num_numeric"], facts["num_categorical"], facts["num_ids"]) == expected
    assert (opened[0].num_numeric, opened[1].num_numeric) == (4, 2)
    assert opened[0].num_ids == opened[1].num_ids, "the two columns of pages share one space"


def test_a_student_scores_files_with_and_without_the_columns(whole: Whole, tmp_path: Path) -> None:
    student = artifact_of(whole, "tgeo")
    bare = scored(student, write(tmp_path / "a.csv", NEW, ["page", "number", "speed"]), tmp_path / "a.parquet")
    full = scored(student, write(tmp_path / "b.csv", NEW, NAMES), tmp_path / "b.parquet")
    assert bare == full
    assert sorted(bare) == list(NEW)
    results, root = whole
    table = EncodedTable.open(root / results["table"]["artifact"])
    logits = np.array([bare[k] for k in NEW])
    truth = np.array([int(cells(k)["clicked"]) for k in NEW])
    nll = np.mean(np.logaddexp(logits[:, 0], logits[:, 1]) - logits[np.arange(len(truth)), truth])
    reported = next(model["nll"] for model in results["models"] if model["name"] == "tgeo")
    for found in (reported, assess(student, table, "test", Silent())["nll"]):
        assert found == pytest.approx(nll, abs=1e-6)


def test_a_teacher_needs_the_columns_and_gives_the_logits_that_students_learned(whole: Whole, tmp_path: Path) -> None:
    results, root = whole
    teacher = artifact_of(whole, "teacher")
    with pytest.raises(DataError, match="the file lacks this column") as caught:
        predict(teacher, [write(tmp_path / "a.csv", NEW, ["page", "number", "speed"])], tmp_path / "a", Silent())
    assert [problem.column for problem in caught.value.problems] == HIDDEN
    found = scored(teacher, write(tmp_path / "b.csv", NEW, NAMES), tmp_path / "b.parquet")
    logits = open_artifact(root / "logits" / "pages" / "v000001")
    for entry in (entry for entry in logits.manifest.files if "split" in entry.extra):
        if entry.extra["split"] == "test":
            for row in pq.read_table(logits.file(entry.path)).to_pylist():
                assert found[row["row_id"]] == pytest.approx(row["logits"], abs=1e-5)
    table = EncodedTable.open(root / results["table"]["artifact"])
    assert assess(teacher, table, "test", Silent())["nll"] == pytest.approx(results["models"][0]["nll"], abs=1e-6)


def test_files_without_a_header(tmp_path: Path) -> None:
    form = {"kind": "csv", "header": False, "names": NAMES}
    whole = run(tmp_path, {**CARD, "format": form}, header=False)
    assert not [path for path in artifact_of(whole, "tgeo").rglob("*.json") if b"zq_" in path.read_bytes()]
    full = write(tmp_path / "full.csv", NEW, NAMES, header=False)
    bare = write(tmp_path / "bare.csv", NEW, ["number", "speed", "page"], header=False)
    found = [scored(artifact_of(whole, "tgeo"), data, tmp_path / "out.parquet") for data in (full, bare)]
    assert found[0] == found[1]
    assert len(found[0]) == len(NEW)


@pytest.mark.slow
def test_the_student_keeps_half_of_the_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import privileged

    card = privileged.load_card(privileged.CARD)
    aucs, known = privileged.compare(tmp_path, 0, card, privileged.SETTINGS)
    assert aucs["labels.plain"] == aucs["labels.privileged"] == aucs["labels.truth"], "the same rows and columns"
    assert aucs["labels.plain"] + 0.05 < aucs["truth"] < known["bayes_auc"], "there is something to gain"
    assert aucs["teacher.plain"] + 0.05 < aucs["teacher.privileged"] < known["teacher_bayes_auc"]
    assert privileged.share([aucs], "privileged") > 0.5
    assert aucs["privileged"] > aucs["plain"]
