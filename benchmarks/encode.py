"""Bar f: pace of encode against FuxiCTR's preprocessing, on one core and two, and memory of counting distinct texts.

python benchmarks/encode.py [peer cores counting] [--quick] [--json]

The peer runs by .venv-peers/bin/python, or by the interpreter that TGEOKD_PEERS names. CPU seconds of whole processes
but for their imports, one thread where the library lets itself be told, in turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import encode_data
from figures import Figure, main

from tgeokd_ray.tables.counting import MAX_HELD

HERE = Path(__file__).resolve().parent
BAR = 5.0
WAYS = ("in_process", "build_dataset")
Facts = dict[str, Any]


def child(python: str, script: str, *arguments: object) -> Facts:
    """The JSON that a script prints last, run in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    path = {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment = {**os.environ, **threads, **(path if python == sys.executable else {})}
    command = [python, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-4000:]}")
    found: Facts = json.loads(done.stdout.splitlines()[-1])
    return found


def ours(files: list[Path], processes: int) -> Facts:
    with tempfile.TemporaryDirectory() as root:
        return child(sys.executable, "encode_ours.py", root, processes, *files)


def fuxictr(python: str, file: Path, how: str) -> Facts:
    with tempfile.TemporaryDirectory() as folder:
        return child(python, "peers/fuxictr_encode.py", file, folder, encode_data.MIN_COUNT, how)


def peers_python() -> str | None:
    """The interpreter of the peers, None where there is none."""
    named = os.environ.get("TGEOKD_PEERS") or str(HERE.parent / ".venv-peers" / "bin" / "python")
    return named if Path(named).exists() else None


def peer(quick: bool) -> Iterator[Figure]:
    """f: rows per CPU-second from the file to encoded rows on disk, over those of FuxiCTR: of its steps in one process,
    and of its build_dataset with the tasks of Ray that it starts (one turn)."""
    python = None if quick else peers_python()
    rows = 100_000 if quick else 1_000_000
    turns: list[Facts] = []
    theirs: dict[str, list[Facts]] = {how: [] for how in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        encode_data.write_table(file, rows)
        for turn in range(1 if quick else 3):
            turns.append(ours([file], 1))
            for how in WAYS[: 1 if turn else 2] if python is not None else ():
                theirs[how].append(fuxictr(python, file, how))
    paces = [rows / mine["cpu_seconds"] for mine in turns]
    context: Facts = {"rows": rows, "stages": turns[0]["stages"]}
    yield Figure("encode.pace", median(paces), "rows per CPU-second", "printed", True, _spread(paces), context)
    for how, found in theirs.items():
        yield _against(how, turns, found, quick)


def _against(how: str, turns: list[Facts], found: list[Facts], quick: bool) -> Figure:
    name, bar = f"encode.pace.vs_fuxictr.{how}", f">= {BAR:g}"
    if not found:
        reason = "no peer in the quick form" if quick else "no peers: make peers, or set TGEOKD_PEERS"
        return Figure(name, None, "ratio", bar, None, context={"reason": reason})
    ratios = [their["cpu_seconds"] / mine["cpu_seconds"] for mine, their in zip(turns, found, strict=False)]
    # Both have the frequent values and two ids more; there a missing value counts as unseen.
    same = all(mine["ids"] == their["ids"] for mine, their in zip(turns, found, strict=False))
    context = {
        "cpu_seconds": [round(mine["cpu_seconds"], 2) for mine in turns],
        "fuxictr_cpu_seconds": [round(their["cpu_seconds"], 2) for their in found],
        "same_vocabularies": same,
    }
    value = median(ratios)
    return Figure(name, value, "ratio", bar, value >= BAR and same, _spread(ratios), context)


def cores(quick: bool) -> Iterator[Figure]:
    """Rows per CPU-second, and wall time, of one process and of a pool of two, on four files."""
    rows, files = (100_000 if quick else 1_000_000), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(4):
            files.append(Path(folder) / f"rows-{number}.csv")
            encode_data.write_table(files[-1], rows // 4, seed=number)
        turns = [(ours(files, 1), ours(files, 2)) for _ in range(1 if quick else 3)]
    for place, name in enumerate(("one", "two")):
        paces = [rows / turn[place]["cpu_seconds"] for turn in turns]
        context = {"rows": rows, "wall_stages": turns[0][place]["stages"]}
        unit = "rows per CPU-second"
        yield Figure(f"encode.{name}_core.pace", median(paces), unit, "printed", True, _spread(paces), context)
    speedups = [one["wall_seconds"] / two["wall_seconds"] for one, two in turns]
    same = all(one["digest"] == two["digest"] for one, two in turns)
    context = {"same_digest": same}
    yield Figure("encode.two_cores.speedup", median(speedups), "ratio", "printed", same, _spread(speedups), context)


def counting(quick: bool) -> Iterator[Figure]:
    """Peak memory of counting ten times as many distinct texts, and whether the counts are exact.

    One text in 16 is frequent enough to be kept.
    """
    sizes, held = ((200_000, 2_000_000), 1 << 17) if quick else ((2_000_000, 20_000_000), MAX_HELD // 4)
    small, large = (child(sys.executable, "encode_counting.py", size, held) for size in sizes)
    growth = large["peak_mib"] / small["peak_mib"]
    pace = sizes[1] / large["cpu_seconds"]
    context = {"distinct": sizes, "held": held, "peak_mib": [round(one["peak_mib"], 1) for one in (small, large)]}
    yield Figure("encode.counting.growth", growth, "ratio for 10 x", "<= 1.5", growth <= 1.5, context=context)
    wrong = sum(abs(one["kept"] - one["expected"]) for one in (small, large))
    yield Figure("encode.counting.wrong", wrong, "values", "== 0", wrong == 0, context={"kept": large["kept"]})
    yield Figure("encode.counting.pace", pace, "distinct texts per CPU-second", "printed", True)


def _spread(values: list[float]) -> list[float]:
    return [min(values), max(values)]


if __name__ == "__main__":
    main(__doc__ or "", {"peer": peer, "cores": cores, "counting": counting})
