"""Columns that the teacher alone sees: rules of the card, their place in a table, the two views of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from encoded_tables import Engine, csv_card, encode_csv, entries, matrix, shards, synthetic_card, write_csv
from raw_files import card_data
from sklearn.metrics import roc_auc_score

from tgeokd_ray.artifacts import Artifact, read_json
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import EncodedTable
from tgeokd_ray.feed.reader import DirectReader
from tgeokd_ray.feed.rows import decode
from tgeokd_ray.tables.cards import LABEL, Card
from tgeokd_ray.tables.check import summarise
from tgeokd_ray.tables.draft import draft_card
from tgeokd_ray.tables.encode import encode
from tgeokd_ray.tables.synthetic import DWELL_NOISE, LOG_ODDS, LOG_ODDS_AFTER, synthetic_rows, with_dwell
from tgeokd_ray.tables.validation import validated
from tgeokd_ray.tables.views import Encoders, card_files

ROWS = range(400)
MADE = {
    "late": lambda n: "" if n % 11 == 0 else str(n % 13),
    "after": lambda n: f"v{n % 7}",
    "own": lambda n: f"o{n % 3}",
}
NUMBERS = [{"name": "late", "kind": "standard"}, {"name": "x", "kind": "standard"}]
TEXTS = [{"name": "own"}, {"name": "after", "shared": "both"}, {"name": "c", "shared": "both"}]
PRIVATE = ["own", "late", "after"]


def columns(*teacher_only: str) -> dict[str, Any]:
    names = {"teacher_only": teacher_only} if teacher_only else {}
    return {"numeric": NUMBERS, "categorical": TEXTS, "others": "ignore", **names}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("raw") / "rows.csv", ROWS, **MADE)


@pytest.fixture(scope="module")
def table(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return encode_csv(csv_card(columns=columns(*PRIVATE)), [raw], tmp_path_factory.mktemp("root"))


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        ({"numeric": ["speed", "x"], "teacher_only": ["sped"]}, "'sped' is neither .*; did you mean 'speed'"),
        ({"numeric": ["x"], "ignore": ["z"], "teacher_only": ["z"]}, "'z' is neither numeric nor categorical"),
        ({"numeric": ["x", "z"], "teacher_only": ["z", "z"]}, "'z' is there twice"),
        ({"numeric": ["x"], "categorical": ["c"], "teacher_only": ["c", "x"]}, "the student needs at least one"),
        ({"numeric": ["x"], "teacher_olny": ["x"]}, "unknown key 'teacher_olny' in columns; did you mean 'teacher_"),
    ],
)
def test_rules_of_the_card(roles: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        validated(Card, card_data(columns=roles), "card.yaml")


def test_the_column_of_the_splits_cannot_be_hidden() -> None:
    times = {"kind": "time", "column": "t", "periods": [{"until": 5, "to": "train"}, {"to": "test"}]}
    with pytest.raises(ConfigError, match="'t' is the column of the splits"):
        validated(Card, card_data(columns={"numeric": ["t", "x"], "teacher_only": ["t"]}, splits=times), "card.yaml")


def test_a_card_without_such_columns_is_written_as_before() -> None:
    card = csv_card(columns=columns())
    assert "teacher_only" not in str(card.digest_arguments())
    assert "teacher_only" not in str(card_files(card))
    assert csv_card(columns=columns() | {"teacher_only": []}).digest_arguments() == card.digest_arguments()
    assert csv_card(columns=columns("late")).digest_arguments()["columns"]["teacher_only"] == ["late"]


def test_the_students_columns_come_first_and_the_others_apart(table: Artifact) -> None:
    schema = table.manifest.schema
    assert schema["numeric"] == ["x", "x:missing"]
    assert [column["name"] for column in schema["categorical"]] == ["c"]
    private = schema["teacher_only"]
    assert private["numeric"] == ["late", "late:missing"]
    assert [column["name"] for column in private["categorical"]] == ["own", "after"]
    for entry in entries(table):
        names = pq.read_schema(table.file(entry.path)).names
        assert names == ["row_id", "label", "numeric", "categorical", "teacher_numeric", "teacher_categorical"]
        assert len(entry.extra["unseen"]) == 3


def test_the_students_ids_are_a_prefix_and_a_shared_space_is_the_students(table: Artifact) -> None:
    schema, train = table.manifest.schema, shards(table, "train")
    (c,), (own, after) = schema["categorical"], schema["teacher_only"]["categorical"]
    assert (after["offset"], after["size"]) == (c["offset"], c["size"]) == (0, 2 + 7)
    assert own["offset"] == schema["num_ids"] == 9
    assert schema["teacher_only"]["num_ids"] == 9 + own["size"] == 9 + 2 + 3
    assert matrix(train, "categorical").max() < schema["num_ids"]
    rows = train["row_id"].to_numpy() % (1 << 40)
    ids, same = matrix(train, "teacher_categorical")[:, 1], rows % 7 == rows % 5
    np.testing.assert_array_equal(ids == matrix(train, "categorical")[:, 0], same)


def test_what_the_student_sees_does_not_depend_on_the_rest(raw: Path, tmp_path: Path, table: Artifact) -> None:
    roles = columns("late", "own") | {"categorical": [TEXTS[0], TEXTS[2]]}
    without = {**roles, "numeric": NUMBERS[1:], "categorical": [TEXTS[2]], "teacher_only": []}
    one, other = (encode_csv(csv_card(columns=c), [raw], tmp_path / n) for n, c in (("a", roles), ("b", without)))
    for split in ("train", "test"):
        for name in ("row_id", "label", "numeric", "categorical"):
            assert shards(one, split)[name].equals(shards(other, split)[name])
    assert one.file("encoder.json").read_bytes() == other.file("encoder.json").read_bytes()
    assert "teacher_only" not in other.manifest.schema
    assert {entry.path for entry in other.manifest.files} & {"teacher_encoder.json", "student_card.json"} == set()


def test_a_models_kind_decides_which_columns_are_read(table: Artifact) -> None:
    found = {}
    for kind in ("students", "teachers"):
        opened = EncodedTable.open(table.path, model=kind)
        (piece, *_) = DirectReader(opened, (), "train")(opened.units("train")[:1])
        assert ("teacher_numeric" in piece.column_names) == (kind == "teachers")
        found[kind] = rows = decode(piece, 2)
        assert rows.numeric.shape[1] == opened.num_numeric
        assert rows.categorical.shape[1] == opened.num_categorical
        assert int(rows.categorical.max()) < opened.num_ids
        assert opened.seen_by("students").num_numeric == 2
    assert (opened.num_numeric, opened.num_categorical, opened.num_ids) == (4, 3, 14)
    np.testing.assert_array_equal(found["teachers"].numeric[:, :2], found["students"].numeric)
    np.testing.assert_array_equal(found["teachers"].categorical[:, :1], found["students"].categorical)


def test_a_student_of_numbers_alone_and_a_teacher_of_texts(raw: Path, tmp_path: Path) -> None:
    roles = {"numeric": NUMBERS[1:], "categorical": [TEXTS[0]], "teacher_only": ["own"], "others": "ignore"}
    table = encode_csv(csv_card(columns=roles), [raw], tmp_path)
    student, teacher = (EncodedTable.open(table.path, model=kind) for kind in ("students", "teachers"))
    assert (student.num_categorical, student.num_ids, teacher.num_categorical, teacher.num_ids) == (0, 0, 1, 5)
    assert student.feature_columns == ("numeric",)
    assert teacher.feature_columns == ("numeric", "teacher_categorical")
    (piece, *_) = DirectReader(teacher, (), "train")(teacher.units("train")[:1])
    assert decode(piece, 2).categorical.shape[1] == 1


def test_the_encoders_give_what_the_shards_hold(raw: Path, table: Artifact) -> None:
    encoders = Encoders.read([table.file("encoder.json"), table.file("teacher_encoder.json")])
    test = shards(table, "test")
    rows = [int(n) for n in test["row_id"].to_numpy()]
    numbers = {
        "x": [None if n % 7 == 0 else n / 4 for n in rows],
        "late": [None if n % 11 == 0 else n % 13 for n in rows],
    }
    texts = {"c": [f"v{n % 5}" for n in rows], "own": [f"o{n % 3}" for n in rows], "after": [f"v{n % 7}" for n in rows]}
    numeric, categorical = encoders.transform(pa.table(numbers | texts))
    for name, whole in (("numeric", numeric), ("categorical", categorical)):
        both = np.concatenate([matrix(test, name), matrix(test, f"teacher_{name}")], axis=1)
        np.testing.assert_array_equal(whole, both)


def test_the_students_card_names_none_of_them(table: Artifact) -> None:
    whole, student = (read_json(table.file(name)) for name in ("card.json", "student_card.json"))
    assert whole["columns"]["teacher_only"] == PRIVATE
    assert Card.model_validate(student).known_columns == ("x", "c", "y")
    text = table.file("student_card.json").read_text() + table.file("encoder.json").read_text()
    assert not [name for name in PRIVATE if f'"{name}' in text]


def test_a_file_without_header_keeps_its_places() -> None:
    form = {"kind": "csv", "header": False, "names": ["own", "x", "y", "late", "unseen_0"]}
    roles = {"numeric": ["late", "x"], "categorical": ["own"], "ignore": ["unseen_0"], "teacher_only": ["own", "late"]}
    card = Card.model_validate(
        card_files(Card.model_validate(card_data(format=form, columns=roles)))["student_card.json"]
    )
    assert card.format.names == ("unseen_1", "x", "y", "unseen_2", "unseen_0")
    assert card.columns.ignore == ("unseen_0", "unseen_1", "unseen_2")


def test_draft_and_check_know_the_key(raw: Path) -> None:
    assert yaml.safe_load(draft_card(raw))["columns"]["teacher_only"] == []
    summary = summarise(csv_card(columns=columns("late", "own")), [raw])
    seen = {row["column"]: row["seen_by"] for row in summary["numeric"] + summary["categorical"]}
    assert seen == {"late": "teacher", "x": "both", "own": "teacher", "after": "both", "c": "both"}
    assert "seen_by" not in summarise(csv_card(columns=columns()), [raw])["numeric"][0]


class TestSynthetic:
    def test_dwell_leaves_all_else_and_follows_bayes(self) -> None:
        plain = synthetic_rows(7, 0, 60_000)
        rows = with_dwell(7, plain)
        assert rows.drop_columns(["dwell", LOG_ODDS_AFTER]).equals(plain)
        labels, log_odds = rows[LABEL].to_numpy(), rows[LOG_ODDS_AFTER].to_numpy()
        chances = 1 / (1 + np.exp(-log_odds))
        for part in np.array_split(np.argsort(log_odds), 10):
            sigma = np.sqrt((chances[part] * (1 - chances[part])).sum()) / len(part)
            assert abs(labels[part].mean() - chances[part].mean()) < 4 * sigma
        # A click moves dwell by the square of the noise, all else the same.
        match = rows["dwell"].to_numpy() - log_odds + rows[LOG_ODDS].to_numpy() - DWELL_NOISE**2 / 2
        rest = rows["dwell"].to_numpy() - match
        assert rest[labels == 1].mean() - rest[labels == 0].mean() == pytest.approx(DWELL_NOISE**2, abs=0.03)
        assert rest[labels == 0].std() == pytest.approx(DWELL_NOISE, abs=0.01)

    def test_any_cut_gives_the_same_rows(self) -> None:
        parts = [with_dwell(7, synthetic_rows(7, first, 50)) for first in (0, 50)]
        assert (
            pa.concat_tables(parts).combine_chunks().equals(with_dwell(7, synthetic_rows(7, 0, 100)).combine_chunks())
        )

    @pytest.mark.parametrize("hidden", [True, False])
    def test_both_bayes_figures_are_told(self, tmp_path: Path, hidden: bool) -> None:
        data = synthetic_card().model_dump()
        data["columns"]["numeric"] = [*data["columns"]["numeric"], {"name": "dwell"}]
        data["columns"]["teacher_only"] = ["dwell"] if hidden else []
        table, _ = encode(Card.model_validate(data), [], tmp_path, Engine(), Silent())
        test = with_dwell(3, synthetic_rows(3, 0, 9000)).take(pa.array(shards(table, "test")["row_id"].to_numpy()))
        found = table.manifest.schema["extra"]
        student, teacher = (LOG_ODDS if hidden else LOG_ODDS_AFTER), LOG_ODDS_AFTER
        assert found["bayes_auc"] == pytest.approx(roc_auc_score(test[LABEL], test[student]), abs=1e-5)
        assert ("teacher_bayes_auc" in found) == hidden
        if hidden:
            assert found["teacher_bayes_auc"] == pytest.approx(roc_auc_score(test[LABEL], test[teacher]), abs=1e-5)
            assert found["teacher_bayes_auc"] > found["bayes_auc"] + 0.01


@pytest.mark.parametrize(("stage", "items"), [("fit", 1), ("encode", 1), ("encode", 3)])
def test_k3_a_killed_encode_goes_on_to_the_same_table(tmp_path: Path, stage: str, items: int) -> None:
    data = synthetic_card().model_dump()
    data["columns"]["teacher_only"] = ["n0", "c3"]
    card, engine = Card.model_validate(data), Engine()
    with pytest.raises(KeyboardInterrupt):
        encode(card, [], tmp_path / "a", Engine(stage, items), Silent())
    again, _ = encode(card, [], tmp_path / "a", engine, Silent())
    assert engine.done["encode"] == 5 - (items if stage == "encode" else 0), "finished shards are kept"
    assert again.digest == encode(card, [], tmp_path / "b", Engine(), Silent())[0].digest
