"""A table that grew by a day: same encoder, new shards beside the old ones, only the new ones scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tgeokd_ray.artifacts import Artifact, lineage, list_artifacts
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError, DataError, ProvenanceError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.pipeline.job import Place, run_stage
from tgeokd_ray.pipeline.predict import predict
from tgeokd_ray.training import scoring
from tgeokd_ray.training.assess import assess

LOCAL = Place(local=True)
CARD = """
name: daily
format: {kind: csv}
row_id: ROW_ID
label: {column: click, classes: ["0", "1"]}
columns: {numeric: [x], categorical: [c]}
splits: {kind: hash, salt: s, parts: {teacher: 0.3, train: 0.3, outer: 0.1, valid: 0.1, test: 0.2}}
"""
SMALL = [
    "teacher.training.epochs=1",
    "teacher.model.hidden=[4]",
    "teacher.model.members=1",
    "student.training.epochs=1",
]


def write_day(folder: Path, day: int, first: int = 0, rows: int = 400, values: str = "abc") -> Path:
    rng = np.random.default_rng(day)
    path = folder / f"day-{day}.csv"
    lines = [
        f"{first + k},{rng.integers(2)},{rng.normal():.4f},{values[rng.integers(len(values))]}" for k in range(rows)
    ]
    path.write_text("\n".join(["id,click,x,c", *lines]) + "\n")
    return path


def make_card(folder: Path, row_id: str = "{kind: column, column: id}") -> None:
    text = CARD.replace("ROW_ID", row_id)
    (folder / "card.yaml").write_text(text if "column" in row_id else text.replace("[c]}", "[c], ignore: [id]}"))


def stage(folder: Path, name: str, *files: Path, **given: list[Artifact]) -> Artifact:
    """One stage under the folder's card and root; what it made."""
    options = {"card": str(folder / "card.yaml"), "root": str(folder / "root")}
    options |= {"data": [str(file) for file in files]} if files else {}
    (made,) = run_stage(name, *resolve(options, settings=SMALL), given, LOCAL, Silent())
    return made


def ids(table: Artifact, *, of: str = "") -> list[int]:
    shards = [entry.path for entry in table.manifest.files if entry.path.startswith(of) and "split" in entry.extra]
    return [row_id for shard in shards for row_id in pq.read_table(table.file(shard))["row_id"].to_pylist()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_card(tmp_path)
    return tmp_path


def test_a_day_is_encoded_as_the_days_before_and_its_shards_stand_beside_theirs(folder: Path) -> None:
    base = stage(folder, "encode", write_day(folder, 1), write_day(folder, 2, 400))
    day = write_day(folder, 3, 800, values="abcd")
    grown = stage(folder, "encode", day, base=[base])
    assert [one.role for one in lineage(grown)] == ["base"]
    old, new = ({e.path: e for e in table.manifest.files} for table in (base, grown))
    assert all(new[path] == entry for path, entry in old.items()), "shards, encoder and card are those of the base"
    assert grown.file("train-00000.parquet").stat().st_ino == base.file("train-00000.parquet").stat().st_ino
    assert sorted(ids(grown)) == list(range(1200))
    assert sum(grown.manifest.schema["rows"].values()) == 1200
    assert {path for path in new if "00002" in path} == {
        f"{split}-00002.parquet" for split in EncodedTable(grown).splits
    }
    assert new["test-00002.parquet"].extra["unseen"][0] > 0, "d is new: it has the reserved id"
    again = stage(folder, "encode", day, base=[base])
    assert again.label == grown.label
    whole = stage(folder, "encode", *sorted(folder.glob("day-*.csv")))
    assert whole.manifest.files != grown.manifest.files, "encoding all anew fits the encoder on the new rows too"
    more = stage(folder, "encode", write_day(folder, 4, 1200), base=[grown])
    assert more.manifest.schema["raw"] == [f"day-{k}.csv" for k in (1, 2, 3, 4)]


def test_places_in_files_go_on_where_the_base_ended(tmp_path: Path) -> None:
    make_card(tmp_path, "{kind: file_row}")
    base = stage(tmp_path, "encode", write_day(tmp_path, 1), write_day(tmp_path, 2))
    grown = stage(tmp_path, "encode", write_day(tmp_path, 3), base=[base])
    assert {row_id >> 40 for row_id in ids(grown)} == {0, 1, 2}
    assert len(set(ids(grown))) == 1200


def test_only_the_new_shards_are_scored_by_the_teacher_of_the_days_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = stage(folder, "encode", write_day(folder, 1))
    teacher = stage(folder, "teacher", table=[base])
    asked: list[str] = []
    score = scoring.ScoreShard._score
    monkeypatch.setattr(scoring.ScoreShard, "_score", lambda self, shard: asked.append(shard) or score(self, shard))
    logits = stage(folder, "precompute", table=[base], teacher=[teacher])
    grown = stage(folder, "encode", write_day(folder, 2, 400), base=[base])
    asked.clear()
    more = stage(folder, "precompute", table=[grown], teacher=[teacher])
    assert {shard[-13:] for shard in asked} == {"00001.parquet"}
    assert len(asked) == 4
    assert more.file("test-00000.parquet").stat().st_ino == logits.file("test-00000.parquet").stat().st_ino
    counts = np.bincount(
        np.concatenate([pq.read_table(grown.file(f"train-0000{k}.parquet"))["label"].to_numpy() for k in (0, 1)])
    )
    assert more.manifest.schema["class_counts"] == counts.tolist()
    results = assess(teacher.path, EncodedTable(grown), "test", Silent())
    assert results["rows"] == grown.manifest.schema["rows"]["test"]
    with pytest.raises(ProvenanceError, match="run tgeokd precompute"):
        run_stage(
            "distill",
            *resolve({"card": str(folder / "card.yaml"), "root": str(folder / "root")}, settings=SMALL),
            {"table": [grown], "logits": [logits]},
            LOCAL,
            Silent(),
        )


def test_p3_a_teacher_of_a_table_encoded_anew_scores_nothing(folder: Path) -> None:
    teacher = stage(folder, "teacher", table=[stage(folder, "encode", write_day(folder, 1))])
    whole = stage(folder, "encode", write_day(folder, 1), write_day(folder, 2, 400))
    with pytest.raises(ProvenanceError, match="was made from tables/daily/v000001"):
        stage(folder, "precompute", table=[whole], teacher=[teacher])


def test_d9_rows_that_are_there_already_are_refused(folder: Path) -> None:
    base = stage(folder, "encode", write_day(folder, 1))
    with pytest.raises(ConfigError, match=r"a file of this name is in tables/daily/v000001 already"):
        stage(folder, "encode", folder / "day-1.csv", base=[base])
    with pytest.raises(DataError, match=r"2 row ids are in tables/daily/v000001 already.*398") as error:
        stage(folder, "encode", write_day(folder, 2, 398), base=[base])
    assert error.value.total == 2
    assert [artifact.label for artifact in list_artifacts(folder / "root")] == [base.label]


def test_a_synthetic_table_does_not_grow(tmp_path: Path) -> None:
    options = {"card": "synthetic_ctr", "root": str(tmp_path)}
    job, card = resolve(options)
    small = card.model_copy(update={"format": card.format.model_copy(update={"rows": 2000, "chunk_rows": 1000})})
    base = run_stage("encode", job, small, {}, LOCAL, Silent())
    with pytest.raises(ConfigError, match="is synthetic: it does not grow"):
        run_stage("encode", job, small, {"base": base}, LOCAL, Silent())


def test_d9_the_same_bytes_under_another_name_are_refused(folder: Path) -> None:
    base = stage(folder, "encode", write_day(folder, 1))
    (folder / "copy.csv").write_bytes((folder / "day-1.csv").read_bytes())
    with pytest.raises(ConfigError, match=r"the same bytes as day-1\.csv, which is in tables/daily/v000001"):
        stage(folder, "encode", folder / "copy.csv", base=[base])


def test_s3_a_damaged_shard_of_earlier_logits_is_scored_again_and_never_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between the two, the next attempt must not find the damaged file among the finished ones."""
    base = stage(folder, "encode", write_day(folder, 1))
    teacher = stage(folder, "teacher", table=[base])
    logits = stage(folder, "precompute", table=[base], teacher=[teacher])
    grown = stage(folder, "encode", write_day(folder, 2, 400), base=[base])
    damaged = logits.file("train-00000.parquet")
    data = bytearray(damaged.read_bytes())
    data[len(data) // 3] ^= 1
    damaged.write_bytes(bytes(data))

    def interrupted(self: scoring.ScoreShard, shard: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(scoring.ScoreShard, "_score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stage(folder, "precompute", table=[grown], teacher=[teacher])
    more = stage(folder, "precompute", table=[grown], teacher=[teacher])
    assert more.file("train-00000.parquet").read_bytes() != bytes(data)
    noted = [{e.path: e.sha256 for e in one.manifest.files}["train-00000.parquet"] for one in (logits, more)]
    assert noted[0] == noted[1], "scored again, it has the bytes that it had before the damage"


def test_predictions_have_the_ids_that_the_table_gave_and_new_files_others(tmp_path: Path) -> None:
    make_card(tmp_path, "{kind: file_row}")
    base = stage(tmp_path, "encode", write_day(tmp_path, 2))
    grown = stage(tmp_path, "encode", write_day(tmp_path, 1), base=[base])
    teacher = stage(tmp_path, "teacher", table=[grown])
    out = tmp_path / "out.parquet"
    files = [str(tmp_path / "day-1.csv"), str(write_day(tmp_path, 3, rows=5))]
    assert predict(teacher.path, files, out, Silent()) == 405
    found = pq.read_table(out)["row_id"].to_pylist()
    assert {row_id >> 40 for row_id in found} == {1, 2}, "day 1 came second; day 3 is not in the table"
    assert set(found[:400]) == {row_id for row_id in ids(grown) if row_id >> 40 == 1}
