"""Optuna as the searcher of Tune, which never has two trials of one point at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.search.optuna import OptunaSearch


class PatientOptuna(OptunaSearch):  # type: ignore[misc]
    """A point whose `key` a trial has that is not over waits for that one, as two would train in one folder; then it
    goes out, and is answered by what came of the other."""

    def __init__(self, key: Callable[[dict[str, Any]], str], **options: Any) -> None:
        super().__init__(**options)
        self._key = key
        self._taken: dict[str, str] = {}
        self._waiting: tuple[str, dict[str, Any]] | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next point; None while it waits, then Tune asks again under another id."""
        if self._waiting is None:
            raw = super().suggest(trial_id)
        else:
            old, raw = self._waiting
            self._ot_trials[trial_id] = self._ot_trials.pop(old)
        if self._key(raw) in self._taken.values():
            self._waiting = trial_id, raw
            return None
        self._waiting, self._taken[trial_id] = None, self._key(raw)
        return raw  # type: ignore[no-any-return]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial is over, and its point free."""
        self._taken.pop(trial_id, None)
        super().on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: no state of Tune is ever read back."""
        Path(checkpoint_path).touch()
