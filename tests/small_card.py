"""The packaged synthetic card with fewer rows."""

from __future__ import annotations

from pathlib import Path

import yaml

from tgeokd_ray.tables.cards import PACKAGED


def small_card(folder: Path, rows: int, chunk_rows: int) -> Path:
    """FOLDER/small.yaml: a card of so many rows, generated in chunks of `chunk_rows`."""
    text = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    text["format"] |= {"rows": rows, "chunk_rows": chunk_rows}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(text))
    return path
