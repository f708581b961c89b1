"""Raw files through a student's own encoder to logits and probabilities: what the student says about new rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tgeokd_ray.artifacts import open_artifact, read_json
from tgeokd_ray.errors import ConfigError, ResourceError
from tgeokd_ray.events import Progress
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.encode import encode_frame
from tgeokd_ray.tables.inputs import raw_files
from tgeokd_ray.tables.validation import validated
from tgeokd_ray.tables.views import Encoders, encoder_files
from tgeokd_ray.training.scoring import Predictor


def predict(student: Path, data: Sequence[str], out: Path, progress: Progress) -> int:
    """Score raw files, labels not needed, and write Parquet: row_id, logits [C], probabilities [C]; returns the rows.

    The file appears whole or not at all. DataError names what does not fit the student's card; unseen categories take
    the reserved id that training gave them.
    """
    artifact = open_artifact(student, level="full")
    card = validated(Card, read_json(artifact.file("card.json")), str(artifact.file("card.json")))
    encoders = Encoders.read([artifact.file(name) for name in encoder_files(card)])
    files = raw_files(card, data)
    if not files:
        raise ConfigError(f"{artifact.label} was made from a synthetic table, which has no raw files to score")
    if out.exists() and any(out.samefile(file) for file in files):
        raise ConfigError(f"--out {out} is one of the files to score", fix="name another --out")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}", fix="make it, or name another --out")
    predictor = Predictor(student)
    draft = out.with_name(f".{out.name}.tmp")
    rows = 0
    progress.started("predict")
    try:
        with pq.ParquetWriter(draft, _schema(predictor.classes)) as writer:
            for index, path in _placed(files, predictor.raw):
                for row_ids, numeric, categorical in encode_frame(card, encoders, path, file_index=index):
                    logits = predictor(torch.from_numpy(numeric), torch.from_numpy(categorical).long())
                    writer.write_table(_table(row_ids, logits, predictor.classes))
                    rows += len(row_ids)
                    progress.advanced("predict", len(row_ids))
        draft.replace(out)
    except OSError as error:
        raise ResourceError(f"{out} cannot be written: {error.strerror}", fix="name another --out") from None
    finally:
        draft.unlink(missing_ok=True)
    progress.finished("predict", str(out))
    return rows


def _placed(files: Sequence[Path], known: Sequence[str]) -> Iterator[tuple[int, Path]]:
    """Each file with the place that its row ids count on: that in the model's table where it is one of its files, and
    the next free ones for others, so that no new row has the id of a row of the table."""
    following = count(len(known))
    for path in files:
        yield known.index(path.name) if path.name in known else next(following), path


def _schema(classes: Sequence[str]) -> pa.Schema:
    """Classes in order stand in the file's own metadata."""
    values = pa.list_(pa.float32(), len(classes))
    fields = [("row_id", pa.int64()), ("logits", values), ("probabilities", values)]
    return pa.schema(fields, metadata={"classes": ",".join(classes)})


def _table(row_ids: np.ndarray[tuple[int], np.dtype[np.int64]], logits: np.ndarray, classes: Sequence[str]) -> pa.Table:
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32)
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), len(classes))
        for values in (logits, probabilities)
    ]
    return pa.table([pa.array(row_ids), *columns], schema=_schema(classes))
