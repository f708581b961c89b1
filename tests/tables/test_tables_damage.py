"""Damage that a card asks for: the encoded rows it changes, what is recorded, the truth beside, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoded_tables import Engine, csv_card, encode_csv, shards, write_csv
from raw_files import card_data

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.tables import ingest
from tgeokd_ray.tables.cards import SPLITS, Card
from tgeokd_ray.tables.encode import encode
from tgeokd_ray.tables.regimes.damage import Damage, Region, damaged, inside_region
from tgeokd_ray.tables.validation import validated

ROWS = range(3000)
CLASSES = ["no", "yes", "maybe"]
MADE = {  # most train rows come early, so that their median is not that of all rows
    "y": lambda n: CLASSES[n * 7 % 13 % 3],
    "part": lambda n: "train" if n < 1500 and n % 2 else SPLITS[n * 5 % 11 % 5],
}
SPLIT = {"kind": "column", "column": "part"}
BOTH = {"hidden": ["maybe"], "flip": 0.4, "where": {"kind": "above_median", "column": "x"}, "seed": 3}
DAMAGES: dict[str, dict[str, Any]] = {
    "both": BOTH,
    "half of the texts": {"flip": 0.5, "where": {"kind": "hash_even", "column": "c"}},
    "everywhere": {"flip": 0.3, "splits": ["train", "valid"]},
    "hidden": {"hidden": ["no", "yes"]},
}


def card(**changes: Any) -> Card:
    label = {"column": "y", "classes": CLASSES}
    return csv_card(**{"row_id": {"kind": "column", "column": "id"}, "splits": SPLIT, "label": label, **changes})


@pytest.fixture(scope="module", autouse=True)
def small_units() -> Iterator[None]:
    """Four units, so that a median and counts are put together from several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "UNIT_ROWS", 800)
        yield


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("raw") / "a.csv", ROWS, **MADE)


@pytest.fixture(scope="module")
def plain(raw: Path, small_units: None, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return encode_csv(card(), [raw], tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module", params=DAMAGES)
def hurt(
    request: pytest.FixtureRequest, raw: Path, small_units: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Artifact]:
    """One kind of damage, and the table that it was done to."""
    damage = DAMAGES[request.param]
    return damage, encode_csv(card(damage=damage), [raw], tmp_path_factory.mktemp("hurt"))


def labels(table: Artifact) -> dict[str, dict[int, str]]:
    """The class of each row of each split."""
    found = {}
    for split, rows in table.manifest.schema["rows"].items():
        held = shards(table, split) if rows else {"row_id": pa.array([]), "label": pa.array([])}
        codes = held["label"].to_pylist()
        found[split] = dict(zip(held["row_id"].to_pylist(), [CLASSES[c] if c >= 0 else "" for c in codes], strict=True))
    return found


def truth(table: Artifact) -> list[dict[str, Any]]:
    files = [entry.path for entry in table.manifest.files if entry.path.startswith("truth-")]
    return [row for file in files for row in pq.read_table(table.file(file)).to_pylist()]


def inside(where: dict[str, Any] | None) -> list[bool]:
    """Which rows of the file are in a region; the median is that of the train rows."""
    if where is None:
        return [True] * len(ROWS)
    if where["kind"] == "hash_even":
        return inside_region(Region.model_validate(where), pa.table({"c": [f"v{n % 5}" for n in ROWS]})).tolist()
    number = np.array([np.nan if n % 7 == 0 else n / 4 for n in ROWS])
    return list(number > np.nanmedian(number[[MADE["part"](n) == "train" for n in ROWS]]))


def expected(damage: dict[str, Any]) -> dict[str, dict[int, str]]:
    """What the library's `damaged` makes of the rows everywhere, in the rows of the region."""
    frame = pa.table({"id": ROWS, "y": list(map(MADE["y"], ROWS)), "part": list(map(MADE["part"], ROWS))})
    everywhere = Damage.model_validate({key: value for key, value in damage.items() if key != "where"})
    hurt = damaged(frame, everywhere, label="y", split="part", row_id="id", classes=CLASSES)
    found: dict[str, dict[int, str]] = {split: {} for split in SPLITS}
    region = inside(damage.get("where"))
    for row in hurt.to_pylist():
        found[row["part"]][row["id"]] = row["y"] if region[row["id"]] else row["true_label"]
    return found


def test_the_encoded_rows_are_those_that_the_library_damages(
    hurt: tuple[dict[str, Any], Artifact], plain: Artifact
) -> None:
    damage, table = hurt
    assert labels(table) == expected(damage)
    assert labels(table)["test"] == labels(plain)["test"]


def test_the_schema_counts_what_was_changed_and_the_truth_tells_each_row(
    hurt: tuple[dict[str, Any], Artifact], plain: Artifact
) -> None:
    damage, table = hurt
    given, before, told = labels(table), labels(plain), truth(table)
    assert {(row["split"], row["row_id"]): row["given_label"] for row in told} == {
        (split, n): name for split, rows in given.items() for n, name in rows.items()
    }
    for row in told:
        assert row["true_label"] == before[row["split"]][row["row_id"]]
        assert row["flipped"] == (row["true_label"] != row["given_label"])
        assert ("hidden" in row["region"]) == (row["true_label"] in damage.get("hidden", []))
        assert not row["flipped"] or row["region"].startswith("labels damaged")
    schema = table.manifest.schema["damage"]
    changed = {s: sum(given[s][n] != before[s][n] for n in given[s]) for s in given}
    assert schema["rows"]["flipped"] == {split: n for split, n in changed.items() if n}
    gone = len(before["teacher"]) - len(given["teacher"])
    assert schema["rows"]["hidden"] == ({"teacher": gone} if gone else {})
    assert table.manifest.schema["rows"]["teacher"] == len(given["teacher"])
    open_to = damage.get("splits", ["train"]) if damage.get("flip") else []
    told_inside = [row["split"] for row in told if row["region"].startswith("labels damaged")]
    assert schema["rows"]["inside"] == {split: told_inside.count(split) for split in open_to}
    assert damage.items() <= (schema | {"where": damage.get("where")}).items()
    assert ("median" in schema) == ("above_median" in str(damage))


def test_features_and_encoders_are_those_of_the_undamaged_table(
    hurt: tuple[dict[str, Any], Artifact], plain: Artifact
) -> None:
    _, table = hurt
    assert table.file("encoder.json").read_bytes() == plain.file("encoder.json").read_bytes()
    for split in ("train", "outer", "valid", "test"):
        one, other = shards(table, split), shards(plain, split)
        assert one.drop_columns(["label"]).equals(other.drop_columns(["label"]))


def test_an_undamaged_table_knows_nothing_of_it_and_a_damaged_one_has_a_digest_of_its_own(plain: Artifact) -> None:
    assert "damage" not in card().digest_arguments()
    assert "damage" not in card().model_dump()
    assert "damage" not in plain.manifest.schema
    assert "damage" not in plain.file("card.json").read_text()
    assert truth(plain) == []
    digests = [card(damage=damage).digest_arguments() for damage in DAMAGES.values()]
    assert all(one != other for k, one in enumerate(digests) for other in digests[:k])


def test_rows_without_a_label_keep_none(tmp_path: Path) -> None:
    made = {**MADE, "y": lambda n: "" if n % 2 and MADE["part"](n) == "train" else MADE["y"](n)}
    raw = write_csv(tmp_path / "a.csv", ROWS, **made)
    label = {"column": "y", "classes": CLASSES, "missing": "distill"}
    table = encode_csv(card(label=label, damage={"flip": 1.0}), [raw], tmp_path)
    train = labels(table)["train"]
    assert {n for n, name in train.items() if not name} == {n for n in train if n % 2}
    assert all(train[n] not in (MADE["y"](n), "") for n in train if n % 2 == 0)
    assert table.manifest.schema["damage"]["rows"]["flipped"]["train"] == sum(n % 2 == 0 for n in train)
    silent = [row for row in truth(table) if row["true_label"] is None]
    assert {row["row_id"] for row in silent} == {n for n in train if n % 2}
    assert not any(row["flipped"] or row["given_label"] for row in silent)


def test_an_encode_that_was_cut_off_goes_on_to_the_same_table(
    hurt: tuple[dict[str, Any], Artifact], raw: Path, tmp_path: Path
) -> None:
    damage, whole = hurt
    for stage in ("damage", "encode"):
        with pytest.raises(KeyboardInterrupt):
            encode(card(damage=damage), [raw], tmp_path, Engine(stage, 2), Silent())
    engine = Engine()
    table, _ = encode(card(damage=damage), [raw], tmp_path, engine, Silent())
    assert "ingest" not in engine.done
    assert table.digest == whole.digest


def test_a_damaged_table_does_not_grow(hurt: tuple[dict[str, Any], Artifact], tmp_path: Path) -> None:
    damage, base = hurt
    more = write_csv(tmp_path / "b.csv", range(3000, 3100), **MADE)
    with pytest.raises(ConfigError, match="is damaged on purpose: it does not grow"):
        encode(card(damage=damage), [more], tmp_path, Engine(), Silent(), onto=base)


def test_no_row_is_above_the_median_of_nothing(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "a.csv", range(600), **{**MADE, "x": lambda n: ""})
    table = encode_csv(card(damage=BOTH), [raw], tmp_path)
    assert table.manifest.schema["damage"]["rows"]["flipped"] == {}
    assert "median" not in table.manifest.schema["damage"]


PROBLEMS = {
    "class": ({"hidden": ["yess"]}, "damage.hidden: 'yess' is not a class; did you mean 'yes'?"),
    "all classes": ({"hidden": ["no", "yes"]}, "damage.hidden: the teacher needs a class that it sees"),
    "column": ({"where": {"kind": "hash_even", "column": "y"}}, "damage.where: 'y' is not a feature"),
    "median": ({"where": {"kind": "above_median", "column": "c"}}, "damage.where: 'c' is not numeric"),
    "key": ({"flop": 1}, "unknown key 'flop' in damage; did you mean 'flip'?"),
    "test": ({"splits": ["test"]}, "damage.splits.0"),
}


@pytest.mark.parametrize(("damage", "told"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_a_card_cannot_ask_for(damage: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(Card, card_data(damage=damage), "card.yaml")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("trusted", "splits", "wrong"),
    [
        ({"splits": ["valid"]}, ["train", "outer"], []),
        ({"splits": ["valid"]}, ["outer", "valid"], ["valid"]),
        ({"column": "audited"}, ["outer", "valid"], ["outer", "valid"]),
    ],
)
def test_labels_that_are_right_cannot_be_damaged(trusted: dict[str, Any], splits: list[str], wrong: list[str]) -> None:
    parts = {"kind": "hash", "salt": "a", "parts": {"train": 0.6, "test": 0.4}, "trusted": trusted}
    declared = validated(Card, card_data(splits=parts), "card.yaml")
    found = declared.problems_of(Damage.model_validate({"flip": 0.5, "splits": splits}))
    assert found == [f"splits: splits.trusted says that labels of {name} are right" for name in wrong]
