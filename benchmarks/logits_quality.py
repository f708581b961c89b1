"""What logits do to students on the Criteo sample: stored or in the loop, in half precision, with folds."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from figures import Figure
from quality import REPOSITORY, SEEDS, averages, data, model

from tgeokd_ray.artifacts import list_artifacts
from tgeokd_ray.metrics import paired_difference

Results = dict[str, Any]
CARD = REPOSITORY / "datasets" / "criteo.yaml"
FOLDS = 5


def unmeasured(name: str, unit: str, bar: str) -> Figure:
    return Figure(name, None, unit, bar, None, context={"reason": "no Criteo sample"})


def jobs(root: str, files: Sequence[str], options: Sequence[str], quick: bool) -> list[Results]:
    """results.json of one job per seed."""
    found = []
    for seed in SEEDS[:1] if quick else SEEDS:
        command = [sys.executable, str(REPOSITORY / "jobs" / "ctr_distill.py"), "--local", "--json", "--root", root]
        command += ["--data", *files, "--seed", str(seed), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False, cwd=REPOSITORY)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-4000:]}")
        found.append(json.loads(done.stdout))
    return found


def aucs(found: Sequence[Results], role: str) -> list[float]:
    return [model(one, role)["auc"] for one in found]


def students(quick: bool) -> Iterator[Figure]:
    """c: CPU seconds of five students with the teacher in the loop over those from stored logits and precompute."""
    files = data("criteo/criteo_first80k.tsv.gz")
    if files is None:
        yield unmeasured("logits.students.live_over_stored", "ratio", ">= 3")
        return
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, str(REPOSITORY / "benchmarks" / "logits_students.py"), root, *files]
        command += ["--quick"] if quick else []
        done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False, cwd=REPOSITORY)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    facts = json.loads(done.stdout.splitlines()[-1])
    value = (facts["live"] - facts["labels"]) / (facts["stored"] - facts["labels"])
    yield Figure("logits.students.live_over_stored", value, "ratio", ">= 3", value >= 3, context=facts)


def half(quick: bool) -> Iterator[Figure]:
    """e: bytes of a row as `tgeokd list` shows them, and what float16 costs the student."""
    files = data("criteo/criteo_first80k.tsv.gz")
    if files is None:
        yield unmeasured("logits.half.auc_difference", "auc", "<= 1e-4")
        return
    with tempfile.TemporaryDirectory() as root:
        options = ["--card", str(CARD)]
        single = jobs(root, files, options, quick)
        double = jobs(root, files, [*options, "--set", "logits.dtype=float16"], quick)
        stored = {a.digest: a.manifest for a in list_artifacts(root) if a.kind == "logits"}
    rows = {
        m.arguments["dtype"]: sum(e.bytes for e in m.files) / sum(e.rows or 0 for e in m.files) for m in stored.values()
    }
    error = next(m.schema["storage"]["error"] for m in stored.values() if m.arguments["dtype"] == "float16")
    for role in ("constant", "tgeo"):
        differences = [abs(a - b) for a, b in zip(aucs(single, role), aucs(double, role), strict=True)]
        value = max(differences)
        context = {"seeds": len(differences), "bytes_per_row": rows, "error": error}
        yield Figure(f"logits.half.{role}", value, "auc", "<= 1e-4", value <= 1e-4, differences, context)


def folds(quick: bool) -> Iterator[Figure]:
    """f: cross-fitting against a split of the teacher's own and against in-sample logits; the test rows are the same.

    The card of the split: about 39,000 rows for the teacher, 17,000 for the student. With folds, and in sample, both
    use all 56,000.
    """
    files = data("criteo/criteo_first80k.tsv.gz")
    if files is None:
        yield unmeasured("logits.folds.over_disjoint", "auc", ">= 0.003")
        return
    with tempfile.TemporaryDirectory() as root:
        pooled = Path(root) / "pooled.yaml"
        card = yaml.safe_load(CARD.read_text())
        card["splits"]["parts"] = {"train": 0.7, "outer": 0.05, "valid": 0.05, "test": 0.2}
        pooled.write_text(yaml.safe_dump(card, sort_keys=False))
        split = jobs(root, files, ["--card", str(CARD)], quick)
        crossed = jobs(root, files, ["--card", str(pooled), "--set", f"teacher.folds={FOLDS}"], quick)
        inside = jobs(root, files, ["--card", str(pooled), "--set", "teacher.in_sample=true"], quick)
    told = {"disjoint": split, "folds": crossed, "in_sample": inside}
    context = {
        name: {role: round(auc, 5) for role, auc in averages(found, "auc").items()} for name, found in told.items()
    }
    for name, others, bar in (("disjoint", split, 0.003), ("in_sample", inside, 0.0)):
        for role in ("constant", "tgeo"):
            pairs = aucs(crossed, role), aucs(others, role)
            value, *spread = paired_difference(*pairs) if len(SEEDS) > 1 and not quick else [pairs[0][0] - pairs[1][0]]
            ok = bool(value >= bar if bar else value > 0)
            figure = f"logits.folds.{role}.over_{name}"
            yield Figure(figure, value, "auc", f">= {bar:g}" if bar else "> 0", ok, [float(x) for x in spread], context)
