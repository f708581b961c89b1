"""What sweeps cost and what they survive: overhead, packs, memory, early stopping, killed drivers, several nodes.

python benchmarks/sweeps.py [overhead memory asha kills nodes defaults] [--quick] [--json]

overhead, asha: on the first 80,000 rows of Criteo, two at once. memory: a generated table, four at once. kills: a
driver struck by SIGKILL at random moments, and the same command again. nodes: two of them on this machine, of which
one is lost. defaults: the default sweeps of Criteo and NSL-KDD, whose winner meets the default on five fresh seeds.
Real tables as in benchmarks/quality.py. All but a part of `overhead` start Ray; the quick form is small, not short.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from statistics import median
from typing import Any

from figures import Figure, main
from quality import REPOSITORY, absent, data
from sweeps_job import card, sweep
from sweeps_kills import kills
from sweeps_memory import memory
from sweeps_nodes import nodes

from tgeokd_ray.metrics import paired_difference
from tgeokd_ray.tables.card_yaml import read_yaml

CRITEO = "criteo/criteo_first80k.tsv.gz"
TABLES = {"criteo": (CRITEO,), "nsl_kdd": ("nsl_kdd/KDDTrain+.txt.gz", "nsl_kdd/KDDTest+.txt.gz")}
CHEAP_TEACHER = {"training": {"epochs": 3}, "model": {"members": 1}}
RATE = "student.training.optimizer.learning_rate"
OVERHEAD_BAR, PACKS_BAR, STEPS_BAR = 1.5, 1.6, 1 / 3
TOGETHER = 2


def criteo(**student: Any) -> dict[str, Any] | None:
    """The base of a sweep on Criteo, None without it."""
    files = data(CRITEO)
    if files is None:
        return None
    teacher = CHEAP_TEACHER
    return {"card": card("criteo"), "data": files, "teacher": teacher, "student": {"training": student}}


def overhead(quick: bool) -> Iterator[Figure]:
    """Bar a: wall seconds a trial times the trials at once, less the seconds of its loop in one process; how many more
    trials a minute packs make; and the same without the starts of processes, by what trials say they took."""
    base = criteo(**({"epochs": 4, "patience": 4} if quick else {}))
    if base is None:
        yield absent("sweeps.overhead")
        return
    trials, turns = (8, 1) if quick else (32, 3)
    space = {RATE: {"log_uniform": [1e-3, 2e-2]}, "rule": {"choice": ["labels", "constant"]}}
    told = {"base": base, "space": space, "trials": trials, "concurrency": TOGETHER}
    extra, faster, steady, alone_seconds = [], [], [], []
    with tempfile.TemporaryDirectory() as root:
        sweep(root, "first", told | {"trials": 1, "packs": False}, "--local")  # makes table and logits
        for turn in range(turns):
            alone = sweep(root, f"alone{turn}", told | {"packs": False}, "--local")
            single = sweep(root, f"single{turn}", told | {"packs": False})
            packed = sweep(root, f"packed{turn}", told)
            extra.append((single.wall * TOGETHER - alone.trained) / trials)
            faster.append(single.wall / packed.wall)
            steady.append(single.trained / packed.trained)
            alone_seconds.append(alone.trained / trials)
    context = {"trials": trials, "turns": turns, "loop_seconds": round(median(alone_seconds), 2)}
    value = median(extra)
    bar = f"<= {OVERHEAD_BAR}"
    spread = [min(extra), max(extra)]
    yield Figure("sweeps.overhead.per_trial", value, "seconds", bar, value <= OVERHEAD_BAR, spread, context)
    value, spread = median(faster), [min(faster), max(faster)]
    yield Figure(
        "sweeps.packs.trials_per_minute", value, "ratio", f">= {PACKS_BAR}", value >= PACKS_BAR, spread, context
    )
    spread = [min(steady), max(steady)]
    yield Figure("sweeps.packs.without_starts", median(steady), "ratio", "reported", True, spread, context)


def asha(quick: bool) -> Iterator[Figure]:
    """Bar c: steps of ASHA over those of the full random search on the same points, and the AUC of both winners on
    test, which were trained again to their end."""
    base = criteo(epochs=9, patience=9)
    if base is None:
        yield absent("sweeps.asha")
        return
    trials, seeds = (9, 2) if quick else (27, 5)
    space = {
        RATE: {"log_uniform": [3e-4, 1e-1]},
        "rule": {"choice": ["labels", "constant"]},
        "constant": {"uniform": [0.1, 1.0], "when": {"rule": "constant"}},
        "distill.temperature": {"log_uniform": [1.0, 8.0], "when": {"rule": "constant"}},
    }
    steps, full_auc, asha_auc = [], [], []
    with tempfile.TemporaryDirectory() as root:
        for seed in range(seeds):
            told = {"base": base, "space": space, "trials": trials, "seed": seed, "concurrency": TOGETHER}
            full = sweep(root, f"full{seed}", told)
            halved = sweep(
                root, f"asha{seed}", told | {"scheduler": "asha", "asha": {"grace_epochs": 1, "reduction": 4}}
            )
            steps.append(halved.epochs / full.epochs)
            full_auc.append(full.test("auc"))
            asha_auc.append(halved.test("auc"))
    context = {"trials": trials, "seeds": seeds, "epochs": 9}
    value = median(steps)
    yield Figure(
        "sweeps.asha.steps_of_full", value, "ratio", "<= 0.333", value <= STEPS_BAR, [min(steps), max(steps)], context
    )
    value, low, high = paired_difference(asha_auc, full_auc)
    yield Figure("sweeps.asha.winner_auc_less_full", value, "AUC", "reported", True, [low, high], context)


def defaults(quick: bool) -> Iterator[Figure]:
    """Bar g: the winner of each default sweep less the card's default, on fresh seeds and test."""
    for name, names in TABLES.items():
        files = data(*names)
        if files is None:
            yield absent(f"sweeps.defaults.{name}")
            continue
        told = read_yaml(REPOSITORY / "datasets" / "sweeps" / f"{name}.yaml")
        told["base"] = {"card": card(name), "data": files}
        told |= {"trials": 3, "confirm": 2} if quick else {}
        with tempfile.TemporaryDirectory() as root:
            done = sweep(root, name, told)
        found = done.told["confirmation"]
        context = {"replaces": found["replaces"], "seeds": len(found["seeds"]), "trials": len(done.told["trials"])}
        won = next(trial for trial in done.told["trials"] if trial["name"] == found["winner"])
        context |= {"winner": won["point"], "figures": found["figures"]}
        one = found["figures"].get(found["metric"])
        value, spread = (0.0, []) if one is None else (one["difference"], [one["low"], one["high"]])
        metric = found["metric"]
        yield Figure(f"sweeps.defaults.{name}.winner_less_default", value, metric, "reported", True, spread, context)


MEASURES = {"overhead": overhead, "memory": memory, "asha": asha, "kills": kills, "nodes": nodes, "defaults": defaults}

if __name__ == "__main__":
    main("sweeps", MEASURES)
