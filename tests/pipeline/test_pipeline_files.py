"""The chain on raw files as a user has them: a table to a student, new rows to predictions, broken files to errors."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tgeokd_ray.artifacts import list_artifacts, owner
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError, DataError, ResourceError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.predict import predict
from tgeokd_ray.training.assess import assess

REPOSITORY = Path(__file__).resolve().parents[2]
LOCAL = Place(local=True)
SMALL = [
    "teacher.training.epochs=2",
    "teacher.model={hidden: [16], members: 2}",
    "student.training.epochs=2",
    "distill.constants=[0.5]",
]
CARD = """
name: alarms
format: {kind: csv}
row_id: {kind: column, column: id}
label:
  column: verdict
  classes: [normal, scan, worm]
  mapping: {normal: [ok], scan: [probe, sweep], worm: [worm]}
columns:
  numeric: [size, {name: rate, inf: clip}]
  categorical: [port]
  others: ignore
weight: trust
splits:
  kind: file
  salt: alarms
  files:
    old*: {teacher: 0.5, train: 0.3, outer: 0.1, valid: 0.1}
    new*: test
"""
HEADER = "id,size,rate,port,verdict,trust,comment\n"
ROWS = 1500


def line(k: int) -> str:
    draws = np.random.default_rng(k)
    kind = int(draws.integers(3))
    port = f"p{draws.integers(6) + 2 * kind}" if k % 17 else ""
    size = f"{draws.normal(kind):.4f}" if k % 13 else ""
    verdict = ["ok", ["probe", "sweep"][k % 2], "worm"][kind]
    return f'{k},{size},{"inf" if k == 5 else k % 9},{port},{verdict},{1 + k % 2},"a, ""b""\nc"\n'


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a card, old.csv.gz and new.csv."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "alarms.yaml").write_text(CARD)
    with gzip.open(folder / "old.csv.gz", "wt") as file:
        file.write(HEADER + "".join(line(k) for k in range(ROWS)))
    (folder / "new.csv").write_text(HEADER + "".join(line(k) for k in range(ROWS, ROWS + 300)))
    return folder


def job(raw: Path, root: Path, *files: str):  # type: ignore[no-untyped-def]
    options = {
        "card": str(raw / "alarms.yaml"),
        "root": str(root),
        "data": [str(raw / f) for f in files],
        "metric": "macro_f1",
    }
    return resolve(options, settings=SMALL)


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """(results, root) of one job on both files."""
    root = tmp_path_factory.mktemp("root")
    results, _ = run_job(*job(raw, root, "old.csv.gz", "new.csv"), LOCAL, Silent())
    return results, root


def rows_of_test(results, root: Path):  # type: ignore[no-untyped-def]
    """The encoded rows of the test split: one shard, because new.csv is one unit."""
    (shard,) = (root / results["table"]["artifact"]).glob("test-*.parquet")
    return pq.read_table(shard)


def test_files_become_splits_and_every_class_its_recall(whole) -> None:  # type: ignore[no-untyped-def]
    results, root = whole
    rows = results["table"]["rows"]
    assert rows["test"] == 300
    assert sum(rows.values()) == ROWS + 300
    for model in results["models"]:
        assert set(model["recall"]) == {"normal", "scan", "worm"}
        assert set(model["detection_rate"]) == {"0.01", "0.001"}
    table = rows_of_test(results, root)
    assert sorted(table["row_id"].to_pylist()) == list(range(ROWS, ROWS + 300))
    assert set(table["weight"].to_pylist()) == {1.0, 2.0}


def test_predictions_of_raw_rows_are_those_of_the_evaluation(whole, raw: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    results, root = whole
    for model in (results["models"][0], results["models"][-1]):
        out = tmp_path / f"{model['name']}.parquet"
        assert predict(root / model["artifact"], [str(raw / "new.csv")], out, Silent()) == 300
        scored = pq.read_table(out)
        assert scored.schema.metadata[b"classes"] == b"normal,scan,worm"
        probabilities = np.array(scored["probabilities"].to_pylist())
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
        encoded = rows_of_test(results, root)
        rows = {row["row_id"]: (row["label"], row["weight"]) for row in encoded.to_pylist()}
        truth, weights = (np.array(v) for v in zip(*(rows[k] for k in scored["row_id"].to_pylist()), strict=True))
        accuracy = np.average(probabilities.argmax(1) == truth, weights=weights)
        assert accuracy == pytest.approx(model["accuracy"], abs=1e-9), "rows count by their weight"
        nll = np.average(-np.log(probabilities[np.arange(300), truth]), weights=weights)
        opened = EncodedTable.open(root / results["table"]["artifact"])
        for found in (model, assess(root / model["artifact"], opened, "test", Silent())):
            assert found["nll"] == pytest.approx(nll, abs=1e-5)


def test_new_rows_need_neither_label_nor_weight(whole, raw: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    results, root = whole
    student = root / results["models"][-1]["artifact"]
    (tmp_path / "new.csv").write_text("port,id,rate,size\np1,7,2,0.5\nnever-seen,8,,\n")
    assert predict(student, [str(tmp_path / "new.csv")], tmp_path / "out.parquet", Silent()) == 2
    assert pq.read_table(tmp_path / "out.parquet")["row_id"].to_pylist() == [7, 8]
    (tmp_path / "bad.csv").write_text("port,id,rate,size\np1,7,2,0.5\np1,8,2,big\np1,nine,2,1\n")
    with pytest.raises(DataError) as caught:
        predict(student, [str(tmp_path / "bad.csv")], tmp_path / "bad.parquet", Silent())
    assert [(p.column, p.row) for p in caught.value.problems] == [("size", 2), ("id", 3)]
    assert not list(tmp_path.glob("*bad.parquet*")), "nothing of it is left"
    before = (tmp_path / "new.csv").read_bytes()
    with pytest.raises(ConfigError, match="is one of the files to score"):
        predict(student, [str(tmp_path / "new.csv")], tmp_path / "new.csv", Silent())
    assert (tmp_path / "new.csv").read_bytes() == before
    with pytest.raises(ConfigError, match="there is no folder"):
        predict(student, [str(tmp_path / "new.csv")], tmp_path / "none" / "out.parquet", Silent())


def test_one_broken_file_names_all_its_problems_and_leaves_nothing(raw: Path, tmp_path: Path) -> None:
    text = (raw / "new.csv").read_text()
    lines = text.replace(",worm,", ",virus,").splitlines(keepends=True)
    (tmp_path / "new.csv").write_text("".join(lines))
    (tmp_path / "alarms.yaml").write_text(CARD)
    (tmp_path / "old.csv.gz").write_bytes((raw / "old.csv.gz").read_bytes())
    with pytest.raises(DataError, match="the label is not one of the classes") as caught:
        run_job(*job(tmp_path, tmp_path / "root", "old.csv.gz", "new.csv"), LOCAL, Silent())
    assert caught.value.total == text.count(",worm,")
    assert len(caught.value.problems) <= 20
    assert list_artifacts(tmp_path / "root") == []


def test_the_two_files_of_a_card_that_needs_both(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "alarms.yaml").write_text(CARD)
    (tmp_path / "other.csv").write_text((raw / "new.csv").read_text())
    with pytest.raises(ConfigError, match=r"no pattern under splits\.files fits the file 'other\.csv'"):
        run_job(*job(tmp_path, tmp_path / "root", "other.csv"), LOCAL, Silent())


def test_s3_a_damaged_result_is_made_again_and_said(whole, raw: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    results, root = whole
    shutil.copytree(root, tmp_path / "root")
    damaged = tmp_path / "root" / results["models"][-1]["artifact"] / "metrics.json"
    text = damaged.read_text()
    at = text.index('"auc": 0.') + len('"auc": 0.')
    damaged.write_text(text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :])
    again, _ = run_job(*job(raw, tmp_path / "root", "old.csv.gz", "new.csv"), LOCAL, Silent())
    assert [model["digest"] for model in again["models"]] == [model["digest"] for model in results["models"]]
    assert any(f"{results['models'][-1]['artifact']} is damaged" in warning for warning in again["warnings"])


@pytest.mark.timeout(60)
def test_s9_two_jobs_of_one_run_folder_do_not_mix(raw: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(owner, "PATIENCE_SECONDS", 0.2)
    script = "import sys, time; from pathlib import Path; from tgeokd_ray.artifacts import DISK, held\n"
    script += "with held(Path(sys.argv[1]), DISK): print('held', flush=True); time.sleep(60)"
    folder = tmp_path / "runs" / "alarms"
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == b"held\n"
            with pytest.raises(ResourceError, match=f"process {first.pid} on .* is at work in this folder"):
                run_job(*job(raw, tmp_path, "old.csv.gz", "new.csv"), LOCAL, Silent())
        finally:
            first.kill()
    assert list_artifacts(tmp_path) == []


@pytest.mark.timeout(120)
def test_the_job_ends_with_the_exit_code_of_the_error(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text(HEADER + "1,x,1,p1,ok,1,\n2,1,1,p1,ok\n")
    words = [sys.executable, str(REPOSITORY / "jobs" / "attack_distill.py"), "--card", str(raw / "alarms.yaml")]
    words += ["--data", str(tmp_path / "old.csv"), "--root", str(tmp_path / "root"), "--local", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    told = " ".join(done.stderr.split())
    assert "column 'size', row 1: the value is not a number" in told
    assert "row 2: another number of columns; expected 7 columns; got 5" in told
    assert "Traceback" not in told


@pytest.mark.timeout(120)
def test_check_says_the_same_as_json(raw: Path) -> None:
    words = [sys.executable, "-m", "tgeokd_ray.cli.main", "check", "--json", "--card", str(raw / "alarms.yaml")]
    done = subprocess.run([*words, str(raw)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == ROWS + 300
