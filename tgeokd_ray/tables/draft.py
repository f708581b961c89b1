"""A first card for a new file: a guess at its format, its columns and its label, for a person to correct."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tgeokd_ray.errors import DataError, Problem
from tgeokd_ray.tables import arff
from tgeokd_ray.tables.cards import Format
from tgeokd_ray.tables.delimited import Marks, cut
from tgeokd_ray.tables.findings import Findings, file_error
from tgeokd_ray.tables.headers import first_record
from tgeokd_ray.tables.streams import TextBytes

LABEL_NAMES = ("label", "target", "class", "click", "clicked", "y", "result", "attack", "marker", "outcome")
NOTHING = ("0", "normal", "benign", "natural", "no", "none", "false", "negative", "background")
MAX_CLASSES, FEW_VALUES, FEW_ROWS = 100, 20, 1000
# More distinct values than this share of the rows, all different, is an id and no feature.
UNIQUE = 0.999
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "?", "-")


@dataclass(frozen=True)
class _Sample:
    """The first rows of a file, as text, how the file is to be read, columns that are no text, such as lists, and what
    to say of it."""

    form: dict[str, Any]
    rows: pl.DataFrame
    textless: Sequence[str] = ()
    remark: str = ""


def draft_card(path: Path) -> str:
    """The YAML of a card for a CSV, TSV, ARFF or Parquet file, from its first rows (some megabytes).

    Comments mark what is a guess. The card loads and encodes the file it came from, unless a class is too rare to come
    into train or a later row differs from the first ones. DataError if the file cannot be read or has one column.
    """
    sample = _read(path)
    if sample.rows.width < 2 or not sample.rows.height:
        found = f"{sample.rows.width} columns, {sample.rows.height} rows"
        raise file_error([Problem("a table needs a label, a feature and rows", str(path), got=found)])
    label = _label(sample.rows)
    if label is None:
        what = f"no column has between 2 and {MAX_CLASSES} values, so none can be the label"
        raise DataError([Problem(what, str(path))], fix="add a column with the class of each row")
    return _yaml(path, sample, label)


def _read(path: Path) -> _Sample:
    if not path.is_file():
        raise file_error([Problem("no such file", str(path))], fix="name one raw file")
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    with path.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    if parquet or suffix in ("parquet", "pq"):
        return _parquet(path)
    if suffix == "arff":
        with TextBytes(path) as raw, io.BufferedReader(raw) as text:
            names = arff.read_head(text, path)
            return _Sample({"kind": "arff"}, _piece(arff.data_rows(text, path), names, names, arff.MARKS, path))
    return _delimited(path, suffix)


def _parquet(path: Path) -> _Sample:
    try:
        with pq.ParquetFile(path) as file:
            batch = next(file.iter_batches(batch_size=1 << 15), None)
            table = pa.table(batch) if batch is not None else file.schema_arrow.empty_table()
    except (OSError, pa.ArrowException) as error:
        raise file_error([Problem(f"is no whole Parquet file: {error}", str(path))]) from None
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise file_error([Problem("the file has this column twice", str(path), name) for name in twice])
    texts = {name: _as_text(table[name]) for name in table.column_names}
    frame = pl.DataFrame({name: text for name, text in texts.items() if text is not None})
    return _Sample({"kind": "parquet"}, frame, [name for name, text in texts.items() if text is None])


def _as_text(column: pa.ChunkedArray) -> pl.Series | None:
    """A column as texts; None for what has none, such as lists, durations and bytes that are not UTF-8."""
    if pa.types.is_nested(column.type):
        return None
    try:
        return pl.Series(column).cast(pl.String, strict=False)
    except pl.exceptions.PolarsError:
        return None


def _delimited(path: Path, suffix: str) -> _Sample:
    """The separator that cuts the first line into the most columns; a header if no name of it is a number."""
    cells, separator = max(
        ((first_record(path, _form(mark, True))[0], mark) for mark in ("\t", ",", ";", "|")), key=lambda c: len(c[0])
    )
    kind = "tsv" if separator == "\t" or (suffix == "tsv" and len(cells) == 1) else "csv"
    names_only = not any(_is_number(cell) or not cell.strip() for cell in cells)
    twice = [cell for cell, count in Counter(cells).items() if count > 1]
    named = names_only and not twice
    names = cells if named else [f"column_{k + 1}" for k in range(len(cells))]
    marks = Marks(separator, None if kind == "tsv" else '"', ("",))
    with TextBytes(path) as raw, io.BufferedReader(raw) as text:
        rows = _piece(text, None if named else names, names, marks, path)
    form: dict[str, Any] = {"kind": kind}
    if separator != {"tsv": "\t", "csv": ","}[kind]:
        form["separator"] = separator
    if not named:
        form |= {"header": False, "names": names}
    texts = [text for text in MISSING[1:] if any((rows[name] == text).any() for name in _mostly_numbers(rows))]
    form |= {"null_values": ["", *texts]} if texts else {}
    again = ", ".join(map(repr, twice)) if names_only else ""
    remark = f"The first row has {again} twice, and is taken for data: if it names the columns, mend it."
    return _Sample(form, rows, remark=remark if again else "")


def _form(separator: str, header: bool) -> Format:
    return Format(kind="tsv" if separator == "\t" else "csv", separator=separator, header=header)


def _piece(
    text: BinaryIO, names: Sequence[str] | None, wanted: Sequence[str], marks: Marks, path: Path
) -> pl.DataFrame:
    """The first piece of a text file. Bad rows are not told here: checking against the card does."""
    piece = next(cut(text, names, list(dict.fromkeys(wanted)), marks, Findings(path)), None)
    if piece is None:
        raise file_error([Problem("has no rows", str(path))])
    columns = {name: [_decoded(value) for value in piece[name].to_pylist()] for name in piece.column_names}
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    return frame.with_columns(pl.all().str.strip_chars())


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text) is not None


def _numbers(rows: pl.DataFrame, name: str) -> pl.Series:
    return rows[name].cast(pl.Float64, strict=False)


def _mostly_numbers(rows: pl.DataFrame) -> list[str]:
    """Columns that hold numbers but for texts that mean a missing value."""
    found = []
    for name in rows.columns:
        given = rows[name].drop_nulls()
        given = given.filter(~given.is_in(list(MISSING)))
        if len(given) and given.cast(pl.Float64, strict=False).null_count() == 0:
            found.append(name)
    return found


def _label(rows: pl.DataFrame) -> str | None:
    """The column of a label's name, else the last and then the first one, that has few values and none missing."""

    def possible(name: str) -> bool:
        return rows[name].null_count() == 0 and 2 <= rows[name].n_unique() <= MAX_CLASSES

    usual = [name for word in LABEL_NAMES for name in rows.columns if name.lower() == word]
    return next((name for name in [*usual, rows.columns[-1], *rows.columns] if possible(name)), None)


def _columns(rows: pl.DataFrame, label: str) -> dict[str, list[str]]:
    """The role of every column but the label: numbers, categories, and what tells rows apart but says nothing."""
    numbers = [name for name in _mostly_numbers(rows) if name != label]
    numeric = [name for name in numbers if not _codes(rows, name)]
    others = [name for name in rows.columns if name not in numeric and name != label]
    most = max(UNIQUE * rows.height, FEW_VALUES)
    ids = [name for name in others if rows[name].n_unique() > most or not rows[name].count()]
    if not numeric and len(ids) == len(others):
        ids = []
    categorical = [name for name in others if name not in ids]
    return {"numeric": numeric, "categorical": categorical, "teacher_only": [], "ignore": ids}


def _classes(rows: pl.DataFrame, label: str) -> list[str]:
    """The label's values, numbers in order and then texts; first the one that seems to mean that nothing happened."""

    def order(text: str) -> tuple[bool, float, str]:
        number = _is_number(text)
        return not number, float(text) if number else 0.0, text

    classes = sorted(rows[label].unique().to_list(), key=order)
    negative = next((text for text in classes if text.lower() in NOTHING), classes[0])
    return [negative, *(text for text in classes if text != negative)]


def _yaml(path: Path, sample: _Sample, label: str) -> str:
    rows, classes, columns = sample.rows, _classes(sample.rows, label), _columns(sample.rows, label)
    columns["ignore"] += sample.textless
    infinite = any(_numbers(rows, name).is_infinite().any() for name in columns["numeric"])
    numeric = {"kind": "log1p", "inf": "clip"} if infinite else {"kind": "log1p"}
    name = (re.sub(r"[^A-Za-z0-9_-]+", "_", path.name.split(".")[0]).strip("_") or "table")[:100]
    shares = {"teacher": 0.4, "train": 0.3, "outer": 0.06, "valid": 0.06, "test": 0.18}
    parts: list[tuple[str, dict[str, Any]]] = [
        ("", {"name": name, "title": path.name, "format": sample.form}),
        (
            "A guess: which column is the label, and which of its values means that nothing happened.",
            {"label": {"column": label, "classes": classes, "negative": classes[0]}},
        ),
        (
            "A guess from the first rows. Numbers with few values may be categories, and the other way round.\n"
            "# What is not known yet when a prediction is made must be ignored, or named under teacher_only as well.",
            {"columns": columns},
        ),
        (
            "How columns are encoded, unless they say it themselves; `buckets: 100000` hashes a column without bounds.",
            {"encoding": {"numeric": numeric, "categorical": {"min_count": 4 if rows.height > FEW_ROWS else 1}}},
        ),
        (
            "Shares of a hash of the row's place; a split by time is fairer where tomorrow differs from today.",
            {"splits": {"kind": "hash", "salt": name, "parts": shares}},
        ),
    ]
    lines = [f"# A first card for {path.name}: read it, correct it, then tgeokd check --card THIS {path.name}"]
    lines += [f"# {sample.remark}"] if sample.remark else []
    for comment, part in parts:
        lines += [f"# {comment}"] if comment else []
        text = yaml.safe_dump(part, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
        lines.append(text.rstrip())
    return "\n".join(lines) + "\n"


def _codes(rows: pl.DataFrame, name: str) -> bool:
    """Whether a column of whole numbers looks like codes: few values, spread over a range they hardly fill."""
    numbers = _numbers(rows, name).drop_nulls()
    if not len(numbers) or (numbers != numbers.floor()).any():
        return False
    spread = float(numbers.max()) - float(numbers.min()) + 1  # type: ignore[arg-type]
    return 2 < numbers.n_unique() <= FEW_VALUES and spread > 10 * numbers.n_unique()
