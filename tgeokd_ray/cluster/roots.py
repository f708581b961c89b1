"""Where artifacts lie: a folder that outlives the job. Needs no ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tgeokd_ray.cluster.jobs import in_submitted_job
from tgeokd_ray.errors import ConfigError

ROOT_VARIABLE = "TGEOKD_ROOT"
RUNTIME_COPIES = "runtime_resources"  # below a Ray session: copies of working folders, deleted at Ray's will


def resolve_root(root: str, *, in_job: bool | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The absolute folder that `root` names; `in_job` None asks the environment.

    In a submitted job the working folder is a temporary copy on the cluster, so a relative root lies below TGEOKD_ROOT
    there. ConfigError without it, when TGEOKD_ROOT is relative itself, or when the folder lies in such a copy.
    """
    environ = os.environ if environ is None else environ
    path = Path(root).expanduser()
    if not (in_submitted_job(environ) if in_job is None else in_job):
        return path.absolute()
    if not path.is_absolute():
        path = _configured(root, environ) / path
    if RUNTIME_COPIES in path.parts:
        raise ConfigError(f"root {path} lies in the cluster's temporary copy of the working folder", fix=_fix(root))
    return path


def _configured(root: str, environ: Mapping[str, str]) -> Path:
    configured = environ.get(ROOT_VARIABLE, "")
    if not configured:
        raise ConfigError(
            f"root {root!r} is relative: in a submitted job it would lie in the cluster's temporary copy of the "
            "working folder and vanish with it",
            fix=_fix(root),
        )
    if not Path(configured).is_absolute():
        raise ConfigError(f"{ROOT_VARIABLE} must be an absolute path, got {configured!r}", fix=_fix(root))
    return Path(configured)


def _fix(root: str) -> str:
    return f"--root /a/folder/every/node/sees, or {ROOT_VARIABLE}=/such/a/folder in which {root!r} is then made"
