"""Figures of the spine: same numbers with and without Ray, re-use, memory of encode, start-up and imports.

python benchmarks/spine.py [parity workers reuse kills encode imports] [--quick] [--json]
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from figures import Figure, main
from watch import Watch, descendants

REPOSITORY = Path(__file__).resolve().parent.parent
JOB = [sys.executable, str(REPOSITORY / "jobs" / "ctr_distill.py")]
FIGURES = ("auc", "nll", "accuracy", "macro_f1")


def job(root: Path, *options: str) -> tuple[dict[str, Any], float, str]:
    """results.json of a job, its wall seconds and its stderr."""
    began = time.monotonic()
    done = subprocess.run(
        [*JOB, "--root", str(root), "--json", *options], capture_output=True, text=True, timeout=1800, check=False
    )
    if done.returncode:
        raise SystemExit(f"the job failed with {done.returncode}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout), time.monotonic() - began, done.stderr


def parity(quick: bool) -> Iterator[Figure]:
    """d: `--local` against Ray with one worker: every figure of every model to the last digit, and the same digests."""
    options = ["--quick"] if quick else []
    with tempfile.TemporaryDirectory() as folder:
        local, _, _ = job(Path(folder) / "local", "--local", *options)
        ray, _, _ = job(Path(folder) / "ray", *options)
    pairs = [(a, b) for a, b in zip(local["models"], ray["models"], strict=True)]
    differing = [f"{a['name']}.{key}" for a, b in pairs for key in (*FIGURES, "digest", "history") if a[key] != b[key]]
    context = {"models": [a["name"] for a, _ in pairs], "differing": differing}
    yield Figure("spine.local_vs_ray.differing", len(differing), "figures", "== 0", not differing, context=context)


def workers(quick: bool) -> Iterator[Figure]:
    """d: 50 bilevel steps with centring on two workers of a Ray Train group against one, float32 and float64."""
    del quick
    for precision, bar in (("fp32", 1e-5), ("fp64", 1e-12)):
        done = subprocess.run(
            [sys.executable, "-c", f"from spine_workers import main; main({precision!r})"],
            cwd=REPOSITORY / "benchmarks",
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr[-4000:])
        facts = json.loads(done.stdout.splitlines()[-1])
        ok = facts["difference"] <= bar and facts["steps"] >= 50
        yield Figure(
            f"spine.two_workers.{precision}", facts["difference"], "max abs", f"<= {bar:g}", ok, facts["by_seed"], facts
        )


def reuse(quick: bool) -> Iterator[Figure]:
    """e: the same command twice; the second imports neither ray nor torch and says what it re-used."""
    del quick
    with tempfile.TemporaryDirectory() as folder:
        job(Path(folder), "--quick", "--local")
        script = (
            "import sys, runpy, atexit\n"
            "atexit.register(lambda: print('LOADED', sorted({'ray','torch'} & set(sys.modules)), file=sys.stderr))\n"
            f"sys.argv = [{JOB[1]!r}, '--root', {folder!r}, '--quick', '--json']\n"
            f"runpy.run_path({JOB[1]!r}, run_name='__main__')\n"
        )
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True, env=environment()
        )
        seconds = time.monotonic() - began
    reused = [line for line in done.stderr.splitlines() if "reused" in line]
    loaded = done.stderr.rsplit("LOADED", 1)[1].strip()
    yield Figure("spine.second_run", seconds, "s", "<= 5", seconds <= 5, context={"reused_lines": len(reused)})
    yield Figure("spine.second_run.loads", float(loaded != "[]"), "ray or torch", "== 0", loaded == "[]")


def kills(quick: bool) -> Iterator[Figure]:
    """h: SIGKILL of the driver at random moments of the demo, each followed by the same command, until it ends.

    Counts artifacts whose digests differ from an undisturbed run's, and versions beyond the first (work done again).
    """
    count = 3 if quick else 10
    options = ["--quick"] if quick else []
    moments = random.Random(20_261)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = Path(folder) / "undisturbed", Path(folder) / "killed"
        _, whole, _ = job(undisturbed, *options)
        expected = digests(undisturbed)
        done, runs, stages = 0, 0, []
        while True:
            runs += 1
            # Python and Ray start in the first 5 s; what is done is not redone, so later runs are shorter
            limit = moments.uniform(5, 0.6 * whole) if done < count else None
            if killed_run(killed, limit, options):
                done += 1
                stages.append(sorted(label.split("/")[0] for label in digests(killed)))
            elif done >= count:
                break
            else:
                shutil.rmtree(killed)  # it ended before its kill: begin anew, so that all kills strike
        found = digests(killed)
    differing = sorted(label for label in expected.keys() | found.keys() if expected.get(label) != found.get(label))
    context = {"kills": done, "runs": runs, "differing": differing, "artifacts_at_kill": [len(s) for s in stages]}
    yield Figure("spine.kills.differing", len(differing), "artifacts", "== 0", not differing, context=context)


def killed_run(root: Path, limit: float | None, options: Sequence[str]) -> bool:
    """Run the job, SIGKILL its driver after `limit` seconds and wait for its processes to go; whether it was killed."""
    process = subprocess.Popen(
        [*JOB, "--root", str(root), "--json", *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    family: list[Any] = []
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        family = descendants(process.pid)
        process.kill()
        process.wait()
    import psutil

    psutil.wait_procs(family, timeout=10)  # a user does not wait for Ray's last helpers either
    if not family and process.returncode:
        raise SystemExit(f"the job failed with {process.returncode}:\n{process.communicate()[1].decode()[-4000:]}")
    return bool(family)


def digests(root: Path) -> dict[str, str]:
    """Content digest of every artifact under a root, by label."""
    from tgeokd_ray.artifacts import list_artifacts

    return {artifact.label: artifact.digest for artifact in list_artifacts(root)}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def encode(quick: bool) -> Iterator[Figure]:
    """g: peak memory and pace of encode on 20 k, 200 k and 2 M synthetic rows (quick: 20 k, 60 k, 200 k); the median of
    three turns, for a few MiB decide."""
    sizes: Sequence[int] = (20_000, 60_000, 200_000) if quick else (20_000, 200_000, 2_000_000)
    for local in (True, False):
        turns = [{rows: encode_once(rows, local) for rows in sizes} for _ in range(1 if quick else 3)]
        growths = []
        for turn in turns:
            base, small, large = (turn[rows][0] for rows in sizes)
            growths.append((large - base) / max(small - base, 1) - 1)
        growth = median(growths)
        peaks = {rows: median(turn[rows][0] for turn in turns) for rows in sizes}
        pace = median(turn[sizes[-1]][1] for turn in turns)
        name = "local" if local else "ray"
        # Where both runs stay within noise of the smallest, the ratio of two small differences says nothing: the
        # growth is then judged against the whole peak.
        whole = peaks[sizes[-1]] / peaks[sizes[1]] - 1
        context = {
            "peak_mib": {str(rows): round(kib / 1024, 1) for rows, kib in peaks.items()},
            "whole": round(whole, 4),
        }
        yield Figure(f"spine.encode.{name}.memory_growth", growth, "share", "< 0.2", growth < 0.2, growths, context)
        yield Figure(f"spine.encode.{name}.pace", pace, "rows per CPU-second", "printed", True)


def encode_once(rows: int, local: bool) -> tuple[int, float]:
    """Peak KiB and rows per CPU-second of one encode in a fresh process."""
    import yaml

    card = yaml.safe_load((REPOSITORY / "tgeokd_ray" / "tables" / "cards" / "synthetic_ctr.yaml").read_text())
    card["format"]["rows"] = rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card.yaml"
        path.write_text(yaml.safe_dump(card))
        command = [
            sys.executable,
            "-m",
            "tgeokd_ray.cli.main",
            "encode",
            "--card",
            str(path),
            "--root",
            f"{folder}/root",
        ]
        process = subprocess.Popen(
            [*command, *(["--local"] if local else [])],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        with Watch(process.pid) as watch:
            _, stderr = process.communicate(timeout=1200)
        if process.returncode:
            raise SystemExit(stderr.decode()[-4000:])
    return watch.peak_kib, rows / watch.cpu_seconds


def imports(quick: bool) -> Iterator[Figure]:
    """i: seconds to `tgeokd --help` (best of five), and what the lower floors load."""
    del quick
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "tgeokd_ray.cli.main", "--help"], capture_output=True, check=True, env=environment()
        )
        times.append(time.monotonic() - began)
    yield Figure("spine.help", min(times), "s", "<= 0.5", min(times) <= 0.5, spread=[min(times), max(times)])
    for floor, banned in (("objectives", ("ray", "polars", "pyarrow")), ("training", ("ray", "polars", "pydantic"))):
        script = (
            "import sys, pkgutil, importlib\n"
            f"import tgeokd_ray.{floor} as floor\n"
            "[importlib.import_module(m.name) for m in pkgutil.walk_packages(floor.__path__, floor.__name__ + '.')]\n"
            f"print(len(set(sys.modules) & set({banned!r})))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment()
        )
        loaded = int(done.stdout)
        yield Figure(f"spine.imports.{floor}", loaded, f"of {', '.join(banned)}", "== 0", loaded == 0)


if __name__ == "__main__":
    main(
        __doc__ or "",
        {"parity": parity, "workers": workers, "reuse": reuse, "kills": kills, "encode": encode, "imports": imports},
    )
