"""SIGKILL of table and logits writers: at moments drawn evenly, then held in each step until every one was struck."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from faults_children import Kill, end, killed_at_random, killed_in, start, undisturbed
from faults_steps import HOW, STEPS, Board, Hold
from faults_work import Writer, contents

from tgeokd_ray.artifacts import collect, open_artifact, verify
from tgeokd_ray.artifacts.names import versions

# The same command is run to its end after every tenth kill, and whenever a version is visible.
TO_THE_END_EVERY = 10
_OLD, _NEW = "v000001", "v000002"


@dataclass
class Trial:
    """One writer, killed again and again; `faults` says what was neither absent nor whole, or differed at the end."""

    writer: Writer
    folder: Path
    board: Board
    dice: random.Random
    measured: int = 5
    at_random: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    returned: int = 0
    to_the_end: int = 0
    visible: int = 0

    def __post_init__(self) -> None:
        """The digest, duration and calls of undisturbed runs, and the root with an earlier version to start from."""
        self._template, self._root, self._lives = self.folder / "template", self.folder / "root", 0
        if end(start(lambda: self.writer.prepare(self._template))):
            raise RuntimeError("the earlier version was not made")
        self._earlier = contents(self._home(self._template) / _OLD)
        self.durations = []
        for _ in range(self.measured):
            self._fresh()
            undisturbed(lambda: self.writer.write(self._root), self.board)
            self.durations.append(self.board.seconds)
        self.seconds = median(self.durations)
        self.calls = self.board.counts
        self.expected = open_artifact(self._home(self._root) / _NEW, level="full").digest
        self._fresh()

    @property
    def steps(self) -> list[str]:
        """The steps that this writer makes, in order; `remove strays` where an attempt follows a killed one."""
        return [step for step in STEPS[1:] if self.calls[step] or step == "remove strays"]

    @property
    def kills(self) -> int:
        return self.at_random.total() + self.held.total()

    def random_kills(self, count: int) -> None:
        """`count` kills at moments drawn evenly between the first call and the return."""
        while self.at_random.total() < count:
            self._kill(lambda work: killed_at_random(work, self.board, self.seconds, self.dice), self.at_random)

    def kills_in_steps(self, least: int) -> None:
        """Kills of a child held in a step, until each step has at least `least` of both kinds together."""
        for step in self.steps:
            tries = 0
            while self.at_random[step] + self.held[step] < least and tries < 20 * least:
                tries += 1
                self.kill_in(step)

    def close(self) -> None:
        """The last root to its end; gc leaves nothing in it but versions."""
        self._finish()

    def kill_in(self, step: str) -> None:
        """One attempt to kill a child in any of its calls of a step, before, after or half way through it."""
        if step == "remove strays" and not list(self._root.glob("*/*/.staging-*/tmp-*")):
            # only an attempt that follows another has something to remove
            self._kill(lambda work: killed_in(work, self.board, Hold("sync shard", 1, "before")), Counter())
        number = self.dice.randrange(max(self.calls[step], 1))
        hold = Hold(step, number, self.dice.choice(HOW if step.startswith("write") else ("before", "after")))
        self._kill(lambda work: killed_in(work, self.board, hold), self.held)

    def _kill(self, strike: Callable[[Callable[[], object]], Kill | None], histogram: Counter[str]) -> None:
        kill = strike(lambda: self.writer.write(self._root))
        if kill is None:
            self.returned += 1
        else:
            histogram[kill.step] += 1
            self._lives += 1
        self._check()
        visible = (self._home(self._root) / _NEW).exists()
        self.visible += visible and kill is not None
        if visible or self._lives == TO_THE_END_EVERY:
            self._finish()

    def _check(self) -> None:
        """Absent or whole, and the earlier version byte for byte."""
        home = self._home(self._root)
        found = {path.name for path in versions(home)}
        if not {_OLD} <= found <= {_OLD, _NEW}:
            self.faults.append(f"versions {sorted(found)}")
        if contents(home / _OLD) != self._earlier:
            self.faults.append("the earlier version changed")
        for path in versions(home):
            self.faults += [str(problem) for problem in verify(path)[0]]
        if _NEW in found and not self.faults and open_artifact(home / _NEW).digest != self.expected:
            self.faults.append("another digest")

    def _finish(self) -> None:
        """The same command to its end gives the digest of an undisturbed run."""
        self.to_the_end += 1
        code = end(start(lambda: self.writer.write(self._root)))
        self._check()
        if code or not (self._home(self._root) / _NEW).exists():
            self.faults.append(f"the same command ended with exit code {code}")
        collect(self._root, dry_run=False, min_age_seconds=0)
        left = [path.name for path in self._home(self._root).iterdir() if path.name not in (_OLD, _NEW)]
        if left:
            self.faults.append(f"left behind: {left}")
        self._fresh()

    def _fresh(self) -> None:
        self._lives = 0
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self._template, self._root)

    def _home(self, root: Path) -> Path:
        return root / self.writer.label
