"""Teachers from elsewhere: the artifact, what is refused, rows that nobody scored, calibration, jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from import_fixtures import LOCAL, SMALL, SPLITS, Said, import_file, job_of, rows, told_of, write, write_card
from scipy.special import log_softmax, softmax

from tgeokd_ray.artifacts import Artifact, list_artifacts, verify
from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.folds import FOLD_NOBODY
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.pipeline.job import run_job, run_stage
from tgeokd_ray.tables import teacher_file
from tgeokd_ray.tables.teacher_values import CLIP

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_card(tmp_path_factory.mktemp("card") / "small.yaml")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def table(card: Path, root: Path) -> Artifact:
    (made,) = run_stage("encode", *job_of(card, root, None), {}, LOCAL, Silent())
    return made


@pytest.fixture(scope="module")
def file(table: Artifact, root: Path) -> Path:
    return write(told_of(table), root / "told.parquet")


def stored(logits: Artifact, *splits: str) -> dict[int, list[float]]:
    found = rows(logits, *splits, columns=("row_id", "logits"))
    return dict(zip(found["row_id"].tolist(), found["logits"].tolist(), strict=True))


def without(table: pa.Table, ids: np.ndarray) -> pa.Table:
    return table.filter(pa.array(~np.isin(table["row_id"].to_numpy(), ids)))


def test_the_artifact_is_like_those_of_our_own_teachers(card: Path, root: Path, table: Artifact, file: Path) -> None:
    logits, warnings = import_file(card, root, table, file)
    assert (warnings, verify(logits.path)) == ([], ([], []))
    assert {role: parent.digest for role, parent in logits.manifest.parents.items()} == {"table": table.digest}
    told = told_of(table)
    assert stored(logits) == dict(zip(told["row_id"].to_pylist(), told["logits"].to_pylist(), strict=True))
    opened = LogitsTable.open(logits.path, EncodedTable.open(table.path))
    assert all(opened.check_aligned(EncodedTable.open(table.path), split) for split in SPLITS)
    assert opened.uncovered == {}
    metrics = json.loads(logits.file("metrics.json").read_text())
    assert metrics["parameters"] is None
    assert metrics["test"]["auc"] > 0.8
    train = rows(table, "train")
    means = [stored(logits, "train")[int(i)] for i in train["row_id"]]
    expected = [softmax(np.array(means), axis=1)[train["label"] == c].mean(axis=0) for c in range(2)]
    np.testing.assert_allclose(opened.class_means, expected, rtol=1e-6)
    again, _ = import_file(card, root, table, file)
    assert again.label == logits.label, "re-used by digest"


def test_p5_the_order_of_the_file_does_not_matter(card: Path, root: Path, table: Artifact, tmp_path: Path) -> None:
    told = told_of(table)
    sorted_file = write(told.sort_by("row_id"), tmp_path / "told.parquet")
    one, _ = import_file(card, root, table, write(told, root / "told.parquet"))
    other, _ = import_file(card, root, table, sorted_file)
    assert one.digest != other.digest, "another file"
    assert [e.sha256 for e in one.manifest.files] == [e.sha256 for e in other.manifest.files]


def test_p6_missing_rows_are_refused_with_counts_and_first_ids(card: Path, table: Artifact, tmp_path: Path) -> None:
    train, valid = (np.sort(rows(table, split)["row_id"])[::100] for split in ("train", "valid"))
    file = write(without(told_of(table), np.append(train, valid)), tmp_path / "told.parquet")
    with pytest.raises(DataError) as caught:
        import_file(card, tmp_path, table, file)
    text, total = str(caught.value), len(rows(table, "train")["row_id"])
    assert f"nothing for {len(train)} of {total} rows of split 'train'" in text
    assert any(str(one) in text for one in train.tolist())
    assert f"nothing for {len(valid)} of" in text
    assert "--missing labels" in text
    assert not (tmp_path / "logits").exists()


def test_p6_a_flag_lets_them_learn_from_their_labels_and_records_it(
    card: Path, table: Artifact, tmp_path: Path
) -> None:
    lacking = np.sort(rows(table, "train")["row_id"])[::50]
    test = np.sort(rows(table, "test")["row_id"])[::50]
    file = write(without(told_of(table), np.append(lacking, test)), tmp_path / "told.parquet")
    logits, warnings = import_file(card, tmp_path, table, file, "teacher.imported.missing=labels")
    assert logits.manifest.schema["uncovered"] == {"train": len(lacking), "test": len(test)}
    assert f"{len(lacking)} rows of the split 'train' have no logits" in "\n".join(warnings)
    fold = rows(logits, "train", columns=("row_id", "fold"))
    assert set(fold["row_id"][fold["fold"] == FOLD_NOBODY]) == set(lacking.tolist())
    assert sum(logits.manifest.schema["class_counts"]) == len(fold["row_id"]) - len(lacking)
    metrics = json.loads(logits.file("metrics.json").read_text())
    assert metrics["test"]["rows"] == len(rows(table, "test")["row_id"]) - len(test)
    results, _ = run_job(*job_of(card, tmp_path, file, "teacher.imported.missing=labels"), LOCAL, Silent())
    assert any(f"{len(lacking)} rows of the split 'train' have no logits" in line for line in results["warnings"])
    constant = next(model for model in results["models"] if model["name"] == "constant-1")
    share = 1 - len(lacking) / (len(fold["row_id"]) + len(rows(table, "outer")["row_id"]))  # all that it trains on
    assert constant["ratio"]["mean"] == pytest.approx(share, rel=1e-9), "the labels have the rest"
    effect = results["extra"]["ratio"]["effect"]
    (cells,) = ({n: c["rows"] for n, c in cells.items() if n != "median_distance"} for cells in effect["geometry"])
    assert sum(cells.values()) == effect["rows"] - len(lacking), (
        "a teacher is neither right nor near where it is silent"
    )


def test_p6_a_split_of_which_nothing_is_told_is_refused_in_any_case(
    card: Path, table: Artifact, tmp_path: Path
) -> None:
    file = write(told_of(table, "train", "valid"), tmp_path / "told.parquet")
    with pytest.raises(DataError, match="of split 'outer'") as caught:
        import_file(card, tmp_path, table, file, "teacher.imported.missing=labels")
    assert "--missing" not in str(caught.value)
    made, _ = import_file(card, tmp_path, table, file, "logits.splits=[train, valid]")
    assert {entry.extra.get("split") for entry in made.manifest.files} == {"train", "valid", None}


def test_ids_of_no_row_are_counted_and_refused_where_none_fits(card: Path, table: Artifact, tmp_path: Path) -> None:
    told = told_of(table)
    teacher = told_of(table, "teacher")
    strange = teacher.slice(0, 5).set_column(0, "row_id", pa.array([10**12 + k for k in range(5)]))
    file = write(pa.concat_tables([told, teacher, strange]), tmp_path / "told.parquet")
    made, warnings = import_file(card, tmp_path, table, file)
    assert made.manifest.schema["imported"]["unknown_ids"] == 5, "rows of other splits are rows of the table"
    assert "5 rows of the file" in warnings[0]
    with pytest.raises(DataError, match="none of its 5 row ids is one of tables/synthetic_ctr"):
        import_file(card, tmp_path, table, write(strange, tmp_path / "strange.parquet"))


def test_calibration_divides_by_the_temperature_that_fits_valid(card: Path, table: Artifact, tmp_path: Path) -> None:
    file = write(told_of(table, sure=6.0), tmp_path / "told.parquet")
    plain, _ = import_file(card, tmp_path, table, file)
    made, _ = import_file(card, tmp_path, table, file, "teacher.imported.calibrate=true")
    found = made.manifest.schema["calibration"]
    assert found["temperature"] > 1.5
    valid = rows(table, "valid")
    for artifact, key in ((plain, "nll_before"), (made, "nll_after")):
        logs = log_softmax([stored(artifact)[int(i)] for i in valid["row_id"]], axis=1)
        assert found[key] == pytest.approx(-logs[np.arange(len(logs)), valid["label"]].mean(), rel=1e-6)
    before, after = stored(plain), stored(made)
    ratio = np.array([before[i] for i in before]) / np.array([after[i] for i in before])
    np.testing.assert_allclose(ratio, found["temperature"], rtol=1e-5)
    with pytest.raises(ConfigError, match="leaves them out"):
        import_file(card, tmp_path, table, file, "teacher.imported.calibrate=true", "logits.splits=[train]")


def test_p8_what_was_clipped_and_how_it_is_stored_is_recorded(card: Path, table: Artifact, tmp_path: Path) -> None:
    ids = told_of(table)["row_id"]
    score = np.linspace(0, 1, len(ids))
    file = write(pa.table({"row_id": ids, "score": score}), tmp_path / "told.parquet")
    made, _ = import_file(card, tmp_path, table, file, "logits.dtype=float16")
    assert made.manifest.schema["storage"]["dtype"] == "float16"
    imported = made.manifest.schema["imported"]
    assert (imported["kind"], imported["clip"], imported["clipped"]) == ("probabilities", CLIP, 2)


def test_n2_logits_too_large_for_half_precision(card: Path, table: Artifact, tmp_path: Path) -> None:
    told = told_of(table, sure=1e6)
    file = write(told, tmp_path / "told.parquet")
    with pytest.raises(DataError, match="too large for float16"):
        import_file(card, tmp_path, table, file, "logits.dtype=float16")
    assert not [a for a in list_artifacts(tmp_path) if a.kind == "logits"]


def test_a_job_takes_the_file_in_place_of_a_teacher(card: Path, file: Path, tmp_path: Path) -> None:
    said = Said()
    results, folder = run_job(*job_of(card, tmp_path, file), LOCAL, said)
    assert [stage["name"] for stage in results["stages"]] == ["encode", "import", "distill"]
    teacher = results["models"][0]
    assert (teacher["name"], teacher["parameters"], teacher["rule"]) == ("teacher", None, None)
    assert teacher["artifact"].startswith("logits/synthetic_ctr/")
    assert teacher["auc"] > 0.8
    assert said.warnings == results["warnings"] == []
    assert "told.parquet" in (folder / "config.yaml").read_text()
    kinds = {artifact.kind for artifact in list_artifacts(tmp_path)}
    assert kinds == {"tables", "logits", "evidence", "ratios", "students"}
    script = (
        "import sys; from tgeokd_ray.cli.jobs import job_main\n"
        "try: job_main('t', 'synthetic_ctr')\n"
        "except SystemExit as end: code = end.code\n"
        "print('LOADED', sorted({'ray', 'torch', 'polars', 'pyarrow'} & set(sys.modules)), code)"
    )
    words = ["--card", card, "--root", tmp_path, "--teacher-logits", file, *(w for s in SMALL for w in ("--set", s))]
    command = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED [] 0"
    assert "reused logits/synthetic_ctr/v000001" in done.stderr
    line = next(line for line in done.stdout.splitlines() if line.strip().startswith("teacher "))
    assert line.split()[-2:] == ["-", "-"], "parameters and pace are not known"


def test_a_job_whose_file_says_nothing_of_test_has_no_figures_of_its_teacher(
    card: Path, table: Artifact, tmp_path: Path
) -> None:
    file = write(told_of(table, "train", "outer"), tmp_path / "told.parquet")
    results, _ = run_job(*job_of(card, tmp_path, file, "logits.splits=[train,outer]"), LOCAL, Silent())
    assert [model["name"] for model in results["models"]] == ["labels", "constant-1", "tgeo"]
    assert any("no figures" in line for line in results["warnings"])


def test_k3_an_interrupted_import_ends_with_the_same_digest(
    card: Path, root: Path, table: Artifact, file: Path, tmp_path: Path
) -> None:
    class Interrupts(Silent):
        def advanced(self, stage: str, amount: int, note: str = "") -> None:
            raise KeyboardInterrupt

    job, own = job_of(card, tmp_path, file)
    with pytest.raises(KeyboardInterrupt):
        run_stage("import", job, own, {"table": [table]}, LOCAL, Interrupts())
    assert not [artifact for artifact in list_artifacts(tmp_path) if artifact.kind == "logits"]
    again, _ = import_file(card, tmp_path, table, file)
    assert again.digest == import_file(card, root, table, file)[0].digest


def test_a_file_and_folds_contradict_each_other_and_an_absent_file_is_told(card: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a file stands in place of a teacher of ours"):
        job_of(card, tmp_path, tmp_path / "x.csv", "teacher.folds=3")
    with pytest.raises(DataError, match="there is no such file"):
        run_job(*job_of(card, tmp_path, tmp_path / "x.csv"), LOCAL, Silent())


def test_a_file_that_changes_while_it_is_read_is_refused(
    card: Path, table: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(told_of(table), tmp_path / "told.parquet")
    read = teacher_file.read_teacher_file

    def slowly(*given: Any) -> Any:
        found = read(*given)
        path.write_bytes(path.read_bytes() + b" ")
        return found

    monkeypatch.setattr(teacher_file, "read_teacher_file", slowly)
    with pytest.raises(DataError, match="the file changed while it was read"):
        import_file(card, tmp_path, table, path)
