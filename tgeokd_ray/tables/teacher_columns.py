"""Which columns of a file hold what a teacher from elsewhere says of each row: logits, probabilities or one score.

C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.tables.findings import file_error
from tgeokd_ray.tables.validation import did_you_mean

Kind = Literal["logits", "probabilities", "score"]

ROW_ID = "row_id"
PREFIXES: dict[str, str] = {"logits": "logit_", "probabilities": "probability_"}
BESIDE = {ROW_ID, "split", "fold", "label", "weight"}  # what may stand beside columns that bear the bare class names
FORMS = "a list column `logits` or `probabilities`, logit_CLASS or probability_CLASS for every class, or `score`"
FIX = "correct the file: tgeokd import-logits --help says which columns it may have"


@dataclass(frozen=True)
class Header:
    """The columns of a file, those of them that hold lists, and the classes that its metadata names, as written."""

    path: Path
    names: tuple[str, ...]
    lists: frozenset[str] = frozenset()
    classes: str | None = None


@dataclass(frozen=True)
class Form:
    """Where the values lie: `kind` says what they are; `columns` is one list column, one column per class in the
    table's order, or one score; `places` [C] says where in a list the table's classes stand."""

    kind: Kind
    shape: Literal["list", "classes", "score"]
    columns: tuple[str, ...]
    places: tuple[int, ...] = ()


def find_form(header: Header, classes: Sequence[str], kind: Kind | None) -> Form:
    """The columns to read; logits are preferred where there are probabilities, too, as in what `tgeokd predict` writes.

    A `score` is the probability of the class that is not the negative one, or by kind `logits` its log-odds.
    ConfigError where only `kind` can tell what the values are, DataError with all that is wrong with names and classes.
    """
    problems = [Problem("the file has this column twice", str(header.path), n) for n, k in _counts(header) if k > 1]
    if ROW_ID not in header.names:
        near = did_you_mean(ROW_ID, header.names)
        problems.append(Problem(f"the file lacks this column{near}", str(header.path), ROW_ID))
    form = _named(header, classes, kind, problems) or _score(header, classes, kind, problems)
    form = form or _bare(header, classes, kind, problems)
    if form is None and not problems:
        asked = FORMS if kind is None else f"columns of {kind} (--kind)"
        got = ", ".join(map(repr, header.names[:12])) + (", ..." if len(header.names) > 12 else "")
        problems.append(Problem("no column holds what a teacher says", str(header.path), expected=asked, got=got))
    if problems or form is None:
        raise file_error(problems, fix=FIX)
    return form


def _counts(header: Header) -> list[tuple[str, int]]:
    return list(Counter(header.names).items())


def _named(header: Header, classes: Sequence[str], kind: Kind | None, problems: list[Problem]) -> Form | None:
    """A list column, or prefixed columns, of the kind asked for; of both where none is asked for."""
    kinds: list[Literal["logits", "probabilities"]] = ["logits", "probabilities"]
    for one in kinds:
        if kind not in (None, one):
            continue
        if one in header.lists:
            return Form(one, "list", (one,), _places(header, classes, problems))
        prefixed = [name for name in header.names if name.startswith(PREFIXES[one])]
        if prefixed:
            return Form(one, "classes", _per_class(header, classes, PREFIXES[one], prefixed, problems))
        if one in header.names and one not in classes:
            what = f"is no column of lists: write one column per class, {PREFIXES[one]}CLASS"
            problems.append(Problem(what, str(header.path), one))
            return None
    return None


def _score(header: Header, classes: Sequence[str], kind: Kind | None, problems: list[Problem]) -> Form | None:
    if "score" not in header.names or problems:
        return None
    if len(classes) != 2:
        what = f"one score says nothing of {len(classes)} classes: write one column per class"
        problems.append(Problem(what, str(header.path), "score"))
        return None
    return Form("logits" if kind == "logits" else "probabilities", "score", ("score",))


def _bare(header: Header, classes: Sequence[str], kind: Kind | None, problems: list[Problem]) -> Form | None:
    """Columns that bear the names of the classes: only the kind can tell what they hold."""
    found = [name for name in header.names if name in classes]
    if not found or problems or kind == "score":
        return None
    if kind is None:
        got = ", ".join(map(repr, found[:6])) + (", ..." if len(found) > 6 else "")
        problem = Problem("the columns do not say what they hold", str(header.path), got=got)
        raise ConfigError([problem], fix="say it: --kind probabilities, or --kind logits")
    others = [name for name in header.names if name not in BESIDE]
    return Form(kind, "classes", _per_class(header, classes, "", others, problems))


def _per_class(
    header: Header, classes: Sequence[str], prefix: str, found: Sequence[str], problems: list[Problem]
) -> tuple[str, ...]:
    """The columns in the order of the classes; a problem for each that is missing, and for each of no class."""
    wanted = [prefix + name for name in classes]
    strange = [name for name in dict.fromkeys(found) if name not in wanted]
    for name in wanted:
        if name not in found:
            near = did_you_mean(name, strange)
            problems.append(Problem(f"the file lacks the column of this class{near}", str(header.path), name))
    for name in strange:
        near = did_you_mean(name, wanted)
        problems.append(Problem(f"is the column of no class of the table{near}", str(header.path), name))
    return tuple(wanted)


def _places(header: Header, classes: Sequence[str], problems: list[Problem]) -> tuple[int, ...]:
    """By the classes that the file's metadata names, in their order there; those of the table where it names none."""
    if header.classes is None or header.classes == ",".join(classes):
        return tuple(range(len(classes)))
    told = header.classes.split(",")
    if sorted(told) == sorted(classes):
        return tuple(told.index(name) for name in classes)
    lacking = [f"lack the class {name!r}{did_you_mean(name, told)}" for name in classes if name not in told]
    strange = [
        f"name {name!r}, which is no class of the table{did_you_mean(name, classes)}"
        for name in dict.fromkeys(told)
        if name not in classes
    ]
    wrong = lacking + strange or [f"name {name!r} twice" for name, n in Counter(told).items() if n > 1]
    problems += [Problem(f"the file's metadata {what}", str(header.path)) for what in wrong]
    return ()
