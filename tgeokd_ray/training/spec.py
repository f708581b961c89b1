"""What one run is: plain frozen values, which a worker on another machine reads without pydantic or Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tgeokd_ray.errors import UserError
from tgeokd_ray.objectives.settings import OUTER_RULES, OptimizerSpec

# Where a run lies and how it paces itself: fields of a RunSpec that do not decide its numbers.
PLACES = (
    "name",
    "kind",
    "artifact",
    "root",
    "folder",
    "table",
    "logits",
    "ratios",
    "channel",
    "live",
    "judges",
    "alone",
    "profile",
    "log_every",
    "checkpoint_seconds",
    "evaluation_rows",
    "cache_bytes",
)
# What decides the numbers of a channel, beside its parents.
CHANNEL_ARGUMENTS = ("training", "folds", "data_seed")
# Raised when the same spec and parents are to give other parameters than before.
TRAINING = 5
# Raised when stored ratios are to hold more than before.
STORED = 2
# Raised when hypergradients by finite differences are to be others than before.
FINITE = 2
HIGHER_IS_BETTER = {"auc": True, "accuracy": True, "macro_f1": True, "average_precision": True, "nll": False}


def sign_of(metric: str) -> float:
    """1 where more of the metric is better, else -1: what its values are multiplied by to be compared."""
    return 1.0 if HIGHER_IS_BETTER[metric] else -1.0


@dataclass(frozen=True)
class Fusion:
    """How the fusion network is trained: its optimizer, an outer step every `every` inner steps on `batch_rows` outer
    rows, from the share `warm_up` of all steps on (Adam's first steps carry no signal). `hypergradient` is a way of
    `objectives.ways`, `look_ahead` the number K of inner steps that an outer gradient is pulled back through. Each of
    its products with the Hessian reads a part of the inner batch, about `hessian_rows` rows or more. By `changes`,
    (epoch, learning rate) in order, the optimizer has another rate from that epoch on."""

    optimizer: OptimizerSpec = field(default_factory=lambda: OptimizerSpec(kind="adam", learning_rate=3e-3))
    every: int = 4
    batch_rows: int = 1024
    warm_up: float = 0.05
    hypergradient: str = "split"
    look_ahead: int = 1
    hessian_rows: int = 256
    changes: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One ratio among those that a run chooses from: a rule and the temperature that goes with it."""

    rule: Mapping[str, Any]
    temperature: float


@dataclass(frozen=True)
class Choice:
    """A run that trains several candidates and keeps the best on valid, or the artifact at `incumbent`, trained before
    with a constant, unless one is better by more than `margin` standard errors of the paired difference on valid rows.
    After each share of the epochs in `rounds` only that many candidates go on. With `measure_all` each is measured on
    test, for a study whose choice is made over several seeds.
    """

    candidates: tuple[Candidate, ...]
    incumbent: str | None = None
    margin: float = 0.0
    rounds: tuple[tuple[float, int], ...] = ()
    measure_all: bool = False


@dataclass(frozen=True)
class RunSpec:
    """One training run, complete: a teacher has no `logits`, a student has one logits artifact per teacher.

    Paths are artifact versions. Data and order come from `data_seed`, a student from its model seed: one, or one for
    each member of an `ensemble`, trained and stopped on its own; the model is then the mean of their probabilities.
    With `folds` > 1 the rows of `fold` teach nothing; with `held_out` the best epoch is chosen on them, not on valid. A
    `choice` has a student for each candidate. A run of the kind "ratios" leaves the ratio of every row of
    `ratio_splits` behind, averaged over `snapshots` states of its second half; one of the kind "channels" fits a
    channel to the rows of `splits` with the students `judges`, one per fold, and trains nothing. With a `channel` the
    labels of outer and valid rows are denoised. `exact_sums` takes the steps of float32 parameters in float64, so that
    the order of a sum, and with it the number of workers or of students side by side, is lost in the rounding. With
    `compile` the dense part of the network is compiled code; of a batch at most `micro_rows` rows of a worker are in
    memory with their graph at once. Images are moved by `augment` (`training.augment`); of rows as the student sees
    them a teacher that is `live` is asked in every step, in place of stored logits. Without `measured` nothing is
    learned of the test rows.
    `alone`: rows count for this student as for no other, so that it shares no pack. With `profile` some steps are
    profiled. `arguments()` is what the artifact's digest covers: all but PLACES.
    """

    name: str
    kind: str
    artifact: str
    root: str
    folder: str
    table: str
    logits: tuple[str, ...] = ()
    ratios: tuple[str, ...] = ()
    channel: str | None = None
    live: str | None = None
    judges: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train",)
    fold: int = 0
    folds: int = 1
    held_out: bool = False
    outer_split: str = "outer"
    model: Mapping[str, Any] = field(default_factory=dict)
    optimizer: OptimizerSpec = field(default_factory=lambda: OptimizerSpec(kind="adam", learning_rate=1e-3))
    rule: Mapping[str, Any] = field(default_factory=lambda: {"kind": "labels"})
    fusion: Fusion = field(default_factory=Fusion)
    temperature: float = 1.0
    epochs: int = 10
    batch_rows: int = 1024
    micro_rows: int | None = None
    warm_up_steps: int = 0
    lower_at: tuple[float, ...] = ()
    patience: int = 3
    metric: str = "auc"
    class_weights: str = "none"
    oversample: int = 1
    precision: str = "fp32"
    exact_sums: bool = False
    compile: bool = False
    augment: str = "none"
    data_seed: int = 0
    model_seeds: tuple[int, ...] = (0,)
    ensemble: bool = False
    choice: Choice | None = None
    ratio_splits: tuple[str, ...] = ()
    snapshots: int = 8
    measured: bool = True
    alone: bool = False
    profile: bool = False
    log_every: int = 50
    checkpoint_seconds: float = 15.0
    evaluation_rows: int = 8192
    cache_bytes: int = 1 << 30

    def hessian_parts(self, rows: float) -> int:
        """In how many parts the products of a look-ahead read an inner batch of `rows`; 1: each reads all of it."""
        return max(int(rows / self.fusion.hessian_rows), 1) if self.fusion.look_ahead > 1 else 1

    def arguments(self) -> dict[str, Any]:
        """Everything that decides the numbers, JSON-ready; parents are named by digest beside it.

        What the rule does not use is left out, so that a change of it redoes no other run.
        """
        values = {"training": TRAINING, **asdict(self)}
        if self.kind == "channels":
            return {name: values[name] for name in CHANNEL_ARGUMENTS} | {"splits": list(self.splits)}
        values |= {"stored": STORED} if self.kind == "ratios" else {}
        for optimizer in (values["optimizer"], values["fusion"]["optimizer"]):
            if optimizer["embedding"] == "dense":
                del optimizer["embedding"], optimizer["embedding_rate"]
        if self.hessian_parts(self.batch_rows) == 1:
            del values["fusion"]["hessian_rows"]
        if not self.fusion.changes:
            del values["fusion"]["changes"]
        if self.fusion.hypergradient == "finite":
            values["fusion"]["finite"] = FINITE
        unused = [] if self.rule["kind"] in OUTER_RULES else ["fusion", "outer_split"]
        unused += ["fold", "folds"] if self.folds == 1 else []
        unused += ["micro_rows"] if self.micro_rows is None else []
        unused += ["compile"] if not self.compile else []
        unused += ["lower_at"] if not self.lower_at else []
        unused += ["augment"] if self.augment == "none" else []
        unused += ["held_out"] if not self.held_out else []
        unused += ["measured"] if self.measured else []
        unused += ["temperature"] if self.rule["kind"] == "labels" or self.choice is not None else []
        unused += ["choice"] if self.choice is None else []
        unused += ["ratio_splits", "snapshots"] if self.kind != "ratios" else []
        for name in (*PLACES, *unused):
            values.pop(name)
        if self.choice is not None:
            values["choice"].pop("incumbent")  # a parent, named by its content
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


@dataclass(frozen=True)
class Finished:
    """What came of one run: its artifact and metrics (`valid`, `test`, `history`, `ratio`), or the user's error."""

    name: str
    artifact: str
    digest: str
    metrics: Mapping[str, Any]
    reused: bool
    seconds: float
    error: UserError | None = None
