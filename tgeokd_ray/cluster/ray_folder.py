"""Where Ray keeps its own files while it works for us: a fresh folder, of which nothing is ever read back."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tgeokd_ray.artifacts import write_json
from tgeokd_ray.artifacts.owner import LOCK, Owner, read_owner

FOLDER = ".ray-"


@contextmanager
def ray_folder(storage: Path) -> Iterator[Path]:
    """A folder for Ray's own files, removed at the end; first those go whose driver was killed."""
    for left in storage.glob(f"{FOLDER}*"):
        owner = read_owner(left)
        if owner is not None and owner.state() == "gone":
            shutil.rmtree(left, ignore_errors=True)
    folder = storage / f"{FOLDER}{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        write_json(folder / LOCK, asdict(Owner.current()))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
