"""Several values behind one option, which the parser of options does not know."""

from __future__ import annotations

from collections.abc import Sequence

REPEATED = "--data"


def spread(argv: Sequence[str]) -> list[str]:
    """`--data A B` as `--data A --data B`; a word that starts with a dash ends the list."""
    result: list[str] = []
    values = -1  # how many values the current --data has had; -1 outside of one
    for word in argv:
        if word.startswith("-"):
            values = 0 if word == REPEATED else -1
        elif values >= 0:
            if values:
                result.append(REPEATED)
            values += 1
        result.append(word)
    return result
