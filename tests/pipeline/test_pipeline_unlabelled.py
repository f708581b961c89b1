"""The chain on a table most of whose train rows have no label, and whose outer and valid rows are trusted ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tgeokd_ray.artifacts import open_artifact
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.class_means import probabilities
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.predict import predict
from tgeokd_ray.training.assess import assess

TINY = [
    "teacher.training={epochs: 12, optimizer: {learning_rate: 1.0e-2}}",
    "teacher.model={hidden: [16], members: 1}",
    "student.training={epochs: 6, optimizer: {learning_rate: 1.0e-2}}",
    "student.training.oversample=3",
    "teacher.training.class_weights=balanced",
    "distill.constants=[0.5]",
]
CARD: dict[str, Any] = {
    "name": "clicks",
    "format": {"kind": "csv"},
    "row_id": {"kind": "column", "column": "number"},
    "label": {"column": "clicked", "classes": ["0", "1"], "missing": "distill", "unlabelled": ["?"]},
    "columns": {"numeric": ["speed", "size"], "categorical": ["page"]},
    "splits": {
        "kind": "file",
        "salt": "s",
        "files": {"old*": "teacher", "now*": "train", "new*": "test"},
        "trusted": {"column": "audited"},
    },
}
NAMES = ["number", "speed", "size", "page", "audited", "clicked"]
OLD, NOW, NEW = range(600), range(600, 2400), range(2400, 2800)


def true_class(k: int) -> int:
    return int(np.random.default_rng(k).random() < 0.3)


def is_audited(k: int) -> bool:
    return k in NOW and k % 5 == 0


def cells(k: int, nothing: str) -> str:
    draws, clicked = np.random.default_rng([k, 1]), true_class(k)
    shown = k not in NOW or is_audited(k) or k % 3 == 0
    values = [k, f"{draws.normal(1.5 * clicked):.3f}", f"{draws.normal():.3f}", f"p{(k + clicked) % 7}"]
    return ",".join(map(str, [*values, int(is_audited(k)), clicked if shown else nothing]))


def write(path: Path, rows: range, nothing: str) -> str:
    path.write_text("\n".join([",".join(NAMES), *(cells(k, nothing) for k in rows)]) + "\n")
    return str(path)


def run(folder: Path, nothing: str = "") -> tuple[dict[str, Any], Path]:
    (folder / "clicks.yaml").write_text(yaml.safe_dump(CARD))
    files = [write(folder / f"{n}.csv", rows, nothing) for n, rows in (("old", OLD), ("now", NOW), ("new", NEW))]
    options = {"card": str(folder / "clicks.yaml"), "root": str(folder / "root"), "data": files}
    return run_job(*resolve(options, settings=TINY), Place(local=True), Silent())[0], folder / "root"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    return run(tmp_path_factory.mktemp("clicks"))


def artifact(root: Path, kind: str) -> Path:
    (found,) = (root / kind).glob("*/v000001")
    return found


def test_it_trains_and_every_student_learns(whole: tuple[dict[str, Any], Path]) -> None:
    results, root = whole
    assert [model["role"] for model in results["models"]].count("student") >= 3
    assert all(model["auc"] > 0.8 for model in results["models"])
    table = EncodedTable.open(artifact(root, "tables"))
    hidden = sum(not (is_audited(k) or k % 3 == 0) for k in NOW)
    assert table.schema["unlabelled"] == {"train": hidden}
    assert hidden / table.splits["train"] > 0.6
    assert table.schema["trusted"]["rows"] == {split: table.splits[split] for split in ("outer", "valid")}
    assert table.splits["outer"] + table.splits["valid"] == sum(map(is_audited, NOW))
    assert results["table"]["rows"] == table.splits


def test_the_teacher_scores_them_and_class_means_leave_them_out(whole: tuple[dict[str, Any], Path]) -> None:
    _, root = whole
    table, logits = EncodedTable.open(artifact(root, "tables")), LogitsTable.open(artifact(root, "logits"))
    counts, sums = np.zeros(2), np.zeros((2, 2))
    for shard in logits.shards("train"):
        scored = pq.read_table(logits.artifact.file(shard))
        labels = pq.read_table(table.artifact.file(shard))["label"].to_numpy()
        assert len(scored) == len(labels)
        shares = probabilities(np.stack(scored["logits"].to_numpy()))
        for c in (0, 1):
            counts[c] += (labels == c).sum()
            sums[c] += shares[labels == c].sum(axis=0)
    assert logits.class_counts.tolist() == counts.tolist() == table.label_counts("train").tolist()
    np.testing.assert_allclose(logits.class_means, sums / counts[:, None], rtol=1e-6)


def test_figures_and_ratios_count_labelled_rows(whole: tuple[dict[str, Any], Path]) -> None:
    _, root = whole
    table = EncodedTable.open(artifact(root, "tables"))
    (student,) = (path for path in (root / "students").glob("*tgeo*/v000001"))
    assert assess(student, table, "train", Silent())["rows"] == int(table.label_counts("train").sum())


def test_what_the_ratio_does_is_told_of_labelled_rows(whole: tuple[dict[str, Any], Path]) -> None:
    results, root = whole
    table, ratios = EncodedTable.open(artifact(root, "tables")), open_artifact(artifact(root, "ratios"))
    shards = [entry.path for entry in ratios.manifest.files if "split" in entry.extra]
    labels = np.concatenate([pq.read_table(table.artifact.file(shard))["label"].to_numpy() for shard in shards])
    apart = np.concatenate([np.stack(pq.read_table(ratios.file(shard))["distance"].to_numpy()) for shard in shards])
    assert ratios.manifest.schema["median_distances"] == [np.median(apart[labels >= 0])]
    assert np.median(apart) != np.median(apart[labels >= 0])
    effect = results["extra"]["ratio"]["effect"]
    assert effect["rows"] == (labels >= 0).sum() < len(labels)
    (cells,) = effect["geometry"]
    assert sum(cell["rows"] for name, cell in cells.items() if name != "median_distance") == effect["rows"]


def test_nothing_of_the_place_of_a_label_reaches_a_model(whole: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    """Another text for no label, and all artifacts but the table hold the same bytes."""
    _, root = whole
    _, other = run(tmp_path, "?")
    for kind in ("teachers", "logits", "students"):
        for path in sorted((root / kind).glob("*/v000001")):
            found = open_artifact(other / kind / path.parent.name / path.name).manifest
            files = {entry.path: entry.sha256 for entry in open_artifact(path).manifest.files}
            assert {entry.path: entry.sha256 for entry in found.files} == files


def test_a_student_predicts_without_labels_and_trust(whole: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    _, root = whole
    (student,) = (path for path in (root / "students").glob("*tgeo*/v000001"))
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join([",".join(NAMES[:4]), *(",".join(cells(k, "").split(",")[:4]) for k in NEW)]) + "\n")
    assert predict(student, [str(bare)], tmp_path / "out.parquet", Silent()) == len(NEW)
