"""The dataset card: everything that turns one raw table into typed columns, labels, row ids and splits.

A card is a small YAML file. Nothing here reads data, so neither polars nor pyarrow is imported: a chain that finds
its artifacts finished reads only the card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.tables.card_columns import (
    UNLABELLED,
    CategoricalColumn,
    Columns,
    Encoding,
    Label,
    NumericColumn,
    RowId,
    Text,
    repeated,
    with_defaults,
)
from tgeokd_ray.tables.card_damage import Damage, damage_problems
from tgeokd_ray.tables.card_images import image_problems
from tgeokd_ray.tables.card_splits import SPLITS, Splits
from tgeokd_ray.tables.card_yaml import read_yaml
from tgeokd_ray.tables.validation import Grown, Strict, did_you_mean, raise_all, validated

__all__ = [
    "LABEL",
    "RESERVED",
    "ROW",
    "ROW_ID",
    "SPLITS",
    "SPLIT_NAME",
    "TIME",
    "TRUSTED",
    "UNLABELLED",
    "WEIGHT",
    "Card",
    "CategoricalColumn",
    "Format",
    "NumericColumn",
    "load_card",
]

# Columns which the readers add to the card's own; "@" keeps them apart from raw names such as `label` or `time`.
ROW, ROW_ID, LABEL, WEIGHT, TIME = "@row", "@row_id", "@label", "@weight", "@time"
SPLIT_NAME, TRUSTED = "@split_name", "@trusted"
RESERVED = (ROW, ROW_ID, LABEL, WEIGHT, TIME, SPLIT_NAME, TRUSTED)
PACKAGED = Path(__file__).parent / "cards"
# What does not shape the encoded table; `encoding` is laid under the columns already.
_DESCRIPTION = {
    "name",
    "title",
    "files",
    "encoding",
    "defaults",
    "students",
    "terms",
    "publisher",
    "citation",
    "checks",
}
_SEPARATORS = {"csv": ",", "tsv": "\t"}
_QUOTES = {"csv": '"'}


class Format(Strict):
    """How the bytes become columns. `rows`, `seed` and `chunk_rows` belong to `synthetic` only.

    A file without a header row needs `names`, in order. `quote: null` switches quoting off, as it is for tsv unless
    the card says otherwise. Texts in `null_values` mean that a value is missing.
    """

    kind: Literal[
        "csv",
        "tsv",
        "arff",
        "parquet",
        "synthetic",
        "cifar10",
        "cifar100",
        "digits",
        "imagenet16",
        "imagenet32",
        "imagenet64",
    ]
    separator: str | None = None
    header: bool = True
    names: tuple[Text, ...] = ()
    quote: str | None = None
    null_values: tuple[Text, ...] = ("",)
    rows: int | None = Field(default=None, ge=1)
    seed: int = 0
    chunk_rows: int = Field(default=50_000, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _by_kind(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kind = str(data.get("kind"))
        return {"separator": _SEPARATORS.get(kind), "quote": _QUOTES.get(kind), **data}

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        delimited, synthetic = self.kind in _SEPARATORS, self.kind == "synthetic"
        marks = {"separator": self.separator, "quote": self.quote}
        textual = {**marks, "names": self.names, "header": not self.header}
        raise_all(
            [f"kind {self.kind} takes no {key}" for key, value in textual.items() if value and not delimited]
            + [
                f"{k} must be one ASCII character, got {v!r}"
                for k, v in marks.items()
                if v is not None and not _mark(v)
            ]
            + ([f"kind {self.kind} needs a separator"] if delimited and self.separator is None else [])
            + (["quote and separator are the same"] if delimited and self.quote == self.separator else [])
            + (["header: false needs names"] if delimited and not self.header and not self.names else [])
            + (["names are for files without a header row: set header: false"] if self.header and self.names else [])
            + [f"names: {name!r} is there twice" for name in repeated(self.names)]
            + (["kind synthetic needs rows"] if synthetic and self.rows is None else [])
            + (["rows are for kind synthetic"] if self.rows is not None and not synthetic else [])
        )
        return self

    @property
    def makes_rows(self) -> bool:
        """Whether there are no files: the rows are made from a seed, or come with a package."""
        return self.kind in ("synthetic", "digits")


def _mark(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text not in "\r\n\0"


class Checks(Strict):
    """How to tell a whole copy: by pattern of base names, rows of each file, of all, and sha256 when unpacked."""

    rows: dict[str, int] = Field(default_factory=dict)
    total: dict[str, int] = Field(default_factory=dict)
    sha256: dict[str, str] = Field(default_factory=dict)


class Card(Grown):
    """One dataset. Build it with `load_card`; a Card is plain data, frozen, and knows nothing of the files' content."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$")
    title: str = ""
    format: Format
    files: tuple[str, ...] = ()
    row_id: RowId = RowId()
    label: Label
    columns: Columns
    encoding: Encoding = Encoding()
    weight: Text | None = None
    splits: Splits
    damage: Damage | None = None
    defaults: dict[str, Any] = Field(default_factory=dict)
    students: dict[Text, dict[str, Any]] = Field(default_factory=dict)
    terms: str = ""
    publisher: str = ""
    citation: str = ""
    checks: Checks = Checks()

    LATER: ClassVar[tuple[str, ...]] = ("damage",)

    @model_validator(mode="before")
    @classmethod
    def _encoding_under_columns(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "columns" not in data:
            return data
        try:
            Encoding.model_validate(data.get("encoding", {}))
        except ValueError:
            return data | {"columns": with_defaults(data["columns"], {})}  # told once, and not once a column
        return data | {"columns": with_defaults(data["columns"], data.get("encoding", {}))}

    @model_validator(mode="after")
    def _roles_agree(self) -> Self:
        own = {"label.column": self.label.column, "row_id.column": self.row_id.column, "weight": self.weight}
        features, known = (*self.numeric, *self.categorical), self.known_columns
        names, deciding = self.format.names, self.splits.columns
        unnamed = [name for name in known if name not in names and name not in self.columns.ignore] if names else []
        roleless = [name for name in names if name not in known] if self.columns.others == "error" else []
        raise_all(
            [f"{key}: {name!r} cannot be a feature too" for key, name in own.items() if name in features]
            + [f"{k}: {n!r} cannot be ignored" for k, n in own.items() if n in self.columns.ignore]
            + [f"{name!r} has two roles of label, row id and weight" for name in repeated(filter(None, own.values()))]
            + [f"columns: the name {name!r} is reserved" for name in features if name in RESERVED]
            + [
                f"columns.teacher_only: {name!r} is the column of the splits, which the student's card names, too"
                for name in self.teacher_only
                if name in deciding
            ]
            + [f"splits: {n!r} names splits or trust, it cannot be a feature too" for n in self._verdicts & {*features}]
            + [f"splits: a synthetic table has no column {n!r}" for n in deciding if self.format.kind == "synthetic"]
            + [f"column {name!r} is not in format.names{did_you_mean(name, roleless)}" for name in unnamed]
            + [f"format.names: {name!r} has no role; ignore it or name it under columns" for name in roleless]
            + self._image_problems()
            + [f"damage.{problem}" for problem in self.problems_of(self.damage)]
        )
        return self

    def _image_problems(self) -> list[str]:
        label, others = self.label, {"row_id.column": self.row_id.column, "weight": self.weight}
        return image_problems(
            self.format.kind,
            image=self.image,
            label=label.column,
            classes=label.classes,
            mapped=bool(label.mapping),
            others=others,
            splitting=self.splits.columns,
        )

    @property
    def _verdicts(self) -> set[str]:
        """Columns that were made for the splits alone; a time may be a feature as well."""
        splits, trusted = self.splits, self.splits.trusted
        named = [splits.column] if splits.kind == "column" else []
        named += [trusted.column] if trusted is not None and not trusted.is_range else []
        return {name for name in named if name is not None}

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric columns, in order."""
        return tuple(column.name for column in self.columns.numeric)

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical columns, in order."""
        return tuple(column.name for column in self.columns.categorical)

    @property
    def image(self) -> str | None:
        """Name of the column of pixels, where the rows are images."""
        return self.columns.image

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all columns that are encoded."""
        return (*self.numeric, *self.categorical, *((self.image,) if self.image is not None else ()))

    @property
    def teacher_only(self) -> tuple[str, ...]:
        """Names of the features that the teacher alone sees, in the order of the card."""
        return self.columns.teacher_only

    @property
    def known_columns(self) -> tuple[str, ...]:
        """Every raw column that the card names, each once."""
        own = (self.row_id.column, self.label.column, self.weight, *self.splits.columns)
        names = (*self.features, *(name for name in own if name is not None), *self.columns.ignore)
        return tuple(dict.fromkeys(names))

    @property
    def split_rules(self) -> dict[str, Any]:
        """The splits as plain data; a target is a split's name or {split: share} for a hash of row id and salt.

        {"kind": "hash", "salt", "parts": {split: share}}; {"kind": "file", "salt", "files": [[pattern, target], ...]}
        (first match of `fnmatchcase` on the base name wins); {"kind": "time", "salt", "periods": [[until or None,
        target], ...]} (the first period whose `until` is above the row's time); {"kind": "column", "salt", "column"}.
        """
        return self.splits.rules()

    def problems_of(self, damage: Damage | None) -> list[str]:
        """What of this damage does not fit the card."""
        known = {"classes": self.label.classes, "numeric": self.numeric, "categorical": self.categorical}
        return [] if damage is None else damage_problems(damage, **known, trusted=self.splits.trusted)

    def digest_arguments(self) -> dict[str, Any]:
        """Everything in the card that shapes the encoded table, ready for a digest: no texts, defaults or paths."""
        shaping = self.model_dump(mode="json", exclude=_DESCRIPTION)
        shaping["label"].pop("display")
        return shaping


def load_card(source: str | Path) -> Card:
    """The card in a YAML file, or a card of the package by its name (for instance `synthetic_ctr`).

    Paths in `files` are taken relative to the card. ConfigError lists every problem of the card at once.
    """
    path = Path(source)
    packaged = {file.stem: file for file in PACKAGED.glob("*.yaml")}
    if not path.exists():
        if str(source) not in packaged:
            names = ", ".join(sorted(packaged))
            problem = Problem(f"no such card{did_you_mean(str(source), packaged)}", file=str(source))
            raise ConfigError([problem], fix=f"name a YAML file, or a card of the package: {names}")
        path = packaged[str(source)]
    data = read_yaml(path)
    if isinstance(data.get("files"), list):
        data["files"] = [str(path.parent / file) if isinstance(file, str) else file for file in data["files"]]
    return validated(Card, data, str(path))
