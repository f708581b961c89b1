"""What results.json says of the ratio: the verdict, means by column under raw names, known ratios, and its re-use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tgeokd_ray.artifacts import open_artifact
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.arrow import unpacked
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.tables.cards import PACKAGED
from tgeokd_ray.tables.encoders import Encoder

ROWS = 4000
SMALL = [
    "teacher.training.epochs=2",
    "teacher.model={hidden: [16], embedding: 4, members: 1}",
    "student.training.epochs=3",
    "distill={constants: [0.5], strengths: [1], shifts: [0, 1], halving: false}",
]


class Asked:
    """A job on 4,000 rows of the packaged synthetic card, with other questions about the same ratio."""

    def __init__(self, folder: Path) -> None:
        card = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
        card["format"] |= {"rows": ROWS, "chunk_rows": 1500}
        self.card, self.root, self.truth = folder / "small.yaml", folder / "root", folder / "truth.parquet"
        self.card.write_text(yaml.safe_dump(card))
        ids = np.arange(ROWS)
        known = {"row_id": ids, "region": np.array(["even", "odd"])[ids % 2], "ratio_teacher_0": (ids % 2) * 0.5}
        pq.write_table(pa.table(known), self.truth)

    def ratio(self, *settings: str) -> dict[str, Any]:
        job, card = resolve({"card": str(self.card), "root": str(self.root)}, settings=[*SMALL, *settings])
        results, _ = run_job(job, card, Place(local=True), Silent())
        self.results = results
        found: dict[str, Any] = results["extra"]["ratio"]
        return found


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asked(tmp_path_factory.mktemp("effect"))


def rows_of(job: Asked, ratio: dict[str, Any]) -> dict[str, np.ndarray]:
    """The rows of train and outer as they are stored, with a by its formula."""
    stored = open_artifact(job.root / ratio["artifact"])
    table = open_artifact(job.root / job.results["table"]["artifact"])
    parts = []
    for shard in sorted(entry.path for entry in stored.manifest.files if "split" in entry.extra):
        told, own = unpacked(pq.read_table(table.file(shard))), pq.read_table(stored.file(shard))
        part = {name: np.stack(told[name].to_numpy()) for name in ("row_id", "label", "categorical", "numeric")}
        part |= {"u": np.stack(own["ratio"].to_numpy())[:, 0].astype(np.float64)}
        parts.append(part | {"train": np.full(len(told), shard.startswith("train"))})
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    mean = stored.manifest.schema["mean"]
    return rows | {"a": 1 / (1 + np.exp(-(mean + ratio["shift"] + ratio["strength"] * (rows["u"] - mean))))}


def raw_names(job: Asked, name: str) -> tuple[int, dict[int, str]]:
    """The place of a categorical column, and the raw value behind each id of the fused table."""
    table = open_artifact(job.root / job.results["table"]["artifact"])
    encoder = Encoder.from_json(yaml.safe_load(table.file("encoder.json").read_text()))
    names = [column for column, _ in encoder.categorical]
    space = dict(encoder.categorical)[name]
    return names.index(name), {space.offset + 2 + k: value for k, value in enumerate(space.values or ())}


def test_the_figures_are_those_of_the_rows(job: Asked) -> None:
    ratio = job.ratio()
    effect, rows = ratio["effect"], rows_of(job, ratio)
    assert effect["rows"] == len(rows["a"]) == sum(effect["histogram"]["counts"])
    assert effect["mean"] == pytest.approx(rows["a"].mean(), abs=1e-6)
    for index, name in enumerate(job.results["table"]["classes"]):
        assert effect["by_class"][name] == pytest.approx(rows["a"][rows["label"] == index].mean(), abs=1e-6)
    (cells,) = effect["geometry"]
    counts = {name: cell["rows"] for name, cell in cells.items() if name != "median_distance"}
    assert sum(counts.values()) == effect["rows"]
    assert abs(counts["right_near"] + counts["wrong_near"] - effect["rows"] / 2) <= 1
    tgeo = job.results["models"][-1]
    if ratio["pays"]:
        assert effect["mean"] == pytest.approx(tgeo["ratio"]["mean"], abs=1e-5)
    epochs = [entry["epoch"] for entry in ratio["training"]]
    assert epochs == list(range(len(epochs)))
    assert all(entry["ratio_p10"] <= entry["ratio_p50"] <= entry["ratio_p90"] for entry in ratio["training"])


def test_a_ratio_that_was_learned_before_is_told_in_the_same_way(job: Asked) -> None:
    first = job.ratio()
    again = job.ratio("distill.ratios=[synthetic_ctr-shape]")
    assert again["artifact"] == first["artifact"]
    assert again["effect"] == first["effect"]
    assert again["training"] == first["training"] != []


def test_columns_unasked_are_the_four_of_few_values_that_differ_most(job: Asked) -> None:
    segments = job.ratio()["effect"]["segments"]
    assert 0 < len(segments) <= 4
    assert [one["spread"] for one in segments] == sorted((one["spread"] for one in segments), reverse=True)
    for one in segments:
        values = len(one["values"]) + (one["rest"]["values"] if one["rest"] else 0)
        assert values <= 52


def test_columns_that_were_asked_for_by_their_raw_values_and_by_quarters(job: Asked) -> None:
    ratio = job.ratio("distill.segments=[c5, n0]")
    rows, (column, number) = rows_of(job, ratio), ratio["effect"]["segments"]
    assert (column["column"], number["column"]) == ("c5", "n0")
    place, names = raw_names(job, "c5")
    by_name = {name: rows["a"][rows["categorical"][:, place] == i] for i, name in names.items()}
    assert len(column["values"]) == 10
    for one in column["values"]:
        if not one["value"].startswith("("):
            assert one["rows"] == len(by_name[one["value"]])
            assert one["mean"] == pytest.approx(by_name[one["value"]].mean(), abs=1e-6)
    counts = [one["rows"] for one in column["values"]]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) + column["rest"]["rows"] == len(rows["a"])
    means = [one["mean"] for one in column["values"]] + [column["rest"]["mean"]]
    total = np.dot([*counts, column["rest"]["rows"]], means)
    assert total == pytest.approx(rows["a"].sum(), abs=1e-3)
    values = rows["numeric"][:, 0]
    cuts = np.quantile(values[rows["train"]], [0.25, 0.5, 0.75])
    quarter = (values[:, None] > cuts.astype(np.float32)).sum(1)
    assert [one["value"] for one in number["values"]] == ["0 to 25 %", "25 to 50 %", "50 to 75 %", "75 to 100 %"]
    for q, one in enumerate(number["values"]):
        assert one["rows"] == (quarter == q).sum()
        assert one["mean"] == pytest.approx(rows["a"][quarter == q].mean(), abs=1e-6)


def test_beside_known_ratios(job: Asked) -> None:
    ratio = job.ratio(f"distill.truth={job.truth}")
    truth, rows = ratio["effect"]["truth"], rows_of(job, ratio)
    odd = rows["row_id"] % 2 == 1
    (correlation,) = truth["correlation"]
    assert correlation == pytest.approx(np.corrcoef(rows["a"], odd)[0, 1], abs=1e-6)
    assert [(one["region"], one["known"]) for one in truth["regions"]] == [("even", 0), ("odd", 0.5)]
    assert truth["regions"][1]["mean"] == pytest.approx(rows["a"][odd].mean(), abs=1e-6)
    assert [one["rows"] for one in truth["regions"]] == [(~odd).sum(), odd.sum()]


def test_the_same_question_is_answered_from_the_run_folder_another_is_not(job: Asked, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    first = job.ratio("distill.segments=[c1]")
    job.ratio("distill.segments=[c2]")

    def counted(*_: object) -> None:
        raise AssertionError("rows were counted again")

    monkeypatch.setattr("tgeokd_ray.pipeline.effect._counted", counted)
    assert job.ratio("distill.segments=[c1]") == first
    with pytest.raises(AssertionError, match="counted again"):
        job.ratio("distill.segments=[c3]")
    assert all(stage["reused"] for stage in job.results["stages"])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("distill.segments=[c99]", "the student sees no column 'c99'; did you mean 'c9'?"),
        ("distill.truth=nowhere.parquet", "distill.truth: nowhere.parquet can not be read"),
    ],
)
def test_wrong_questions_are_refused_before_anything_is_made(tmp_path: Path, setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Asked(tmp_path).ratio(setting)
    assert words in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_a_truth_without_its_columns_is_refused(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    pq.write_table(pa.table({"row_id": [1], "region": ["A"]}), asked.truth)
    with pytest.raises(ConfigError, match="ratio_teacher_0"):
        asked.ratio(f"distill.truth={asked.truth}")
