"""The journal of a sweep: what came of every trial, one artifact each, so that a torn one is never taken for whole.

FOLDER/trials/t-1f0c.../v000001/trial.json   a trial that is over
FOLDER/asked/t-1f0c....json                  one that was begun
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tgeokd_ray.artifacts import check_name, digest, open_artifact, read_json, siblings, staging, write_json
from tgeokd_ray.config.space import Point
from tgeokd_ray.errors import IntegrityError, UserError

KIND = "trials"
Status = Literal["finished", "stopped", "failed"]


def trial_name(point: Point) -> str:
    """The name of the trial of a point: equal points have one name, and are trained once."""
    return check_name(f"t-{digest(point)[:10]}")


@dataclass(frozen=True)
class Trial:
    """A trial that is over: `finished`, `stopped` early by the scheduler, or `failed` for a `reason` with the exit code
    of its kind. `value` is the metric on valid, the mean over its students, None for a failed one; `curve` the same
    after each epoch; `raw` the point as the search algorithm sees it."""

    name: str
    point: Point
    status: Status
    value: float | None = None
    curve: tuple[float | None, ...] = ()
    epochs: int = 0
    seconds: float = 0.0
    students: int = 1
    parameters: int | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    code: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)

    def with_record(self, seconds: float, raw: Mapping[str, Any]) -> Trial:
        """The trial with how long it took and what the search algorithm calls its point."""
        return replace(self, seconds=seconds, raw=dict(raw))


@dataclass(frozen=True)
class Journal:
    """The trials of one sweep under its run folder; read and written by the driver and by every trial's process."""

    folder: Path

    def keep(self, trial: Trial) -> None:
        """Commit what came of a trial; what it was begun with goes."""
        entry = asdict(trial)
        with staging(self.folder, KIND, trial.name, arguments={"point": trial.point}, parents={}) as stage:
            stage.write("trial.json", lambda path: write_json(path, entry))
            stage.commit(schema={}, record={})
        self._asked(trial.name).unlink(missing_ok=True)

    def get(self, name: str) -> Trial | None:
        """The trial, if it is over and its entry is whole."""
        for artifact in siblings(self.folder, KIND, name):
            try:
                found = read_json(open_artifact(artifact.path, level="full").file("trial.json"))
            except IntegrityError:
                continue
            return Trial(**{**found, "curve": tuple(found["curve"])})
        return None

    def known(self) -> dict[str, Trial]:
        """All trials that are over, by name; one whose entry is torn counts as not done."""
        home = self.folder / KIND
        names = sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
        found = {name: self.get(name) for name in names}
        return {name: trial for name, trial in found.items() if trial is not None}

    def begin(self, name: str, point: Point, raw: Mapping[str, Any]) -> None:
        """Note a trial that begins, so that a search goes on with it after an interruption."""
        path = self._asked(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"point": point, "raw": dict(raw)})

    def begun(self) -> list[dict[str, Any]]:
        """`point` and `raw` of trials that were begun and are not over; what is torn is left out."""
        found = []
        for path in sorted((self.folder / "asked").glob("t-*.json")):
            try:
                found.append(read_json(path))
            except UserError:
                continue
        return found

    def _asked(self, name: str) -> Path:
        return self.folder / "asked" / f"{name}.json"


def ranked(trials: Sequence[Trial], *, higher_is_better: bool) -> list[Trial]:
    """Finished trials from the best to the worst, then those that were stopped, then those that failed."""
    sign = -1.0 if higher_is_better else 1.0
    order = {"finished": 0, "stopped": 1, "failed": 2}

    def place(trial: Trial) -> tuple[int, float, str]:
        return order[trial.status], sign * trial.value if trial.value is not None else 0.0, trial.name

    return sorted(trials, key=place)
