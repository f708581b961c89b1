"""From the name that a user gives an artifact or a run to the thing itself."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from tgeokd_ray import artifacts
from tgeokd_ray.artifacts import Artifact, open_artifact, read_json
from tgeokd_ray.artifacts.names import MANIFEST, versions
from tgeokd_ray.cluster.roots import resolve_root
from tgeokd_ray.errors import ConfigError, IntegrityError, Problem

MODELS = ("students", "teachers")
ROOT = "artifacts"


def root_folder(root: str | None) -> Path:
    """The folder that --root names, or the default one; in a submitted job as `resolve_root` says."""
    return resolve_root(root if root is not None else ROOT)


def is_store(root: str) -> bool:
    """True for the URL of an object store in place of a folder."""
    return "://" in root


def named(root: Path, label: str, *kinds: str) -> Artifact:
    """The artifact KIND/NAME/v000001, or the newest whole version of KIND/NAME, under `root`; else in a folder of that
    name.

    ConfigError where there is none, or it is of none of the `kinds` that the command takes. IntegrityError where it is
    there and damaged.
    """
    artifact = _at(root / label) or _at(Path(label).absolute())
    if artifact is None:
        known = ", ".join(a.label for a in artifacts.list_artifacts(root)[:10]) or "none"
        raise ConfigError(f"no artifact {label!r} under {root}", fix=f"name one of those there: {known}")
    if kinds and artifact.kind not in kinds:
        problem = Problem(f"{label} is not of the right kind", expected=" or ".join(kinds), got=artifact.kind)
        raise ConfigError([problem], fix="tgeokd list ROOT names the artifacts and their kinds")
    return artifact


def _at(path: Path) -> Artifact | None:
    """The artifact in this folder, or the newest whole one of the versions in it."""
    try:
        if (path / MANIFEST).exists():
            return open_artifact(path)
        newest_first = [folder for folder in versions(path) if (folder / MANIFEST).exists()]
    except (OSError, ValueError):  # a name too long, NUL in a name, no permission
        return None
    for folder in newest_first:
        with suppress(IntegrityError):
            return open_artifact(folder)
    return open_artifact(newest_first[0]) if newest_first else None  # none is whole: say what is wrong with it


def run_results(root: Path, run: str) -> tuple[dict[str, Any], Path]:
    """(results.json, folder) of a run: ROOT/runs/RUN, else the folder of that name.

    ConfigError where there is none, or the file there is no results.json of this format.
    """
    from tgeokd_ray.pipeline.results import FORMAT

    folder = next((p for p in (root / "runs" / run, Path(run)) if _exists(p / "results.json")), None)
    if folder is None:
        raise ConfigError(f"no run {run!r} under {root}/runs", fix="name a folder that holds results.json")
    file = folder / "results.json"
    results = read_json(file)
    found = results.get("format") if isinstance(results, dict) else None
    if found != FORMAT:
        problem = Problem("not the results of a run", file=str(file), expected=f"format {FORMAT}", got=f"{found!r:.60}")
        raise ConfigError([problem], fix="name the folder of a run, or run its job again")
    models = results.get("models")
    whole = isinstance(models, list) and all(isinstance(model, dict) and "name" in model for model in models)
    if "run" not in results or not whole:
        problem = Problem("not the results of a run", file=str(file), expected="the keys run and models, with names")
        raise ConfigError([problem], fix="name the folder of a run, or run its job again")
    return results, folder


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
