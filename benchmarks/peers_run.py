"""Runs a script of benchmarks/peers/ in a process of its own, in the peers' environment, and returns what it found.

The interpreter is TGEOKD_PEERS where it is set, else `.venv-peers/bin/python` of the repository (`make peers`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True)
class Absent:
    """Why there is no figure of a peer."""

    reason: str


def interpreter() -> Path | Absent:
    """The peers' interpreter; Absent, with the way to one, where there is none."""
    named = os.environ.get("TGEOKD_PEERS")
    found = Path(named) if named else REPOSITORY / ".venv-peers" / "bin" / "python"
    if found.is_file():
        return found
    return Absent(f"no interpreter of the peers at {found}: `make peers`, or set TGEOKD_PEERS")


def run(script: str, *arguments: object, timeout: float = 900, python: Path | None = None) -> dict[str, Any] | Absent:
    """The line of JSON that `script` prints, run by `python` (default: the peers' interpreter).

    Absent, with the reason, where there is no interpreter, a module is not installed there, the script exits with an
    error or without such a line, or `timeout` seconds of wall clock pass. `script` is a name in benchmarks/peers/.
    """
    found = interpreter() if python is None else python
    if isinstance(found, Absent):
        return found
    command = [str(found), str(SCRIPTS / script), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Absent(f"{script} took more than {timeout:g} s")
    if done.returncode:
        return Absent(_reason(script, found, done))
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]  # libraries print lines of their own
    if not lines:
        return Absent(f"{script} printed no line of JSON")
    found_line: dict[str, Any] = json.loads(lines[-1])
    return found_line


def _reason(script: str, python: Path, done: subprocess.CompletedProcess[str]) -> str:
    module = re.search(r"^ModuleNotFoundError: No module named '([^']+)'", done.stderr, re.MULTILINE)
    if module:
        return f"{module[1]} is not installed for {python}: `make peers`"
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return f"{script} exited with {done.returncode}: {last}"
