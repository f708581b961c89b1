"""Where and with what an artifact was made: kept in its manifest, outside its digests."""

from __future__ import annotations

import platform
import re
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tgeokd_ray import __version__


def made_here() -> dict[str, Any]:
    """UTC time of creation, host, versions of tgeokd and Python, and the commit of the working folder or None."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "versions": {"tgeokd_ray": __version__, "python": platform.python_version()},
        "commit": git_commit(Path.cwd()),
    }


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out in `folder`, read from its .git without running git; None if it is not plain."""
    git = folder / ".git"
    with suppress(OSError, UnicodeDecodeError):
        head = (git / "HEAD").read_text().strip()
        reference = re.fullmatch(r"ref: (refs/[\w./-]+)", head)
        text = (git / reference[1]).read_text().strip() if reference and ".." not in head else head
        return text if re.fullmatch(r"[0-9a-f]{40,64}", text) else None
    return None
