"""Two views of one table: what the student sees, and the columns that the teacher alone sees beside it.

N rows. A table without such columns has the student's view only, and everything here leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.artifacts import read_json
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.encoders import Encoder

Numeric: TypeAlias = NDArray[Any]  # float32; of images uint8
Categorical: TypeAlias = NDArray[np.int32]

ENCODER, CARD = "encoder.json", "card.json"
# What a table with teacher-only columns holds besides: the encoder of those, and the card without them.
TEACHER_ENCODER, STUDENT_CARD = "teacher_encoder.json", "student_card.json"
ENCODER_BYTES = 1 << 31
# Not in the table's card: texts, and paths and defaults that differ between users of the same table.
_NOT_KEPT = {"title", "files", "defaults", "terms", "publisher", "citation", "checks"}


@dataclass(frozen=True)
class Encoders:
    """The encoder of a table in two parts; the student's ids come first in the fused space, so its view is a prefix.

    `student.num_ids` is where its ids end, `teacher_only.num_ids` where all end. A space that both parts use is one of
    the student's.
    """

    student: Encoder
    teacher_only: Encoder | None = None

    @classmethod
    def of(cls, encoder: Encoder, names: Sequence[str]) -> Encoders:
        """`encoder`, whose spaces are in the order of `fit_encoder`, cut at the columns called `names`."""
        if not names:
            return cls(encoder)
        student, teacher_only = (
            (
                tuple(column for column in encoder.numeric if (column.name in names) == there),
                tuple(item for item in encoder.categorical if (item[0] in names) == there),
            )
            for there in (False, True)
        )
        num_ids = max((space.offset + space.size for _, space in student[1]), default=0)
        return cls(Encoder(*student, num_ids), Encoder(*teacher_only, encoder.num_ids))

    @property
    def parts(self) -> tuple[Encoder, ...]:
        """The student's encoder, then that of the teacher-only columns if there are any."""
        return (self.student,) if self.teacher_only is None else (self.student, self.teacher_only)

    @property
    def num_ids(self) -> int:
        """Ids of the fused space in all."""
        return self.parts[-1].num_ids

    def transform(self, frame: pa.Table) -> tuple[Numeric, Categorical]:
        """(numeric, categorical) of all columns, the student's first: what the model of a whole view takes."""
        numeric, categorical = zip(*(part.transform(frame) for part in self.parts), strict=True)
        return np.concatenate(numeric, axis=1), np.concatenate(categorical, axis=1)

    @classmethod
    def read(cls, files: Sequence[Path]) -> Encoders:
        """The encoders in the files that `encoder_files` names, in that order; IntegrityError for anything else."""
        return cls(*(Encoder.from_json(read_json(file, limit=ENCODER_BYTES)) for file in files))


def encoder_files(card: Card) -> tuple[str, ...]:
    """The files with the encoders of all columns of `card`, in a table, or in a model that was made by this card."""
    return (ENCODER, TEACHER_ENCODER) if card.teacher_only else (ENCODER,)


def columns_schema(encoders: Encoders) -> dict[str, Any]:
    """What the manifest of a table says about its columns; `teacher_only` is there where such columns are.

    Names and spaces are those of the two lists of shard columns; `num_ids` beside them counts the ids of that view. Of
    images, whose pixels stand in the list `numeric`, `image` says shape and scale.
    """
    views = [
        {"numeric": list(part.numeric_names), "categorical": part.categorical_spaces, "num_ids": part.num_ids}
        for part in encoders.parts
    ]
    image = encoders.student.image
    shown = {} if image is None else {"image": image.facts}
    return views[0] | ({"teacher_only": views[1]} if len(views) > 1 else {}) | shown


def card_files(card: Card) -> dict[str, Any]:
    """The card as a table keeps it, by the name of its file; where it has teacher-only columns, also without them."""
    kept = card.model_dump(mode="json", exclude=_NOT_KEPT)
    return {CARD: kept} | ({STUDENT_CARD: _reduced(kept)} if card.teacher_only else {})


def _reduced(kept: dict[str, Any]) -> dict[str, Any]:
    """The student's card. A file may have the other columns or not: with a header they are among the `others`, without
    one they keep their place under names that say nothing."""
    columns = dict(kept["columns"])
    names = columns.pop("teacher_only")
    for role in ("numeric", "categorical"):
        columns[role] = [column for column in columns[role] if column["name"] not in names]
    in_order = kept["format"]["names"]
    free = (name for name in map("unseen_{}".format, count()) if name not in in_order)
    hidden = {name: next(free) for name in in_order if name in names}
    columns |= {"ignore": [*columns["ignore"], *hidden.values()], "others": "ignore"}
    form = kept["format"] | {"names": [hidden.get(name, name) for name in in_order]}
    reduced = Card.model_validate(kept | {"columns": columns, "format": form})
    return reduced.model_dump(mode="json", exclude=_NOT_KEPT)
