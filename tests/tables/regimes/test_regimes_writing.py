"""A regime as files: the same bytes, whole rows, a card and teachers that the pipeline takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.tables.card_yaml import read_yaml
from tgeokd_ray.tables.cards import SPLITS, UNLABELLED, load_card
from tgeokd_ray.tables.encode import encode
from tgeokd_ray.tables.readers import read_frames
from tgeokd_ray.tables.regimes.catalogue import SYNTHETIC, build
from tgeokd_ray.tables.regimes.writing import Written, card_data, write
from tgeokd_ray.tables.teacher_file import read_teacher_file


def contents(written: Written) -> list[bytes]:
    return [path.read_bytes() for path in (written.rows, written.card, written.truth, *written.teachers)]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_the_same_seed_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    first, again, other = (
        contents(write(build(name), seed, tmp_path / place)) for seed, place in ((3, "a"), (3, "b"), (4, "c"))
    )
    assert first == again
    assert first[1] == other[1]
    assert first[0] != other[0]


@pytest.mark.parametrize("name", ["synth.flip", "synth.flipclean", "synth.unlabelled"])
def test_rows_and_truth(name: str, tmp_path: Path) -> None:
    regime = build(name)
    written = write(regime, 1, tmp_path)
    rows, truth = pq.read_table(written.rows), pq.read_table(written.truth)
    ids, parts = rows["row_id"].to_numpy(), regime.split(1)
    assert (np.diff(ids) > 0).all()
    splits = np.array(rows["split"].to_pylist())
    assert {s: ids[splits == s].tolist() for s in SPLITS[1:]} == {s: sorted(parts[s]) for s in SPLITS[1:]}
    assert truth["row_id"].equals(rows["row_id"])
    assert truth["given_label"].equals(rows["label"])
    assert truth["true_label"].to_pylist() == [regime.classes[c] for c in regime.true[ids]]
    assert truth["region"].to_pylist() == [regime.regions[c] for c in regime.region[ids]]
    shown = rows["label"].to_pylist()
    for split, code in zip(splits, range(len(ids)), strict=True):
        label = regime.labels(split)[ids[code]]
        assert shown[code] == (None if label < 0 else regime.classes[label])
    differs = [g is not None and g != t for g, t in zip(shown, truth["true_label"].to_pylist(), strict=True)]
    assert truth["flipped"].to_pylist() == differs
    assert truth["ratio_teacher_0"].to_pylist() == regime.ratios[ids, 1].tolist()
    for column in regime.numeric:
        assert rows[column].to_numpy().tolist() == regime.features[column].to_numpy()[ids].tolist()


def test_a_row_is_the_same_in_every_seed(tmp_path: Path) -> None:
    first, second = (pq.read_table(write(build("synth.soft"), s, tmp_path / str(s)).rows) for s in (0, 1))
    joined = first.join(second, "row_id", right_suffix="_again", join_type="inner")
    assert 6000 < joined.num_rows < 9500
    assert joined["x3"].equals(joined["x3_again"])
    assert joined["label"].equals(joined["label_again"])
    assert not joined["split"].equals(joined["split_again"])


def test_every_teacher_is_a_file_that_can_be_imported(tmp_path: Path) -> None:
    regime = build("synth.multi")
    assert regime.logits is not None
    written = write(regime, 0, tmp_path)
    ids = pq.read_table(written.rows)["row_id"].to_numpy()
    assert [path.name for path in written.teachers] == ["teacher-0.parquet", "teacher-1.parquet", "teacher-2.parquet"]
    for m, path in enumerate(written.teachers):
        told = read_teacher_file(path, regime.classes, 0)
        assert told.form.kind == "logits"
        assert np.array_equal(told.row_ids, ids)
        assert np.array_equal(told.logits, regime.logits[ids, m].astype(np.float32))


def test_the_card_reads_the_rows(tmp_path: Path) -> None:
    regime = build("synth.flip")
    written = write(regime, 0, tmp_path)
    assert read_yaml(written.card) == card_data(regime, "rows.parquet")
    card = load_card(written.card)
    (frame,) = read_frames(card, written.rows)
    assert (card.name, card.numeric, card.defaults) == ("synth.flip", regime.numeric, regime.settings)
    rows = pq.read_table(written.rows)
    assert frame["@row_id"].to_numpy().tolist() == rows["row_id"].to_pylist()
    assert [regime.classes[c] for c in frame["@label"].to_pylist()] == rows["label"].to_pylist()


def one_by_one(function: Callable[[Any], Any], items: Iterable[Any], *, stage: str) -> Iterator[Any]:
    return map(function, items)


@pytest.mark.parametrize(("name", "hidden"), [("synth.flip", False), ("synth.unlabelled", True)])
def test_the_written_files_become_a_table(name: str, hidden: bool, tmp_path: Path) -> None:
    regime = build(name)
    card = load_card(write(regime, 0, tmp_path / "raw").card)
    table, _ = encode(card, [], tmp_path, one_by_one, Silent())
    parts = regime.split(0)
    for split in SPLITS[1:]:
        shards = [entry.path for entry in table.manifest.files if entry.extra.get("split") == split]
        rows = pa.concat_tables([pq.read_table(table.file(shard)) for shard in shards])
        ids = rows["row_id"].to_numpy()
        assert sorted(ids) == sorted(parts[split])
        assert np.array_equal(rows["label"].to_numpy(), regime.labels(split)[ids])
    unlabelled = int((regime.given[parts["train"]] == UNLABELLED).sum())
    assert (unlabelled > 900) == hidden
    assert table.manifest.schema.get("unlabelled", {"train": 0})["train"] == unlabelled


TRUSTED = {"synth.soft", "synth.null", "synth.flipclean", "synth.multi", "synth.drift", "synth.unlabelled"}


@pytest.mark.parametrize("name", [*SYNTHETIC, "digits.both", "digits.both.noisy"])
def test_a_card_trusts_outer_and_valid_rows_that_are_clean(name: str) -> None:
    regime = build(name)
    splits = {"kind": "column", "column": "split"}
    declared = splits | {"trusted": {"splits": ["outer", "valid"]}}
    assert card_data(regime, "x")["splits"] == (declared if name in {*TRUSTED, "digits.both"} else splits)
    assert card_data(regime, "x", trust=False)["splits"] == splits


def test_a_feature_cannot_have_the_name_of_a_column_that_is_added(tmp_path: Path) -> None:
    regime = build("synth.soft")
    names = ["split", *regime.features.column_names[1:]]
    with pytest.raises(ConfigError, match="has the name of a column of its own: split"):
        write(replace(regime, features=regime.features.rename_columns(names)), 0, tmp_path)
