"""Files of teachers from elsewhere: every form gives the same logits, and what is wrong is told with row and column."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from scipy.special import log_softmax, logit, softmax

from tgeokd_ray.errors import ConfigError, DataError, UserError
from tgeokd_ray.tables.teacher_file import Told, read_teacher_file
from tgeokd_ray.tables.teacher_values import CLIP

CLASSES = ("normal", "dos", "probe")
ROWS = 40
IDS = np.random.default_rng(0).permutation(3 * ROWS)[:ROWS].astype(np.int64)
LOGITS = np.random.default_rng(1).normal(size=(ROWS, 3)).astype(np.float32)
SHARES = softmax(LOGITS.astype(np.float64), axis=1)
ORDER = np.argsort(IDS)

Columns = dict[str, Any]


def lists(values: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(values.tolist(), kind or pa.list_(pa.float64()))


def per_class(values: np.ndarray, prefix: str = "", order: tuple[int, ...] = (0, 1, 2)) -> Columns:
    return {prefix + CLASSES[place]: values[:, place] for place in order}


def write(folder: Path, columns: Columns, form: str = "parquet", metadata: dict[str, str] | None = None) -> Path:
    table = pa.table({"row_id": IDS} | columns).replace_schema_metadata(metadata)
    path = folder / f"told.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "csv":
        pacsv.write_csv(table, path)
    else:
        with gzip.open(path, "wb") as packed:
            pacsv.write_csv(table, packed)
    return path


def read(path: Path, kind: Any = None, classes: tuple[str, ...] = CLASSES, negative: int = 0) -> Told:
    return read_teacher_file(path, classes, negative, kind)


FORMS: dict[str, Callable[[], Columns]] = {
    "list": lambda: {"logits": lists(LOGITS)},
    "fixed list of float32": lambda: {"logits": lists(LOGITS, pa.list_(pa.float32(), 3))},
    "prefixed": lambda: per_class(LOGITS.astype(np.float64), "logit_"),
    "in another order": lambda: per_class(LOGITS.astype(np.float64), "logit_", (2, 0, 1)),
    "beside probabilities": lambda: {"probabilities": lists(SHARES), "logits": lists(LOGITS), "note": ["x"] * ROWS},
}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, "parquet") for name in FORMS),
        *((n, f) for n in ("prefixed", "in another order") for f in ("csv", "csv.gz")),
    ],
)
def test_p4_p5_logits_of_every_form_come_back_sorted_by_id(tmp_path: Path, name: str, form: str) -> None:
    told = read(write(tmp_path, FORMS[name](), form))
    np.testing.assert_array_equal(told.row_ids, IDS[ORDER])
    np.testing.assert_array_equal(told.logits, LOGITS[ORDER])
    assert told.form.kind == "logits"


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"probabilities": lists(SHARES)}, None),
        (per_class(SHARES, "probability_", (1, 2, 0)), None),
        (per_class(SHARES, "", (2, 1, 0)), "probabilities"),
        ({"logits": lists(LOGITS), "probabilities": lists(SHARES)}, "probabilities"),
    ],
)
def test_probabilities_become_their_logarithms(tmp_path: Path, columns: Columns, kind: str | None) -> None:
    told = read(write(tmp_path, columns), kind)
    np.testing.assert_allclose(told.logits, log_softmax(LOGITS.astype(np.float64), axis=1)[ORDER], rtol=1e-6)
    assert (told.form.kind, told.clipped) == ("probabilities", 0)


def test_n2_a_probability_of_zero_stays_finite_and_is_counted(tmp_path: Path) -> None:
    shares = SHARES.copy()
    shares[3] = [1, 0, 0]
    told = read(write(tmp_path, {"probabilities": lists(shares)}))
    row = told.logits[told.row_ids == IDS[3]][0]
    np.testing.assert_allclose(row, np.log([1, CLIP, CLIP]), rtol=1e-6)
    assert told.clipped == 2


@pytest.mark.parametrize("negative", [0, 1])
@pytest.mark.parametrize("kind", [None, "score", "probabilities", "logits"])
def test_a_score_is_the_probability_of_the_other_class_or_by_kind_its_log_odds(
    tmp_path: Path, kind: str | None, negative: int
) -> None:
    shares = SHARES[:, 1]
    score = logit(shares) if kind == "logits" else shares
    told = read(write(tmp_path, {"score": score}, "csv"), kind, ("a", "b"), negative)
    np.testing.assert_allclose(told.logits[:, 1 - negative], logit(shares)[ORDER], rtol=1e-5)
    assert not told.logits[:, negative].any()


def test_n2_certain_scores_stay_finite(tmp_path: Path) -> None:
    score = SHARES[:, 1].copy()
    score[:2] = 0, 1
    told = read(write(tmp_path, {"score": score}), None, ("a", "b"))
    odds = dict(zip(told.row_ids.tolist(), told.logits[:, 1].tolist(), strict=True))
    assert odds[int(IDS[0])] == pytest.approx(-odds[int(IDS[1])], rel=1e-6)
    assert odds[int(IDS[1])] == pytest.approx(float(logit(1 - CLIP)), rel=1e-6)
    assert told.clipped == 2


def test_p4_the_order_of_classes_in_the_metadata_is_respected(tmp_path: Path) -> None:
    columns = {"logits": lists(LOGITS[:, [2, 0, 1]])}
    told = read(write(tmp_path, columns, metadata={"classes": "probe,normal,dos"}))
    np.testing.assert_array_equal(told.logits, LOGITS[ORDER])
    with pytest.raises(DataError, match="name 'dso', which is no class of the table; did you mean 'dos'") as caught:
        read(write(tmp_path, columns, metadata={"classes": "probe,normal,dso"}))
    assert "lack the class 'dos'" in str(caught.value)
    with pytest.raises(DataError, match="name 'dos' twice"):
        read(write(tmp_path, columns, metadata={"classes": "probe,normal,dos,dos"}))


def wrong(values: np.ndarray, row: int, place: int, value: float) -> np.ndarray:
    values = values.astype(np.float64).copy()
    values[row, place] = value
    return values


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"logits": lists(wrong(LOGITS, 6, 1, np.nan))}, ["'logits', row 7", "value 2 of the list", "not a finite"]),
        (per_class(wrong(LOGITS, 6, 1, np.inf), "logit_"), ["column 'logit_dos', row 7", "not a finite number", "inf"]),
        (per_class(wrong(LOGITS, 6, 1, 1e300), "logit_"), ["row 7", "got 1e+300"]),
        (per_class(wrong(SHARES, 6, 1, 1.5), "probability_"), ["'probability_dos', row 7", "out of range", "got 1.5"]),
        (per_class(wrong(SHARES, 6, 1, -0.1), "probability_"), ["out of range", "--kind logits"]),
        ({"probabilities": lists(SHARES * 0.9)}, ["do not sum to 1", "got 0.9", "40 in all, the first 20 are shown"]),
        ({"logits": pa.array([[1.0, 2.0], *LOGITS[1:].tolist()])}, ["row 1", "another width", "2 values"]),
        ({"logits": pa.array([None, *LOGITS[1:].tolist()])}, ["row 1", "the list is missing"]),
        ({"logits": pa.array([[1.0, None, 2.0], *LOGITS[1:].tolist()])}, ["row 1", "value 2", "is missing"]),
        ({"logits": lists(LOGITS[:, :2], pa.list_(pa.float32(), 2))}, ["another width", "3 values", "2 values"]),
        ({"logits": pa.array([["a"] * 3] * ROWS)}, ["does not hold numbers", "list<"]),
        ({"logits": LOGITS[:, 0]}, ["is no column of lists", "logit_CLASS"]),
        ({"score": SHARES[:, 0]}, ["one score says nothing of 3 classes"]),
        ({"other": SHARES[:, 0]}, ["no column holds what a teacher says", "'other'"]),
        ({"logit_normal": LOGITS[:, 0], "logit_doss": LOGITS[:, 1]}, ["'logit_dos'", "did you mean 'logit_doss'?"]),
        ({"logit_x": LOGITS[:, 0], **per_class(LOGITS, "logit_")}, ["'logit_x'", "of no class of the table"]),
    ],
)
def test_n1_d8_d13_what_is_wrong_is_told_with_row_column_and_value(
    tmp_path: Path, columns: Columns, told: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, columns))
    for text in told:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["1,0.5", "x,0.5"], ["column 'row_id', row 2", "no whole number", "got 'x'"]),
        (["1,0.5", "2.5,0.5"], ["row 2", "no whole number"]),
        (["1,0.5", ",0.5"], ["row 2", "the row id is missing"]),
        (["1,0.5", "2,"], ["column 'score', row 2", "the value is missing"]),
        (["1,0.5", "2,half"], ["column 'score', row 2", "is not a number", "got 'half'"]),
        (["1,0.5", "2,nan"], ["row 2", "not a finite number"]),
        (["1,0.5", "2,0.5,0.5"], ["row 2", "another number of columns"]),
        (
            ["7,0.5", "8,0.5", "7,0.5", "7,0.1"],
            ["row 3", "twice, before in row 1", "row 4", "before in row 3", "got 7"],
        ),
        ([], ["has no rows"]),
    ],
)
def test_d1_d6_d7_d9_bad_cells_of_a_csv(tmp_path: Path, lines: list[str], told: list[str]) -> None:
    path = tmp_path / "told.csv"
    path.write_text("\n".join(["row_id,score", *lines]) + "\n")
    with pytest.raises(DataError) as caught:
        read(path, None, ("a", "b"))
    for text in told:
        assert text in str(caught.value)


def test_bare_class_names_need_the_kind_and_the_error_says_which(tmp_path: Path) -> None:
    path = write(tmp_path, per_class(SHARES))
    with pytest.raises(ConfigError, match="--kind probabilities, or --kind logits") as caught:
        read(path)
    assert "do not say what they hold" in str(caught.value)
    np.testing.assert_array_equal(read(path, "logits").logits, SHARES.astype(np.float32)[ORDER])


@pytest.mark.parametrize("name", ["told.parquet", "told.csv"])
def test_x1_a_pickle_of_another_name_is_refused_and_not_executed(tmp_path: Path, name: str) -> None:
    ran = tmp_path / "ran"
    path = tmp_path / name
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR.")
    with pytest.raises(UserError):
        read(path)
    assert not ran.exists()


def test_d4_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"logits": lists(LOGITS)})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is no whole Parquet file"):
        read(path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read(tmp_path / "absent.csv")
