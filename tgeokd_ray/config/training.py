"""What a network is and how it is trained: the parts of a job's configuration that teacher and student share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tgeokd_ray.tables.validation import Grown, Strict, raise_all

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Model(Grown):
    """A network of `models/`: what `models.build` takes. `embedding` is the width of a categorical value; `depth` and
    `width` are those of networks of images, 6 n + 2 layers of a resnet and 6 n + 4 of a wrn, which drop nothing.

    More than one member: that many networks, each trained on its own, whose mean probabilities are the model.
    """

    kind: Literal["mlp", "wide_deep", "dcnv2", "resnet", "wrn"] = "mlp"
    hidden: tuple[Count, ...] = (64, 64)
    embedding: Count = 8
    cross_layers: Count = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    members: Count = 1
    depth: Count | None = None
    width: Count = 1

    LATER: ClassVar[tuple[str, ...]] = ("depth", "width")

    @model_validator(mode="after")
    def _layers(self) -> Self:
        beyond, depth = {"resnet": 2, "wrn": 4}.get(self.kind), self.depth or 0
        fits = beyond is None or (depth > beyond and (depth - beyond) % 6 == 0)
        dropped = beyond is not None and self.dropout > 0
        raise_all(
            ([] if fits else [f"depth of a {self.kind} must be 6 n + {beyond}, got {self.depth}"])
            + ([f"dropout must be 0: a {self.kind} drops nothing, got {self.dropout:g}"] if dropped else [])
        )
        return self


class Optimizer(Strict):
    """How parameters move; `clip_norm` bounds the global gradient norm before the update."""

    kind: Literal["sgd", "momentum", "nesterov", "adagrad", "adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    clip_norm: Positive | None = None


class TableOptimizer(Optimizer):
    """How the parameters of a network with an embedding table move.

    With an `embedding` other than `dense` the table moves by that kind, at `embedding_rate` times the learning rate and
    without decay: a step then costs what its batch names, however many ids the table has.
    """

    embedding: Literal["dense", "sgd", "adagrad", "rowwise_adagrad", "lazy_adam"] = "dense"
    embedding_rate: Positive = 1.0


class Training(Strict):
    """How long, in which batches, and how rare classes count. `oversample` caps how often a rare row is repeated.

    `patience` epochs without a better result on valid end the run. Rare classes are corrected for once: by
    `class_weights` or by `oversample`. With `exact_sums` steps of float32 parameters are computed in float64: the
    number of workers then changes nothing, which costs a tenth to a third of the pace; other precisions know no such
    thing. With `compile` the dense part of the network is compiled code (torch.compile), which takes up to a minute
    once and pays for large networks and many steps; the inner half of an outer step does without. `micro_rows` bounds
    the memory of a step: gradients are gathered over so many rows of a worker at a time, at the price of one more
    forward pass, and of one more pass for each product with the Hessian. `augment` moves images within a black border,
    an eighth of their side wide (`crop`), and mirrors one of two (`crop_flip`), anew in each epoch. After each share
    `lower_at` of the epochs the learning rate is a tenth of what it was.
    """

    epochs: Count = 10
    batch_rows: Count = 1024
    micro_rows: Count | None = None
    warm_up_steps: Annotated[int, Field(ge=0)] = 0
    lower_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    patience: Annotated[int, Field(ge=0)] = 3
    class_weights: Literal["none", "balanced"] = "none"
    oversample: Count = 1
    exact_sums: bool = False
    compile: bool = False
    augment: Literal["none", "crop", "crop_flip"] = "none"
    optimizer: TableOptimizer = TableOptimizer()

    @field_validator("oversample")
    @classmethod
    def _corrected_once(cls, value: int, info: ValidationInfo) -> int:
        twice = value > 1 and info.data.get("class_weights") == "balanced"
        why = "repeats rare rows, which class_weights: balanced already weighs up; set class_weights: none, or 1 here"
        raise_all([f"{value} {why}"] if twice else [])
        return value
