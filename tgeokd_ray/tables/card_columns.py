"""The parts of a dataset card that speak of columns: label, numbers, categories, row ids."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tgeokd_ray.tables.validation import Grown, Strict, did_you_mean, raise_all

UNLABELLED = -1  # the class index of a row without a label
MOST = 100_000  # classes that a card counts; far more than a student can tell apart


def _text(value: Any) -> Any:
    """YAML reads 0 as a number and `no` as False: a number is taken as its text, a boolean is ambiguous."""
    if isinstance(value, bool):
        raise ValueError(f"YAML reads this as {value}; put the text in quotes")
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_text)]


class RowId(Strict):
    """Where row ids come from: the place in the raw files, or a column of whole numbers or of text."""

    kind: Literal["file_row", "column"] = "file_row"
    column: Text | None = None
    type: Literal["int", "text"] = "int"

    @model_validator(mode="after")
    def _column_if_needed(self) -> Self:
        given, needed = self.column is not None, self.kind == "column"
        raise_all([f"kind {self.kind} {'needs a' if needed else 'takes no'} column"] if given != needed else [])
        return self


class Label(Grown):
    """The ordered classes and the raw texts that mean each of them; a class without texts is its own text.

    `classes` may be written as {from: 1, to: 1000}, `mapping` as {class: [texts]} or {text: class}. `display` holds
    names for reports. With `missing: distill` a train row whose label is empty, or one of the texts `unlabelled`,
    learns from the teachers alone.
    """

    column: Text
    classes: tuple[Text, ...] = Field(min_length=2)
    mapping: dict[Text, tuple[Text, ...]] = Field(default_factory=dict)
    negative: Text | None = None
    display: dict[Text, Text] = Field(default_factory=dict)
    missing: Literal["error", "distill"] = "error"
    unlabelled: tuple[Text, ...] = ()

    LATER: ClassVar[tuple[str, ...]] = ("missing", "unlabelled")

    @field_validator("classes", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        first, last = value.get("from"), value.get("to")
        if len(value) == 2 and type(first) is type(last) is int and 0 < last - first < MOST:
            return tuple(str(number) for number in range(first, last + 1))
        raise ValueError(f"must be a list of names, or {{from: 1, to: 1000}} with at most {MOST} classes, got {value}")

    @field_validator("mapping", mode="before")
    @classmethod
    def _by_class(cls, value: Any) -> Any:
        if not isinstance(value, dict) or any(isinstance(item, list | tuple) for item in value.values()):
            return value
        turned: dict[Any, list[Any]] = {}
        for text, name in value.items():
            turned.setdefault(_text(name), []).append(text)
        return turned

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        negative = () if self.negative is None else (self.negative,)
        named = {"mapping": tuple(self.mapping), "display": tuple(self.display), "negative": negative}
        strange = [(key, name) for key, names in named.items() for name in names if name not in self.classes]
        texts = Counter(text for name in self.classes for text in self.mapping.get(name, (name,)))
        raise_all(
            [f"{key}: {name!r} is not a class{did_you_mean(name, self.classes)}" for key, name in strange]
            + [f"class {name!r} is listed twice" for name in repeated(self.classes)]
            + [f"text {text!r} means more than one class" for text, n in texts.items() if n > 1 and not strange]
            + [f"unlabelled: text {text!r} means a class" for text in self.unlabelled if text in texts]
            + (["unlabelled needs missing: distill"] if self.unlabelled and self.missing == "error" else [])
        )
        return self

    @property
    def texts(self) -> dict[str, int]:
        """Class index of every raw text that is allowed, -1 for those of no label."""
        known = {t: i for i, name in enumerate(self.classes) for t in self.mapping.get(name, (name,))}
        return known | dict.fromkeys(self.unlabelled, UNLABELLED)

    @property
    def negative_index(self) -> int:
        """Index of the class that means "nothing happened"; the first one unless the card says otherwise."""
        return 0 if self.negative is None else self.classes.index(self.negative)


class NumericOptions(Strict):
    """How a number is encoded; `nan` and `inf` say what to do with values that are not finite."""

    kind: Literal["log1p", "quantile", "standard", "as_is"] = "log1p"
    missing_flag: bool = True
    nan: Literal["missing", "error"] = "missing"
    inf: Literal["missing", "clip", "error"] = "error"


class NumericColumn(NumericOptions):
    """One numeric column."""

    name: Text


class CategoricalOptions(Strict):
    """How a text taken from a set is encoded; rarer values than `min_count` share the id of unseen ones.

    `buckets` hashes an unbounded column; columns of the same `shared` name use one id space.
    """

    min_count: int = Field(default=1, ge=1)
    buckets: int | None = Field(default=None, ge=1, le=1 << 28)
    shared: Text | None = None


class CategoricalColumn(CategoricalOptions):
    """One categorical column."""

    name: Text


class Encoding(Strict):
    """What the columns use where they say nothing themselves."""

    numeric: NumericOptions = NumericOptions()
    categorical: CategoricalOptions = CategoricalOptions()


class Columns(Grown):
    """The role of every raw column; `others` says what to do with columns that the card does not name.

    `image` names the column of pixels in a format that has images; such a table has no other features.

    `teacher_only` names features that the teacher alone sees: what is known of a row once it is past, and not yet when
    a student is asked.
    """

    numeric: tuple[NumericColumn, ...] = ()
    categorical: tuple[CategoricalColumn, ...] = ()
    teacher_only: tuple[Text, ...] = ()
    image: Text | None = None
    ignore: tuple[Text, ...] = ()
    others: Literal["error", "ignore"] = "error"

    LATER: ClassVar[tuple[str, ...]] = ("teacher_only", "image")

    @model_validator(mode="after")
    def _one_role_each(self) -> Self:
        features = [*(column.name for column in self.numeric), *(column.name for column in self.categorical)]
        spaces = {(c.shared, c.min_count, c.buckets) for c in self.categorical if c.shared is not None}
        raise_all(
            [f"column {name!r} is named twice" for name in repeated([*features, *self.ignore])]
            + ([] if features or self.image else ["there is neither a numeric nor a categorical column, nor an image"])
            + (["image: a table of images has no other features"] if features and self.image else [])
            + [
                f"columns that share {n!r} need the same min_count and buckets"
                for n in repeated(shared for shared, *_ in spaces)
            ]
            + self._teacher_only_problems(features)
        )
        return self

    def _teacher_only_problems(self, features: list[str]) -> list[str]:
        strange = [name for name in self.teacher_only if name not in features]
        blind = bool(features) and set(features) <= set(self.teacher_only)
        return (
            [f"teacher_only: {n!r} is neither numeric nor categorical{did_you_mean(n, features)}" for n in strange]
            + [f"teacher_only: {name!r} is there twice" for name in repeated(self.teacher_only)]
            + (["teacher_only: names every feature; the student needs at least one"] if blind else [])
        )


def repeated(names: Any) -> list[Any]:
    """What occurs more than once, in order."""
    return [name for name, count in Counter(names).items() if count > 1]


def with_defaults(columns: Any, encoding: Any) -> Any:
    """The raw `columns` of a card with the raw `encoding` laid under each entry; what is malformed stays as it is."""
    if not isinstance(columns, dict) or not isinstance(encoding, dict):
        return columns
    laid = dict(columns)
    for role in ("numeric", "categorical"):
        below, entries = encoding.get(role) or {}, columns.get(role)
        if isinstance(entries, list | tuple) and isinstance(below, dict):
            named = [entry if isinstance(entry, dict) else {"name": entry} for entry in entries]
            laid[role] = [{**below, **entry} for entry in named]
    return laid
