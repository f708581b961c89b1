"""The quick set, in one table: what needs neither a peer nor Ray. The exit code is 1 where a bar is missed.

python benchmarks/quick.py [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, print_table

HERE = Path(__file__).resolve().parent
SET: dict[str, list[str]] = {
    "train": ["bound", "growth"],
    "bilevel": [],
    "feed": [],
    "encode": [],
    "evaluate": [],
    "scale": ["workers"],
    "method": ["hypergradient", "look_ahead", "phases"],
    "gpu": [],
}


def figures(name: str, measures: list[str]) -> Iterator[Figure]:
    """What one benchmark prints; a figure that says so where it fails."""
    command = [sys.executable, str(HERE / f"{name}.py"), *measures, "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    yield from (Figure(**json.loads(line)) for line in lines)
    missed = any(json.loads(line)["ok"] is False for line in lines)
    if done.returncode and not missed:
        said = done.stderr.strip().splitlines() or ["no output"]
        yield Figure(name, None, "-", "runs", False, context={"reason": said[-1]})


def main() -> None:
    """Run them one after another and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line per figure on stdout")
    options = parser.parse_args()
    began, found = time.monotonic(), []
    for name, measures in SET.items():
        print(f"{time.monotonic() - began:5.0f} s  {name}", file=sys.stderr)
        found += list(figures(name, measures))
    if options.json:
        print(*(json.dumps(vars(figure)) for figure in found), sep="\n")
    else:
        print_table(found)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(any(figure.ok is False for figure in found))


if __name__ == "__main__":
    main()
