"""The text of a card or a configuration as plain data: YAML without code, aliases or repeated keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tgeokd_ray.errors import ConfigError, Problem

MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """SafeLoader keeps the last of two equal keys and lets aliases multiply a small text; neither is read here."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.value, key.start_mark.line + 1) for key, _ in node.value if isinstance(key.value, str)]
        for index, (key, line) in enumerate(keys):
            if key in [earlier for earlier, _ in keys[:index]]:
                raise _Refused(f"the key {key!r} is there twice", line)
        return super().construct_mapping(node, deep)

    def fetch_alias(self) -> None:
        line = self.line + 1
        raise _Refused(
            "a * begins an alias, which is not read here: write the value out, or put the text in quotes", line
        )


class _Refused(Exception):
    def __init__(self, what: str, line: int) -> None:
        super().__init__(what, line)
        self.what, self.line = what, line


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of at most 1 MiB. ConfigError names the file and, where known, the line."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _Refused("is larger than 1 MiB", 1)
        data = _parsed(content.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError([Problem(f"cannot be read: {error.strerror}", file=str(path))]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([Problem("is not UTF-8 text", file=str(path), line=line)]) from None
    except _Refused as error:
        raise ConfigError([Problem(error.what, file=str(path), line=error.line)], fix=f"correct {path}") from None
    if not isinstance(data, dict):
        raise ConfigError([Problem("must hold keys and values", file=str(path), got=type(data).__name__)])
    return data


def _parsed(text: str) -> Any:
    try:
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise _Refused(f"is not YAML: {what}", mark.line + 1 if mark else 1) from None
    except (RecursionError, ValueError) as error:
        raise _Refused(f"cannot be understood: {error}", 1) from None
