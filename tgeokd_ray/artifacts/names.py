"""Names that become paths: nothing a user or a manifest says may leave the folder it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tgeokd_ray.errors import ConfigError, Problem

MANIFEST = "manifest.json"
STAGING = ".staging-"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_VERSION = re.compile(r"v[0-9]{6,12}")


def check_name(name: str) -> str:
    """`name` again if it may name an artifact or a run: 1 to 100 of `A-Za-z0-9._-`, not starting with a dot.

    ConfigError otherwise, so `../x`, `/etc/x`, an empty name and a NUL never reach the file system.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    problem = Problem(
        "this cannot name an artifact",
        expected="1 to 100 of the characters A-Z a-z 0-9 . _ - with no dot at the start",
        got=_shown(name),
    )
    raise ConfigError([problem], fix="choose another --run or name")


def check_file_name(path: str) -> str:
    """`path` again if it may be a file of an artifact: flat, 1 to 200 of `A-Za-z0-9._-`, no leading dot. ConfigError
    otherwise, and for the manifest's own name."""
    if is_file_name(path):
        return path
    problem = Problem(
        "this cannot be a file of an artifact",
        expected=f"1 to 200 of the characters A-Z a-z 0-9 . _ - without folders, and not {MANIFEST}",
        got=_shown(path),
    )
    raise ConfigError([problem])


def is_file_name(path: object) -> bool:
    """True if `path` may be a file of an artifact."""
    return isinstance(path, str) and path != MANIFEST and _FILE.fullmatch(path) is not None


def version_name(number: int) -> str:
    """`v000001` for 1."""
    return f"v{number:06d}"


def version_number(name: str) -> int | None:
    """1 for `v000001`; None for what names no version."""
    if _VERSION.fullmatch(name) is None or version_name(int(name[1:])) != name:
        return None
    return int(name[1:])


def versions(home: Path) -> Iterator[Path]:
    """The version folders of one name, newest first, whether whole or not; none where `home` does not exist."""
    try:
        found = [(number, path) for path in home.iterdir() if (number := version_number(path.name)) is not None]
    except (FileNotFoundError, NotADirectoryError):
        return
    for _, path in sorted(found, reverse=True):
        yield path


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}... ({len(text)} characters)"
