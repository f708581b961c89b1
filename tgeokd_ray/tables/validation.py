"""Plain data against a pydantic model: every problem in one ConfigError, with "did you mean" for unknown keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from tgeokd_ray.errors import ConfigError, Problem

SHOWN_VALUE = 60


class Strict(BaseModel):
    """A frozen model without room for unknown keys, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Grown(Strict):
    """A model to which the keys `LATER` were added: data without them is written, and digested, as it was before."""

    LATER: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        unused = {name for name in self.LATER if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in data.items() if name not in unused}


class Problems(ValueError):
    """Several things wrong in one model, raised by a validator; `validated` lists them one by one."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)


def raise_all(messages: Iterable[str]) -> None:
    """Raise `Problems` if there are any messages."""
    found = list(messages)
    if found:
        raise Problems(found)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or an empty text when none is close."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


_Model = TypeVar("_Model", bound=BaseModel)


def validated(model: type[_Model], data: Any, source: str) -> _Model:
    """`data` as an instance of `model`. ConfigError lists every problem, each with its path in `source`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [Problem(text, file=source) for _, text in problems_of(model, error)]
        raise ConfigError(problems, fix=f"correct {source}", total=len(problems)) from None


def problems_of(model: type[BaseModel], error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """(path of the key, what is wrong with it) of everything that pydantic found, each as one line."""
    return [(tuple(item["loc"]), text) for item in error.errors() for text in _texts(model, item)]


def _texts(model: type[BaseModel], item: Mapping[str, Any]) -> list[str]:
    """The problems behind one pydantic error, in the form `student.temperature must be > 0, got 0`."""
    loc, kind = tuple(item["loc"]), item["type"]
    path = ".".join(str(part) for part in loc)
    if kind == "extra_forbidden":
        where = f" in {'.'.join(str(part) for part in loc[:-1])}" if loc[:-1] else ""
        return [f"unknown key {loc[-1]!r}{where}{did_you_mean(str(loc[-1]), _keys_at(model, loc[:-1]))}"]
    if kind == "missing":
        return [f"{path} is missing"]
    error = item.get("ctx", {}).get("error")
    if isinstance(error, ValueError):
        messages = error.messages if isinstance(error, Problems) else (str(error),)
        return [f"{path}: {message}" if path else message for message in messages]
    message = str(item["msg"]).replace("Input should be", "must be", 1)
    return [f"{path} {message}, got {_shown(item['input'])}"]


def _keys_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The keys which the model at this path of an error knows."""
    current: Any = model
    for part in (part for part in loc if isinstance(part, str)):  # numbers are places in a list
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = None if field is None else _model_inside(field.annotation)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as `tuple[Model, ...]` or `Model | None` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_inside(part))), None)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_VALUE else text[: SHOWN_VALUE - 3] + "..."
