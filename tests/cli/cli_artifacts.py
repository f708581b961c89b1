"""Cards and artifacts that are whole and hold nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tgeokd_ray.artifacts import Artifact, staging, write_json
from tgeokd_ray.tables.cards import PACKAGED, load_card

NOT_KEPT = {"title", "files", "defaults", "terms", "publisher", "citation", "checks"}  # as encode leaves them out


def write_card(path: Path, name: str = "mine", **changes: Any) -> Path:
    """A card file: the packaged synthetic table under another name."""
    text = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    path.write_text(yaml.safe_dump(text | {"name": name} | changes))
    return path


def make(root: Path, kind: str, name: str, card: Path | None = None, **parents: Artifact) -> Artifact:
    """A whole artifact with one file; a table holds its card as encode keeps it."""
    with staging(root, kind, name, arguments={"name": name}, parents=parents) as stage:
        stage.write("data.json", lambda path: write_json(path, {}))
        if card is not None:
            kept = load_card(card).model_dump(mode="json", exclude=NOT_KEPT)
            stage.write("card.json", lambda path: write_json(path, kept))
        return stage.commit(schema={"rows": {}, "classes": ["0", "1"]}, record={})
