"""What a cell of a study starts from: the rows of a regime, or a table as its card says, with its teacher's logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, digest
from tgeokd_ray.config.job import Job
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Progress, Silent
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.engine import Engine, LocalEngine
from tgeokd_ray.pipeline.references import REFERENCE, Floats, Ids, commit_reference, reference_weights
from tgeokd_ray.pipeline.rivals import refused
from tgeokd_ray.tables.cards import Card, load_card
from tgeokd_ray.tables.inputs import raw_files, table_inputs
from tgeokd_ray.tables.regimes.catalogue import build, table_of
from tgeokd_ray.tables.regimes.regime import Regime
from tgeokd_ray.tables.regimes.writing import Written, write
from tgeokd_ray.training.reuse import load_metrics

WHOLE = ".whole"  # ends the names of tables as their cards say
Settings = Callable[[int], Sequence[str]]  # of a job, by the number of classes
UNKNOWN = "no ratio is known to be right on a real table as it is"


@dataclass(frozen=True)
class Known:
    """The regime's own ratio, as an artifact and by row."""

    regime: Regime
    artifact: Artifact
    row_ids: Ids
    weights: Floats


@dataclass(frozen=True)
class Start:
    """Table and logits, the `parameters` of a teacher that was trained here, and why rules are left out (`refused`)."""

    chain: Chain
    table: Artifact
    logits: list[Artifact]
    parameters: int | None
    refused: dict[str, str]
    known: Known | None = None


@dataclass(frozen=True)
class Place:
    """Where a cell of this name, dataset and seed finds cards and raw files, by the name of a table, and where its own
    artifacts (`root`) and raw files (`folder`) go; `rules` may be undefined for its classes."""

    name: str
    dataset: str
    seed: int
    root: str
    folder: str
    rules: Sequence[str]
    cards: Mapping[str, str]
    data: Mapping[str, tuple[str, ...]]

    def start(self, settings: Settings) -> Start:
        """Make table, teacher and logits, or find them. The errors of the chain, ConfigError as `build`."""
        return self._of_regime(settings) if whole_of(self.dataset) is None else self._of_table(settings)

    def encoded(
        self, settings: Settings, engine: Callable[[], Engine] | None = None, progress: Progress | None = None
    ) -> Chain:
        """The chain of a table as its card says, after its encoding, by this process or an `engine`: all seeds share
        it, so that it is made before cells run side by side."""
        job, card = self._whole(settings)
        chain = self._chain(job, card)
        working = chain if engine is None else replace(chain, engine=engine, progress=progress or Silent())
        working.check_splits(working.encode(job.data))
        return chain

    def identity(self, settings: Settings) -> str:
        """What cells of a table as its card says depend on beside their names and settings: a digest of the card's text
        and of what the table is made from. DataError for files that are not there."""
        job, card = self._whole(settings)
        text = Path(self.cards[whole_of(self.dataset) or ""]).read_text(encoding="utf-8")
        return digest([text, table_inputs(card, job.data, Path(self.root))])

    def _whole(self, settings: Settings) -> tuple[Job, Card]:
        table = whole_of(self.dataset) or ""
        classes = len(load_card(self.cards[table]).label.classes)
        return self._resolved(self.cards[table], self.data.get(table, ()), settings(classes))

    def _of_table(self, settings: Settings) -> Start:
        chain = self.encoded(settings)
        table = chain.encode(chain.job.data)
        named = replace(chain, card=chain.card.model_copy(update={"name": self.name}), stages=[])
        out = refused(self.rules, len(chain.card.label.classes)) | {REFERENCE: UNKNOWN}
        if chain.job.teacher.imported.file is not None:  # a copy for each cell: no two of them write the same artifact
            named = replace(named, job=_import_as(chain.job, name=None))
            return Start(named, table, [named.imported(table)], None, out)
        teachers = named.teachers(table)
        logits = named.precompute(table, teachers)
        return Start(named, table, [logits], load_metrics(teachers[0])["parameters"], out)

    def _of_regime(self, settings: Settings) -> Start:
        table_name = table_of(self.dataset)
        if table_name is None or table_name not in self.data:
            regime = build(self.dataset)
        else:
            card = load_card(self.cards[table_name])
            regime = build(self.dataset, card, raw_files(card, self.data[table_name]))
        written = write(regime, self.seed, Path(self.folder) / self.name)
        job, card = self._resolved(str(written.card), (str(written.rows),), settings(len(regime.classes)))
        chain = self._chain(job, card.model_copy(update={"name": self.name}))
        table = chain.encode(job.data)
        logits, parameters = _logits(chain, table, written)
        row_ids, weights = reference_weights(regime, table, logits)
        artifact = commit_reference(chain.root, f"{self.name}-{REFERENCE}", table, row_ids, weights)
        out = refused(self.rules, len(regime.classes))
        return Start(chain, table, logits, parameters, out, Known(regime, artifact, row_ids, weights))

    def _resolved(self, card: str, files: Sequence[str], settings: Sequence[str]) -> tuple[Job, Card]:
        options = {"card": card, "data": list(files), "root": self.root, "seed": self.seed}
        return resolve(options, settings=settings)

    def _chain(self, job: Job, card: Card) -> Chain:
        engine, root = LocalEngine("cpu", job.threads), Path(self.root)
        return Chain(job, card, root, root / "runs" / self.name, lambda: engine, Silent())


def whole_of(dataset: str) -> str | None:
    """The card whose whole table a dataset is; None for a regime."""
    return dataset.removesuffix(WHOLE) if dataset.endswith(WHOLE) else None


def _logits(chain: Chain, table: Artifact, written: Written) -> tuple[list[Artifact], int | None]:
    """Of the teachers that the regime defines, or of one that is trained here, and the size of that."""
    if not written.teachers:
        teachers = chain.teachers(table)
        return [chain.precompute(table, teachers)], load_metrics(teachers[0])["parameters"]
    logits = []
    for number, path in enumerate(written.teachers):
        job = _import_as(chain.job, file=str(path), kind="logits", name=f"{chain.card.name}-teacher{number}")
        logits.append(replace(chain, job=job).imported(table))
    return logits, None


def _import_as(job: Job, **changes: Any) -> Job:
    """The job with other settings under `teacher.imported`."""
    imported = job.teacher.imported.model_copy(update=changes)
    return job.model_copy(update={"teacher": job.teacher.model_copy(update={"imported": imported})})
