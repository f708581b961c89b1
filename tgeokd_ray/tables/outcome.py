"""What a mapped task gives back: its value, or a UserError as a value, so that no engine has to carry exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import ParamSpec, TypeAlias, TypeVar

from tgeokd_ray.errors import UserError

Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")
Outcome: TypeAlias = Value | UserError


def returning_errors(function: Callable[Arguments, Value]) -> Callable[Arguments, Outcome[Value]]:
    """`function`, except that a UserError is returned and not raised; every other exception passes."""

    @wraps(function)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Outcome[Value]:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            return error

    return guarded


def values(outcomes: Iterable[Outcome[Value]]) -> Iterator[Value]:
    """The values one by one; the first UserError is raised."""
    for outcome in outcomes:
        if isinstance(outcome, UserError):
            raise outcome
        yield outcome


def raise_together(errors: Iterable[UserError]) -> None:
    """Raise one error with the problems of all that are of the first one's kind; nothing if there are none."""
    found = list(errors)
    if found:
        alike = [error for error in found if type(error) is type(found[0])]
        problems = [problem for error in alike for problem in error.problems]
        raise type(found[0])(problems, fix=found[0].fix, total=sum(error.total for error in alike))
