"""How teacher logits lie in a shard: all of a row or the k largest, in float32, float16 or bfloat16.

N rows, C classes, k kept. Temperature is never baked in: what is read back are logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.errors import SHOWN, ConfigError, IntegrityError, Problem
from tgeokd_ray.feed.arrow import flat, listed, lists, viewed, whole
from tgeokd_ray.feed.parquet import REMAKE

Floats: TypeAlias = NDArray[np.float32]

# Arrow has no bfloat16: its bits are stored as whole numbers.
TYPES = {"float32": pa.float32(), "float16": pa.float16(), "bfloat16": pa.uint16()}
# Largest error of rounding to nearest: relative to the value, and absolute where the value is subnormal.
ROUNDING = {"float32": (0.0, 0.0), "float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}


@dataclass(frozen=True)
class Storage:
    """`dtype` of the stored logits, and `top_k` of them per row or None for all.

    With `top_k` a shard also holds the log of the summed exponentials of the others (`rest`); reading spreads that
    mass over them evenly, so that at temperature 1 the kept classes have their exact probabilities.
    """

    dtype: str = "float32"
    top_k: int | None = None

    def check(self, num_classes: int) -> None:
        """ConfigError unless this can hold rows of `num_classes` logits."""
        problems = []
        if self.dtype not in TYPES:
            problems.append(Problem("logits.dtype", expected=f"one of {', '.join(TYPES)}", got=str(self.dtype)))
        if self.top_k is not None and not 1 <= self.top_k < num_classes:
            got = f"{self.top_k} of {num_classes} classes"
            problems.append(Problem("logits.top_k", expected="at least 1, and fewer than all classes", got=got))
        if problems:
            raise ConfigError(problems, fix="correct this and run the same command again")

    @property
    def exact(self) -> bool:
        """Whether what is read is what was written."""
        return self.dtype == "float32" and self.top_k is None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a shard that hold the logits."""
        return ("logits",) if self.top_k is None else ("logits", "classes", "rest")

    def rounding_bound(self, largest: float) -> float:
        """The largest error that rounding may give a stored logit of absolute value `largest` or less."""
        relative, absolute = ROUNDING[self.dtype]
        return max(relative * largest, absolute)

    def encode(self, logits: Floats) -> dict[str, pa.Array]:
        """The columns of rows of logits [N, C]; what is too large for the type becomes infinite."""
        if self.top_k is None:
            return {"logits": lists(self._narrow(logits))}
        classes = np.argsort(-logits, axis=1, kind="stable")[:, : self.top_k]
        others = logits.astype(np.float64)
        np.put_along_axis(others, classes, -np.inf, axis=1)
        return {
            "logits": lists(self._narrow(np.take_along_axis(logits, classes, axis=1))),
            "classes": lists(classes.astype(_class_type(logits.shape[1]).to_pandas_dtype())),
            "rest": flat(_log_sum(others).astype(np.float32)),
        }

    def decode(self, table: pa.Table, path: Path, num_classes: int) -> Floats:
        """Logits [N, C] of the rows of a shard, a view of Arrow's memory where they were stored whole in float32.

        IntegrityError, with the rows, for another type or width, a null, a value that is not finite, and a class that
        there is not.
        """
        kept = self.top_k or num_classes
        stored = fixed_lists(table.column("logits"), TYPES[self.dtype], kept, path, "logits")
        values = self.widen(stored)
        _check_rows(np.isfinite(values).all(axis=1), values, path, "logits", "not finite")
        if self.top_k is None:
            return values
        classes = fixed_lists(table.column("classes"), _class_type(num_classes), kept, path, "classes").astype(np.int64)
        _check_rows((classes < num_classes).all(axis=1), classes, path, "classes", f"there are {num_classes} classes")
        rest = table.column("rest").to_numpy().astype(np.float32)
        _check_rows(np.isfinite(rest), rest, path, "rest", "not finite")
        spread = np.repeat((rest - np.log(num_classes - kept)).astype(np.float32)[:, None], num_classes, axis=1)
        np.put_along_axis(spread, classes, values, axis=1)
        return spread

    def round_trip(self, logits: Floats) -> Floats:
        """What a student will read of these logits [N, C], which must fit the type."""
        return logits if self.exact else self.decode(pa.table(self.encode(logits)), Path(), logits.shape[1])

    def to_json(self) -> dict[str, Any]:
        """For an artifact's arguments and schema."""
        return {"dtype": self.dtype, "top_k": self.top_k}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Storage:
        return cls(facts["dtype"], facts["top_k"])

    def widen(self, values: NDArray[Any]) -> Floats:
        """Stored values as float32, whatever they are."""
        if self.dtype == "bfloat16":
            return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return values.astype(np.float32, copy=False)

    def _narrow(self, values: Floats) -> NDArray[Any]:
        if self.dtype == "float16":
            with np.errstate(over="ignore"):
                return values.astype(np.float16)
        if self.dtype == "bfloat16":  # to nearest, ties to even
            bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
            return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
                np.uint16
            )
        return values


def fixed_lists(column: pa.ChunkedArray, value: pa.DataType, width: int, path: Path, name: str) -> NDArray[Any]:
    """The values [N, width] of a column of lists, without a copy where it is one piece; IntegrityError otherwise."""
    array, expected = whole(column), pa.list_(value, width)
    fixed = pa.types.is_fixed_size_list(array.type)
    if not (fixed and array.type.list_size == width and array.type.value_type == value):
        problem = Problem("wrong type", str(path), name, expected=str(expected), got=str(array.type))
        raise IntegrityError([problem], fix=REMAKE)
    stored = listed(array)
    if array.null_count or stored.null_count:
        raise IntegrityError([Problem("a value is missing (null)", str(path), name)], fix=REMAKE)
    return viewed(stored).reshape(-1, width)


def _check_rows(fine: Any, values: NDArray[Any], path: Path, column: str, what: str) -> None:
    bad = np.flatnonzero(~np.asarray(fine))
    if len(bad):
        shown = [Problem(what, str(path), column, int(k) + 1, got=str(values[k].tolist())) for k in bad[:SHOWN]]
        raise IntegrityError(shown, fix="train the teacher again and run tgeokd precompute", total=len(bad))


def _class_type(num_classes: int) -> pa.DataType:
    return pa.uint16() if num_classes <= 1 << 16 else pa.uint32()


def _log_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """log sum exp over the last axis, in which not all are minus infinity."""
    largest = values.max(axis=1, keepdims=True)
    total: NDArray[np.float64] = np.log(np.exp(values - largest).sum(axis=1)) + largest[:, 0]
    return total
