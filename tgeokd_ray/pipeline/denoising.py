"""Labels that nobody has vouched for: whether a channel denoises them, and the plan that fits it before students."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.events import Progress
from tgeokd_ray.pipeline.evidence import evidence
from tgeokd_ray.pipeline.plans import StudentsPlan, fold_name
from tgeokd_ray.training.spec import Finished, RunSpec

JUDGED = ("train", "outer", "valid")
FOLDS = 5
SUSPICIOUS_FILE = "suspicious.parquet"  # in the run folder
SURPRISED = 0.2  # nats: what 2 % of wrong labels cost a teacher that is sure of each


@dataclass(frozen=True)
class DenoisingPlan:
    """The student on labels once without each fold, the channel that these judge, and then the students of `students`,
    with denoised labels in outer and valid rows."""

    judges: tuple[RunSpec, ...]
    channel: RunSpec
    students: StudentsPlan

    def __call__(self, finished: Sequence[Finished]) -> Sequence[RunSpec]:
        if not finished:
            return self.judges
        if any(run.error is not None for run in finished[: self.before]):
            return ()
        if len(finished) == len(self.judges):
            return (replace(self.channel, judges=tuple(run.artifact for run in finished)),)
        return denoised(self.students, finished[self.before - 1].artifact)(finished[self.before :])

    @property
    def before(self) -> int:
        """The number of runs before the first student; the channel is the last of them."""
        return len(self.judges) + 1

    def told(self, finished: Sequence[Finished]) -> tuple[Finished, list[Finished]]:
        """The channel and the students among all runs of the plan; raises the error of a judge or of the channel."""
        for run in finished[: self.before]:
            if run.error is not None:
                raise run.error
        return finished[self.before - 1], list(finished[self.before :])


def denoising_plan(students: StudentsPlan, card: str) -> DenoisingPlan:
    """The plan that puts a channel before `students`: the judges are its student on labels, trained on train, outer and
    valid rows but for a fold, whose labels stop it, by their likelihood and without any correction for rare classes."""
    labels = students.controls[0]
    judges = judges_of(labels, f"{card}-judge", "judge", JUDGED)
    channel = replace(labels, name="channel", kind="channels", artifact=card, splits=JUDGED, folds=FOLDS, alone=True)
    return DenoisingPlan(judges, channel, students)


def judges_of(labels: RunSpec, artifact: str, name: str, splits: tuple[str, ...]) -> tuple[RunSpec, ...]:
    """The student on `labels`, trained on these splits once without each fold, whose labels stop it: what it says of
    rows that it has not seen."""
    plain = replace(labels, logits=(), splits=splits, folds=FOLDS, metric="nll", class_weights="none", oversample=1)
    return tuple(
        replace(
            plain,
            name=f"{name}-fold{fold}",
            artifact=fold_name(artifact, fold, FOLDS),
            fold=fold,
            held_out=True,
        )
        for fold in range(FOLDS)
    )


def denoised(students: StudentsPlan, channel: str) -> StudentsPlan:
    """The same plan by the labels of this channel: outer steps and choices go by them, and shapes learn how far the
    ratio is from what the channel says of the teacher."""
    controls = tuple(replace(one, channel=channel) for one in students.controls)
    shapes = tuple(replace(one, channel=channel, rule={**one.rule, "offset": True}) for one in students.shapes)
    learned = None if students.learned is None else replace(students.learned, channel=channel)
    return replace(students, controls=controls, shapes=shapes, learned=learned)


def denoises(job: Job, card: str, root: Path, table: Artifact, logits: Sequence[Artifact], progress: Progress) -> bool:
    """Whether a channel is wanted: as `distill.channel` says, or by the evidence where that is `auto`.

    The evidence: no row is trusted, and the labels of outer and valid rows surprise the teacher by 0.2 nats more than
    it expects. Without a channel such labels are warned of; so are trusted rows that one is to denoise. Logits of some
    splits alone are no evidence, and ConfigError where one is asked for.
    """
    asked = job.distill.channel
    trusted = bool(table.manifest.schema.get("trusted"))
    if asked == "on" and trusted:
        progress.warned("distill.channel=on denoises labels that the card calls trusted; auto leaves them alone")
    lacking = [split for split in JUDGED if not all(split in _scored(one) for one in logits)]
    if asked == "on" and lacking:
        problem = Problem(
            "distill.channel=on needs the teacher's logits", expected=", ".join(JUDGED), got=f"no {lacking[0]}"
        )
        raise ConfigError([problem], fix="name these splits in logits.splits, or leave the channel off")
    if asked == "on" or trusted or lacking:
        return asked == "on"
    seen = evidence(root, card, table, logits)
    surprised = seen["found"] - seen["expected"] > SURPRISED
    if surprised and asked == "off":
        progress.warned(
            f"labels of outer and valid rows contradict the teacher ({seen['found']:.2f} nats, it expects "
            f"{seen['expected']:.2f}) and no row is trusted: choices may follow wrong labels; name trusted rows in the "
            "card, or set distill.channel=auto"
        )
    return surprised and asked == "auto"


def _scored(logits: Artifact) -> set[str]:
    """The splits that have logits."""
    return {entry.extra["split"] for entry in logits.manifest.files if "split" in entry.extra}
