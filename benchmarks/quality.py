"""Figures of quality: teacher, student on labels, best constant and learned ratio, as means over seeds.

python benchmarks/quality.py [demo criteo nsl_kdd] [--quick] [--json]

Real tables: TGEOKD_DATA, or `shared/data` beside the repository. Roots are kept under TGEOKD_ROOT where
it is set, so that a study that was cut off goes on. --quick: one seed, in one process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from statistics import mean
from typing import Any

from figures import Figure, main

from tgeokd_ray.metrics import paired_difference

REPOSITORY = Path(__file__).resolve().parent.parent
SEEDS = (0, 1, 2)
Results = dict[str, Any]


def data(*names: str) -> list[str] | None:
    """Paths of real files, or None where one is absent."""
    folder = Path(os.environ.get("TGEOKD_DATA") or REPOSITORY.parent / "shared" / "data")
    paths = [folder / name for name in names]
    return [str(path) for path in paths] if all(path.exists() for path in paths) else None


def runs(job: str, name: str, options: list[str], quick: bool) -> list[Results]:
    """results.json of one job per seed, with its wall seconds; the table is encoded once."""
    kept = os.environ.get("TGEOKD_ROOT")
    found = []
    with nullcontext(str(Path(kept) / name)) if kept else tempfile.TemporaryDirectory() as root:
        for seed in SEEDS[:1] if quick else SEEDS:
            command = [sys.executable, str(REPOSITORY / "jobs" / job), "--root", root, "--run", f"{name}-{seed}"]
            command += ["--seed", str(seed), "--json", *options, *(["--local"] if quick else [])]
            began = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False, cwd=REPOSITORY)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-4000:]}")
            found.append(json.loads(done.stdout) | {"wall": time.monotonic() - began})
    return found


def model(results: Results, role: str) -> Results:
    """The entry of `teacher`, `labels`, `tgeo`, or of the constant that was chosen on valid (`constant`)."""
    entries = results["models"]
    if role == "constant":
        return next(entry for entry in entries if entry.get("chosen"))
    return next(entry for entry in entries if entry["name"] == role)


def averages(found: list[Results], metric: str) -> dict[str, float]:
    """Mean over the seeds, by role."""
    return {r: mean(model(one, r)[metric] for one in found) for r in ("teacher", "labels", "constant", "tgeo")}


def gap(name: str, found: list[Results], metric: str, above: str, below: str, bar: float) -> Figure:
    """The mean of paired differences of two roles over the seeds, with its 95 % interval, against its bar."""
    figures = [[model(one, role)[metric] for one in found] for role in (above, below)]
    value, *interval = paired_difference(*figures) if len(found) > 1 else [figures[0][0] - figures[1][0]]
    spread = [float(end) for end in interval]
    by_role = {role: round(figure, 6) for role, figure in averages(found, metric).items()}
    context = {"seeds": len(found), **by_role, "chosen": [model(one, "constant")["name"] for one in found]}
    return Figure(f"{name}.{above}_over_{below}", value, metric, f">= {bar:g}", value >= bar, spread, context)


def slowest(name: str, found: list[Results], bar: float) -> Figure:
    """Wall seconds of the slowest seed."""
    seconds = [one["wall"] for one in found]
    return Figure(f"{name}.seconds", max(seconds), "s", f"<= {bar:g}", max(seconds) <= bar, sorted(seconds))


def absent(name: str) -> Figure:
    return Figure(name, None, "", "", None, context={"reason": "the real table is absent: set TGEOKD_DATA"})


def demo(quick: bool) -> Iterator[Figure]:
    """a: the synthetic table: teacher above students, the distilled student above the one on labels."""
    found = runs("ctr_distill.py", "synthetic", [], quick)
    yield gap("quality.synthetic", found, "auc", "teacher", "tgeo", 0)
    yield gap("quality.synthetic", found, "auc", "tgeo", "labels", 0)
    yield gap("quality.synthetic", found, "auc", "tgeo", "constant", 0)
    bayes = found[0]["extra"]["bayes_auc"] - averages(found, "auc")["teacher"]
    yield Figure("quality.synthetic.bayes_over_teacher", bayes, "auc", ">= 0", bayes >= 0)
    yield slowest("quality.synthetic", found, 240)


def criteo(quick: bool) -> Iterator[Figure]:
    """b: the first 80,000 rows of Criteo."""
    files = data("criteo/criteo_first80k.tsv.gz")
    if files is None:
        yield absent("quality.criteo")
        return
    found = runs("ctr_distill.py", "criteo", ["--card", "datasets/criteo.yaml", "--data", *files], quick)
    yield gap("quality.criteo", found, "auc", "teacher", "labels", 0.008)
    yield gap("quality.criteo", found, "auc", "tgeo", "labels", 0.006)
    yield gap("quality.criteo", found, "auc", "tgeo", "constant", -0.004)
    yield slowest("quality.criteo", found, 600)


def nsl_kdd(quick: bool) -> Iterator[Figure]:
    """c: five-class accuracy on KDDTest+, whose attacks training has not seen."""
    files = data("nsl_kdd/KDDTrain+.txt.gz", "nsl_kdd/KDDTest+.txt.gz")
    if files is None:
        yield absent("quality.nsl_kdd")
        return
    found = runs("attack_distill.py", "nsl_kdd", ["--card", "datasets/nsl_kdd.yaml", "--data", *files], quick)
    for role, value in averages(found, "accuracy").items():
        bar = 0.75 if role == "tgeo" else None
        entries = [model(one, role) for one in found]
        context = {
            "seeds": len(found),
            "macro_f1": round(mean(entry["macro_f1"] for entry in entries), 4),
            "recall": {k: round(mean(entry["recall"][k] for entry in entries), 4) for k in entries[0]["recall"]},
            "detection_rate": {
                k: round(mean(entry["detection_rate"][k] for entry in entries), 4) for k in entries[0]["detection_rate"]
            },
        }
        spread = sorted(entry["accuracy"] for entry in entries)
        ok = None if bar is None else value >= bar
        yield Figure(f"quality.nsl_kdd.{role}", value, "accuracy", f">= {bar}" if bar else "", ok, spread, context)
    yield slowest("quality.nsl_kdd", found, 600)


if __name__ == "__main__":
    main(__doc__ or "", {"demo": demo, "criteo": criteo, "nsl_kdd": nsl_kdd})
