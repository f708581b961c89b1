"""Finished items of a long comparison, each in a file of its own, so that the same command goes on where it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import read_json, write_json
from tgeokd_ray.errors import UserError
from tgeokd_ray.events import Progress
from tgeokd_ray.pipeline.engine import Engine


@dataclass(frozen=True)
class Kept:
    """What is known of items by name, under `folder`. `token` stands for all that decides an item beside its name: what
    was kept under another one is not known."""

    folder: Path
    token: str

    def get(self, name: str) -> dict[str, Any] | None:
        """What was kept of an item; None for what is not there, torn, or of another token."""
        path = self._path(name)
        if not path.exists():
            return None
        try:
            told: dict[str, Any] = read_json(path)
        except UserError:  # torn: it is made again, from artifacts that are there
            return None
        return told if told.get("token") == self.token else None

    def put(self, name: str, told: dict[str, Any]) -> None:
        """Keep what an item told."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(name), told | {"token": self.token})

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def complete(
    kept: Kept,
    items: Sequence[Any],
    run: Callable[[Any], dict[str, Any]],
    engine: Callable[[], Engine],
    progress: Progress,
    *,
    stage: str,
    unit: str,
) -> list[dict[str, Any]]:
    """What every item told, in order: that of `kept`, and of those that are missing what `run` returns, which is kept
    as it comes. An item has a `name`; one that told an `error` is warned of and not kept. UserError where every one
    told an error, the first of them."""
    found = {item: kept.get(item.name) for item in items}
    missing = [item for item in items if found[item] is None]
    progress.started(stage, len(items), unit)
    progress.advanced(stage, len(items) - len(missing))
    if missing:
        for item, told in zip(missing, engine().map(run, missing, stage=stage), strict=True):
            found[item] = told
            if "error" in told:
                progress.warned(f"{item.name}: {told['error']}")
            else:
                kept.put(item.name, told)
            progress.advanced(stage, 1, f"{item.name} {told['seconds']:.0f} s")
    all_told = [told for told in found.values() if told is not None]
    if all("error" in told for told in all_told):
        raise UserError(all_told[0]["error"])
    return all_told
