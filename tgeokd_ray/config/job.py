"""The configuration of a job: frozen, complete, every default written out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from tgeokd_ray.config.training import Count, Model, Optimizer, Positive, TableOptimizer, Training
from tgeokd_ray.tables.card_damage import Damage
from tgeokd_ray.tables.cards import SPLITS
from tgeokd_ray.tables.validation import Strict, raise_all

Share = Annotated[float, Field(ge=0, le=1)]
LANES = 12  # of a global batch: a number of workers that does not divide them would change the numbers
Rival = Literal["ada", "wls", "frozen", "anl", "rw", "mgda", "bikd", "dkd", "dist"]
Metric = Literal["auc", "nll", "accuracy", "macro_f1", "average_precision"]


class Imported(Strict):
    """A teacher from elsewhere: a `file` (Parquet or CSV) of what it says of each row_id, in place of one of ours.

    `kind` where the columns do not tell it; `calibrate` fits one temperature on the valid rows; rows that are `missing`
    are refused, or learn from their labels alone. Nobody can check which rows such a teacher was trained on.
    """

    file: str | None = None
    kind: Literal["logits", "probabilities", "score"] | None = None
    calibrate: bool = False
    missing: Literal["refuse", "labels"] = "refuse"
    name: str | None = None


class Teacher(Strict):
    """The large network; it trains on the `teacher` split and never sees a student's row.

    With `folds` F > 1 there are F of them, trained on `train` but for a fold each, and every row is scored by the one
    that has not seen it. `in_sample` trains one on the student's own rows: distillation then gains little. With
    `hold_out` K one of K rows of its split is kept from it, and the best epoch is chosen on those, not on valid: for
    teachers that see other classes, or other labels, than students do.
    """

    model: Model = Model(kind="dcnv2", hidden=(128, 64), embedding=8, dropout=0.1, members=3)
    training: Training = Training(epochs=20, optimizer=TableOptimizer(learning_rate=2e-3))
    folds: Annotated[int, Field(ge=1, le=254)] = 1  # 254 and 255 mean something else in the column `fold`
    hold_out: Annotated[int, Field(ge=0, le=254)] = 0
    in_sample: bool = False
    imported: Imported = Imported()

    @field_validator("imported")
    @classmethod
    def _ours_or_theirs(cls, value: Imported, info: ValidationInfo) -> Imported:
        ours = info.data.get("in_sample") or info.data.get("folds", 1) > 1
        contradiction = "a file stands in place of a teacher of ours: leave out folds and in_sample, or the file"
        raise_all([contradiction] if value.file is not None and ours else [])
        return value

    @field_validator("hold_out")
    @classmethod
    def _some_rows(cls, value: int, info: ValidationInfo) -> int:
        folds = value > 0 and info.data.get("folds", 1) > 1
        alone = ["1 would hold out all rows; 10 holds out a tenth, 0 none"] if value == 1 else []
        raise_all(alone + (["contradicts folds: the rows of a fold are scored, not chosen on"] if folds else []))
        return value

    @field_validator("in_sample")
    @classmethod
    def _folds_or_in_sample(cls, value: bool, info: ValidationInfo) -> bool:
        both = value and info.data.get("folds", 1) > 1
        raise_all(["true contradicts folds: with folds no teacher scores its own rows; leave one out"] if both else [])
        return value

    @property
    def split(self) -> str:
        """The split that the teacher, or the teachers of all folds, train on."""
        return "train" if self.in_sample or self.folds > 1 else "teacher"


class Logits(Strict):
    """How the teacher's logits are stored, and of which splits. `top_k` keeps the largest k of a row and the mass of
    the rest; float16 and bfloat16 halve the bytes, and their error is measured and recorded."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    top_k: Count | None = None
    splits: tuple[Literal["teacher", "train", "outer", "valid", "test"], ...] = ("train", "outer", "valid", "test")

    @field_validator("splits")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        raise_all(["must name at least one split, and each once"] if not value or len(set(value)) < len(value) else [])
        return tuple(split for split in SPLITS if split in value)


class Student(Strict):
    """The small network, the same for every rule."""

    model: Model = Model(kind="mlp", hidden=(16,), embedding=4)
    training: Training = Training(epochs=30, exact_sums=True, optimizer=TableOptimizer(learning_rate=5e-3))


class Fusion(Strict):
    """The fusion network and its outer steps: every `every` inner steps, after the share `warm_up` of all steps.

    An outer gradient is pulled back through `look_ahead` inner steps, by products with a Hessian of about
    `hessian_rows` rows or more; `hypergradient` is how: reverse mode twice, `forward` mode (for students whose backward
    pass torch cannot differentiate), or `finite` differences (for any student). With `disagreement` the network also
    sees how far several teachers are apart on a row. The rule `tgeo_one_step` looks one step ahead, and has two options
    of its own: `centred`, and as `level` its mean ratio, a number or `chosen` for the constant that won on valid. By
    `changes`, pairs of an epoch and a rate, the optimizer has another learning rate from that epoch on. The rule `tgeo`
    takes the mean ratio of `members` networks, each beside a student of its own.
    """

    features: Literal["label_aligned", "without_means", "label_free", "paper", "vertices", "edges"] = "label_aligned"
    disagreement: bool = False
    hidden: Count = 32
    centred: bool = True
    level: Literal["chosen"] | Annotated[float, Field(gt=0, lt=1)] = "chosen"
    every: Count = 4
    batch_rows: Count = 2048
    warm_up: Share = 0.05
    hypergradient: Literal["split", "forward", "finite"] = "split"
    look_ahead: Count = 20
    hessian_rows: Count = 256
    members: Count = 1
    optimizer: Optimizer = Optimizer(learning_rate=3e-3)
    changes: tuple[tuple[Count, Positive], ...] = ()

    @field_validator("changes")
    @classmethod
    def _in_order(cls, value: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        epochs = [epoch for epoch, _ in value]
        raise_all([] if epochs == sorted(set(epochs)) else [f"the epochs must rise, got {epochs}"])
        return value


class Distill(Strict):
    """What students learn from the teacher: the temperature, or `more_temperatures` to choose from on valid, as are the
    constants; the learned ratio.

    A constant is the weight of the teachers together, in equal parts; `mixtures` are more constants, each with one
    weight for every teacher. The rest is the labels'. `rivals` are other rules to compare with. The rule `tgeo` learns
    which rows deserve more teacher, then trains students with that ratio at each of `strengths` and `shifts` of its
    level, with `halving` fewer as they go, and keeps the best on valid, or the best constant unless the gain is more
    than `margin` of its standard errors, which AUC, NLL and accuracy have. `ratios` names ones learned before, under
    ROOT/ratios, in place of learning.
    Results tell what the ratio does by value of the columns `segments` (none: of the categorical ones of few values
    those that differ most), and beside the known ratios in the Parquet file `truth`, as regimes write it.
    With a `live` teacher it is asked in each step, of the rows as the student sees them; `stored` logits, the default,
    are of the rows as they are, which with `student.training.augment` is another thing.
    A `channel` denoises the labels of outer and valid rows, by which all is chosen; `auto` asks for one where the
    teacher and labels that no card calls trusted contradict each other.
    """

    rule: Literal["tgeo", "tgeo_one_step"] = "tgeo"
    temperature: Positive = 1.0
    more_temperatures: tuple[Positive, ...] = ()
    constants: tuple[Share, ...] = (0.25, 0.5, 0.75, 0.9, 1.0)
    mixtures: tuple[tuple[Share, ...], ...] = ()
    rivals: tuple[Rival, ...] = ()
    ratios: tuple[str, ...] = ()
    strengths: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    shifts: Annotated[tuple[float, ...], Field(min_length=1)] = (-3.0, -1.5, 0.0, 1.5, 3.0)
    margin: Annotated[float, Field(ge=0)] = 1.0
    halving: bool = True
    segments: tuple[str, ...] = ()
    truth: str | None = None
    channel: Literal["auto", "on", "off"] = "auto"
    teacher: Literal["stored", "live"] = "stored"
    fusion: Fusion = Fusion()

    @field_validator("channel", mode="before")
    @classmethod
    def _as_yaml_reads_it(cls, value: object) -> object:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("constants")
    @classmethod
    def _some_constant(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        raise_all([] if value else ["must name at least one ratio, got none"])
        return value

    @field_validator("mixtures")
    @classmethod
    def _sums(cls, value: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        above = [weights for weights in value if sum(weights) > 1 + 1e-9]
        raise_all([f"the weights of a mixture sum to at most 1, got {list(weights)}" for weights in above])
        return value

    @property
    def temperatures(self) -> tuple[float, ...]:
        """All temperatures to choose from, each once."""
        return tuple(dict.fromkeys((self.temperature, *self.more_temperatures)))


class Job(Strict):
    """One distillation job, from raw files to a table of results. `damage` is that of the card where it has one; with
    `profile` every run that is trained leaves a table and a trace of where the time of its steps goes."""

    card: str = "synthetic_ctr"
    data: tuple[str, ...] = ()
    damage: Damage | None = None
    root: str = "artifacts"
    run: str | None = None
    workers: int = 1
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    device: Literal["cpu", "cuda", "auto"] = "auto"
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    threads: Count = 1
    feed: Literal["direct", "ray_data"] = "ray_data"
    metric: Metric = "auc"
    checkpoint_seconds: Positive = 15.0
    profile: bool = False
    teacher: Teacher = Teacher()
    logits: Logits = Logits()
    student: Student = Student()
    distill: Distill = Distill()

    @field_validator("workers")
    @classmethod
    def _divides_the_lanes(cls, value: int) -> int:
        allowed = [n for n in range(1, LANES + 1) if LANES % n == 0]
        rule = f"must divide the {LANES} lanes of a batch: one of {', '.join(map(str, allowed))}"
        raise_all([] if value in allowed else [f"{rule}, got {value}"])
        return value
