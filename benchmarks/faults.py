"""Figures of faults: kills and crashes of writers, kills of precompute, the pace of verification, refusals.

python benchmarks/faults.py [kills crashes precompute ray verify refusals] [--quick] [--json]
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from faults_children import end, start
from faults_crashes import crashes as crash_everywhere
from faults_crashes import out_of_order, recorded
from faults_kills import Trial
from faults_precompute import Tally, forked_kills, process_kills
from faults_refusals import all_refusals
from faults_steps import Board
from faults_verify import MIB, large_artifact, pace, seconds_to_open, settle
from faults_work import Writer, grown_writer, logits_writer, make_inputs, table_writer, warm
from figures import Figure, main

SEED = 20_262


def writers(folder: Path) -> list[Writer]:
    """The writers of tables, of tables that grow and of logits, from a warm parent without threads."""
    warm()
    if end(start(lambda: make_inputs(folder / "inputs")), 120):
        raise SystemExit("the inputs were not made")
    return [table_writer(), logits_writer(folder / "inputs"), grown_writer(folder / "raw")]


def kills(quick: bool) -> Iterator[Figure]:
    """a1: SIGKILLs of forked writers: 400 at drawn moments each, then in every step until it was struck 30 times."""
    count, least = (20, 2) if quick else (400, 30)
    with tempfile.TemporaryDirectory() as folder:
        for writer in writers(Path(folder)):
            trial = Trial(writer, Path(folder) / writer.name, Board(), random.Random(SEED))
            trial.random_kills(count)
            trial.kills_in_steps(least)
            trial.close()
            name, context = f"faults.kills.{writer.name}", _histogram(trial)
            bad = len(trial.faults)
            yield Figure(f"{name}.not_whole", bad, f"of {trial.kills} kills", "== 0", not bad, context=context)
            fewest = min(trial.at_random[step] + trial.held[step] for step in trial.steps)
            yield Figure(f"{name}.fewest_in_a_step", fewest, "kills", f">= {least}", fewest >= least)


def _histogram(trial: Trial) -> dict[str, object]:
    steps = ["elsewhere", *trial.steps]
    return {
        "at_random": {step: trial.at_random[step] for step in steps},
        "held_in_the_step_until_the_signal": {step: trial.held[step] for step in steps},
        "kills_at_random": trial.at_random.total(),
        "kills_held": trial.held.total(),
        "children_that_returned_first": trial.returned,
        "versions_visible_after_a_kill": trial.visible,
        "same_command_to_its_end": trial.to_the_end,
        "undisturbed_seconds": [round(seconds, 3) for seconds in trial.durations],
        "faults": trial.faults[:5],
    }


def crashes(quick: bool) -> Iterator[Figure]:
    """a2: a crash before, after and half way through every call of the disk, and the order of the recorded calls."""
    with tempfile.TemporaryDirectory() as folder:
        for writer in writers(Path(folder)):
            place = Path(folder) / writer.name
            place.mkdir()
            end(start(lambda writer=writer, place=place: writer.prepare(place / "order")))
            calls = recorded(lambda writer=writer, place=place: writer.write(place / "order"), place / "calls.json")
            broken = out_of_order(calls)
            name, context = f"faults.crashes.{writer.name}", {"broken": broken, "calls": len(calls)}
            yield Figure(f"{name}.order", len(broken), f"of {len(calls)} calls", "== 0", not broken, context=context)
            points, visible, faults = crash_everywhere(writer, place, every=20 if quick else 1)
            context = {"points": points, "versions_visible_after_a_crash": visible, "faults": faults[:5]}
            bad = len(faults)
            yield Figure(f"{name}.not_whole", bad, f"of {points} crashes", "== 0", not bad, context=context)


def precompute(quick: bool) -> Iterator[Figure]:
    """a3: 200 SIGKILLs of `tgeokd precompute --local` in forked children and 10 of real processes."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = many_shards(Path(folder))
        dice = random.Random(SEED)
        yield from _tally("forked", forked_kills(inputs, Path(folder), 10 if quick else 200, dice))
        yield from _tally("processes", process_kills(inputs, Path(folder), 1 if quick else 10, dice, "--local"))


def ray(quick: bool) -> Iterator[Figure]:
    """a3: 10 SIGKILLs of the driver of `tgeokd precompute` on Ray, two on each root before its end."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = many_shards(Path(folder))
        tally = process_kills(inputs, Path(folder), 1 if quick else 10, random.Random(SEED), per_root=1 if quick else 2)
        yield from _tally("ray", tally)


def many_shards(folder: Path) -> Path:
    """A table of 32 shards to score, and its teacher."""
    warm()
    if end(start(lambda: make_inputs(folder / "inputs", teachers=1, rows=1600, chunk=200)), 120):
        raise SystemExit("the inputs were not made")
    return folder / "inputs"


def _tally(name: str, tally: Tally) -> Iterator[Figure]:
    bad, least, most = len(tally.faults), min(tally.finished), max(tally.finished)
    context = {"finished_at_kill": [least, most], "returned_first": tally.returned, "faults": tally.faults[:5]}
    unit = f"of {tally.kills} kills"
    yield Figure(f"faults.precompute.{name}.differing", bad, unit, "== 0", not bad, context=context)
    finished = f"of {sum(tally.finished)} finished shards"
    yield Figure(f"faults.precompute.{name}.scored_again", tally.again, finished, "== 0", not tally.again)


def verify(quick: bool) -> Iterator[Figure]:
    """d: verification of 512 MiB in eight files against plain sha256 in turns, and opening what was verified before."""
    files, file_bytes = (4, 8 * MIB) if quick else (8, 64 * MIB)
    with tempfile.TemporaryDirectory() as folder:
        artifact = large_artifact(Path(folder), files, file_bytes)
        settle(artifact)
        found = pace(artifact, 3 if quick else 9)
        plain, context = found["seconds"]["plain"], {"bytes": files * file_bytes, "median_seconds": found["median"]}
        for name in ("verify", "open"):
            ratios = [a / b for a, b in zip(plain, found["seconds"][name], strict=True)]
            ratio = found["median"]["plain"] / found["median"][name]
            spread = [min(ratios), max(ratios)]
            yield Figure(f"faults.{name}.vs_sha256", ratio, "ratio", ">= 0.7", ratio >= 0.7, spread, context)
        times = [1000 * seconds for seconds in seconds_to_open(artifact, Path(folder), 21)]
        spread = [min(times), max(times)]
        yield Figure("faults.open_verified_before", median(times), "ms", "<= 50", median(times) <= 50, spread)


def refusals(quick: bool) -> Iterator[Figure]:
    """h: what must be refused, through the command line: exit code, form of the block, nothing made or executed."""
    del quick
    warm()
    with tempfile.TemporaryDirectory() as folder:
        found = all_refusals(Path(folder))
    failed = {case: wrong for case, wrong in found.items() if wrong}
    context = {"failed": failed, "cases": list(found)}
    yield Figure("faults.refusals.failed", len(failed), f"of {len(found)}", "== 0", not failed, context=context)


if __name__ == "__main__":
    measures = {
        "kills": kills,
        "crashes": crashes,
        "precompute": precompute,
        "ray": ray,
        "verify": verify,
        "refusals": refusals,
    }
    main(__doc__ or "", measures)
