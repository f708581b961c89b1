"""Raw columns of one piece of a file to typed ones; what is wrong with a value is noted, not raised. N rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tgeokd_ray.errors import SHOWN
from tgeokd_ray.tables.card_columns import NumericColumn
from tgeokd_ray.tables.card_shares import seconds
from tgeokd_ray.tables.card_trusted import Trusted
from tgeokd_ray.tables.cards import LABEL, ROW, ROW_ID, SPLIT_NAME, SPLITS, TIME, TRUSTED, UNLABELLED, WEIGHT, Card
from tgeokd_ray.tables.coding import coded_texts
from tgeokd_ray.tables.delimited import Unsure
from tgeokd_ray.tables.findings import Findings
from tgeokd_ray.tables.validation import did_you_mean

Flags = NDArray[np.bool_]

_TEXT = pa.large_string()
_NUMBER = "a number (or list the text under format.null_values)"
_WHOLE_NUMBER = "a whole number from -2**63 to 2**63 - 1 (or `type: text` under row_id in the card)"
_LABEL = " (or `missing: distill` under label in the card: train rows without one learn from the teachers alone)"


@dataclass
class Cells:
    """The typed columns of a card from raw ones, piece by piece; problems go to `findings`.

    `labels` tells whether label, weight and what decides about splits are read. Text may come as bytes; it must be
    UTF-8. `nul` tells whether the file holds a NUL byte, so that only such files are searched for it. `strip` takes
    blanks off texts. Texts in `nulls` become null; what is null in the pieces is so in any case. In
    `haste`, `Unsure` is raised for a NaN among numbers that were read as such: it may be written in ways not allowed.
    """

    card: Card
    findings: Findings
    labels: bool = True
    nul: Callable[[], bool] = bool
    strip: bool = False
    nulls: tuple[str, ...] = ()
    haste: bool = False
    rows: int = 0

    def typed(self, piece: pa.Table) -> pa.Table:
        """The next rows: `@row`, the card's own columns under their reserved names, features in the card's order."""
        card, rows = self.card, np.arange(self.rows, self.rows + piece.num_rows)
        columns = {ROW: pa.array(rows)}
        if card.row_id.column is not None:
            columns[ROW_ID] = self._row_ids(piece, card.row_id.column)
        if self.labels:
            columns[LABEL] = self._labels(piece)
            if card.weight is not None:
                columns[WEIGHT] = self._weights(piece, card.weight)
            columns |= self._deciding(piece)
        columns |= {column.name: self._numbers(piece, column) for column in card.columns.numeric}
        columns |= {name: self._categories(piece, name) for name in card.categorical}
        self.rows += piece.num_rows
        return pa.table(columns)

    def _note(self, bad: Flags, column: str, texts: pa.Array, what: str, expected: str | Callable[[str], str]) -> None:
        """One problem per flagged row, with its value; what is expected may depend on it."""
        rows = np.flatnonzero(bad)
        for row in rows[:SHOWN]:
            value = texts[int(row)].as_py()
            rule = expected if isinstance(expected, str) else expected(value)
            self.findings.add(self.rows + int(row), what, column=column, expected=rule, got=value)
        self.findings.count(max(len(rows) - SHOWN, 0))

    def _texts(self, piece: pa.Table, name: str) -> tuple[pa.Array, Flags]:
        """A column as text, and where it is missing. Bytes that are no text are noted and become null, too."""
        column = piece[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        texts, bad = self._decoded(column.cast(pa.large_binary()), name) if _is_bytes(column.type) else (column, None)
        texts = texts.cast(pa.large_string())
        if self.nul():
            nul = _flags(pc.match_substring(texts, "\0"))
            self._note(nul, name, texts, "the text holds a NUL byte", "text")
            bad = nul if bad is None else nul | bad
            texts = pc.if_else(pa.array(nul), None, texts)
        texts = self._changed(texts)
        missing = _flags(texts.is_null())
        return texts, missing if bad is None else missing & ~bad

    def _decoded(self, column: pa.Array, name: str) -> tuple[pa.Array, Flags | None]:
        try:
            return column.cast(pa.large_string()), None
        except pa.ArrowInvalid:
            bad = np.array([value is not None and not _is_utf8(value) for value in column.to_pylist()])
            self._note(bad, name, column, "the bytes are not UTF-8 text", "UTF-8")
            return pc.if_else(pa.array(bad), None, column), bad

    def _categories(self, piece: pa.Table, name: str) -> pa.DictionaryArray:
        """A column of texts as a dictionary: what is checked and changed is each distinct one, once."""
        if _is_bytes(piece[name].type) and not self.nul():
            coded = coded_texts(piece[name])
            words = coded.dictionary
            try:  # what a file calls text need not be UTF-8, and only a cast from bytes looks
                words = (words if pa.types.is_binary(piece[name].type) else words.cast(pa.large_binary())).cast(_TEXT)
            except pa.ArrowInvalid:
                return coded_texts(self._texts(piece, name)[0])  # says which rows are not UTF-8
            if not self.strip and not self.nulls:
                return pa.DictionaryArray.from_arrays(coded.indices, words)
            changed = coded_texts(self._changed(words))  # some are one text now, or none
            return pa.DictionaryArray.from_arrays(changed.indices.take(coded.indices), changed.dictionary)
        return coded_texts(self._texts(piece, name)[0])

    def _changed(self, texts: pa.Array) -> pa.Array:
        """Texts without the blanks around them and with null for a missing one, as the format has it."""
        if self.strip:
            texts = pc.utf8_trim_whitespace(texts)
        if self.nulls:
            texts = pc.if_else(pc.is_in(texts, pa.array(self.nulls, pa.large_string())), None, texts)
        return texts

    def _numbers(self, piece: pa.Table, column: NumericColumn) -> pa.Array:
        """A numeric column as float64, null where it is missing."""
        raw = piece[column.name].combine_chunks()
        if _is_number(raw.type):
            texts, numbers = raw, raw.cast(pa.float64(), safe=False)
        else:
            texts, _ = self._texts(piece, column.name)
            numbers = self._parsed(texts, pl.Float64, column.name, "the value is not a number", _NUMBER)
        values = numbers.fill_null(np.nan).to_numpy(zero_copy_only=False)
        given = ~_flags(numbers.is_null())
        if self.haste and (given & np.isnan(values)).any():
            raise Unsure
        if column.nan == "error":
            expected = "a number (or `nan: missing` in the card)"
            self._note(given & np.isnan(values), column.name, texts, "the value is NaN", expected)
        if column.inf == "error":
            expected = "a finite number (or `inf: clip` or `inf: missing` in the card)"
            self._note(np.isinf(values), column.name, texts, "the value is not a finite number", expected)
        return pa.array(values, mask=np.isnan(values))

    def _parsed(self, texts: pa.Array, kind: type[pl.DataType], name: str, what: str, expected: str) -> pa.Array:
        """Texts as numbers; blanks around one are no harm; what is none is noted and becomes null."""
        series = pl.Series(texts)
        numbers = series.cast(kind, strict=False)
        bad = (numbers.is_null() & series.is_not_null()).to_numpy()
        if bad.any():
            again = series.str.strip_chars().cast(kind, strict=False)
            numbers = numbers.fill_null(again)
            bad &= again.is_null().to_numpy()
            self._note(bad, name, texts, what, expected)
        return numbers.to_arrow()

    def _labels(self, piece: pa.Table) -> pa.Array:
        """Class indices, -1 for a row without a label where the card allows that."""
        label = self.card.label
        texts, missing = self._texts(piece, label.column)
        known = label.texts
        classes = _some([text for text, index in known.items() if index != UNLABELLED])
        codes = pc.index_in(texts, value_set=pa.array(list(known), type=pa.large_string()))
        unknown = _flags(codes.is_null()) & ~_flags(texts.is_null())
        what = "the label is not one of the classes"
        self._note(
            unknown,
            label.column,
            texts,
            what,
            lambda text: classes + ("" if text.isdigit() else did_you_mean(text, known)),
        )
        labels = pa.array(list(known.values()), type=pa.int32()).take(codes)
        if label.missing == "distill":
            return pc.if_else(pa.array(missing), pa.scalar(UNLABELLED, pa.int32()), labels)
        self._note(missing, label.column, texts, "the label is missing", classes + _LABEL)
        return labels

    def _row_ids(self, piece: pa.Table, name: str) -> pa.Array:
        """Row ids as they are in the file: whole numbers, or texts."""
        raw = piece[name].combine_chunks()
        if pa.types.is_integer(raw.type) and self.card.row_id.type == "int":
            ids, missing = raw.cast(pa.int64(), safe=False), _flags(raw.is_null())
            if pa.types.is_uint64(raw.type):
                self._note(_flags(pc.less(ids, 0)), name, raw, "the row id cannot be used", _WHOLE_NUMBER)
        else:
            ids, missing = self._texts(piece, name)
            if self.card.row_id.type == "int":
                ids = self._parsed(ids, pl.Int64, name, "the row id cannot be used", _WHOLE_NUMBER)
        self._note(missing, name, raw, "the row id is missing", "an id for every row")
        return ids

    def _weights(self, piece: pa.Table, name: str) -> pa.Array:
        """Row weights."""
        raw = piece[name].combine_chunks()
        if _is_number(raw.type):
            texts, weights, missing = raw, raw.cast(pa.float64(), safe=False), _flags(raw.is_null())
        else:
            texts, missing = self._texts(piece, name)
            weights = self._parsed(texts, pl.Float64, name, "the weight is not a number", "a number")
        values = weights.fill_null(0.0).to_numpy(zero_copy_only=False)
        self._note(missing, name, texts, "the weight is missing", "a weight for every row")
        bad = ~(values <= np.finfo(np.float32).max) | (values < 0)
        self._note(bad, name, texts, "the weight cannot be used", "a number from 0 to 3.4e38")
        return weights

    def _deciding(self, piece: pa.Table) -> dict[str, pa.Array]:
        """What the columns of the splits say: a time, the place of a split among all (-1: none of them), trust."""
        splits, times = self.card.splits, {name: self._times(piece, name) for name in self.card.splits.times}
        found: dict[str, pa.Array] = {}
        if splits.column in times:
            found[TIME] = times[splits.column]
        elif splits.column is not None:
            names = self._texts(piece, splits.column)[0]
            found[SPLIT_NAME] = pc.index_in(names, pa.array(SPLITS, pa.large_string())).fill_null(-1).cast(pa.int8())
        trusted = splits.trusted
        if trusted is not None and trusted.column is not None:
            own = times.get(trusted.column)
            found[TRUSTED] = self._named(piece, trusted) if own is None else _within(own, trusted)
        return found

    def _named(self, piece: pa.Table, trusted: Trusted) -> pa.Array:
        """Whether the column of trusted rows holds one of their texts."""
        assert trusted.column is not None
        texts, _ = self._texts(piece, trusted.column)
        return pc.is_in(texts, pa.array(trusted.texts, pa.large_string()))

    def _times(self, piece: pa.Table, name: str) -> pa.Array:
        """Seconds or plain numbers, NaN where the time is missing: such a row belongs to no period."""
        raw = piece[name].combine_chunks()
        key, time = self.card.splits.times[name]
        if time == "number":
            if _is_number(raw.type):
                return raw.cast(pa.float64(), safe=False).fill_null(np.nan)
            place = key.rpartition(".")[0]
            expected = f"a number (or `time: timestamp` under {place} in the card, for dates and times)"
            texts, _ = self._texts(piece, name)
            return self._parsed(texts, pl.Float64, name, "the time is not a number", expected).fill_null(np.nan)
        if pa.types.is_temporal(raw.type):
            moments = raw.cast(pa.timestamp("us", tz=getattr(raw.type, "tz", None)), safe=False)
            return pc.divide(moments.cast(pa.int64()).cast(pa.float64()), 1e6).fill_null(np.nan)
        texts, _ = self._texts(piece, name)
        coded = texts.dictionary_encode()
        moments = np.array([*(_moment(text) for text in coded.dictionary.to_pylist()), np.nan])
        times = moments[coded.indices.fill_null(len(moments) - 1).to_numpy(zero_copy_only=False)]
        bad = np.isnan(times) & ~_flags(texts.is_null())
        self._note(bad, name, texts, "is no time", "ISO 8601, for instance 2024-01-31T12:00:00")
        return pa.array(times)


def _within(times: pa.Array, trusted: Trusted) -> pa.Array:
    """Whether the times lie from `since` to below `until`; a missing one does not."""
    values = times.to_numpy(zero_copy_only=False)
    since = -np.inf if trusted.since is None else trusted.since
    until = np.inf if trusted.until is None else trusted.until
    return pa.array((values >= since) & (values < until))


def _is_bytes(kind: pa.DataType) -> bool:
    """Also text, which a Parquet file may hold without being UTF-8."""
    types = pa.types
    views = types.is_binary_view(kind) or types.is_string_view(kind) or types.is_fixed_size_binary(kind)
    return bool(
        views
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
    )


def _flags(mask: pa.Array) -> Flags:
    return np.asarray(mask.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _moment(text: str) -> float:
    try:
        return seconds(text.strip())
    except ValueError:
        return float("nan")


def _some(texts: list[str]) -> str:
    shown = ", ".join(repr(text) for text in texts[:12])
    return f"one of {shown}" + (f" and {len(texts) - 12} more" if len(texts) > 12 else "")
