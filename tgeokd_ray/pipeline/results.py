"""`results.json`: what a job found, in the form that scripts read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.config.job import Job
from tgeokd_ray.pipeline.chain import Stage
from tgeokd_ray.pipeline.denoising import SUSPICIOUS_FILE
from tgeokd_ray.pipeline.effect import Learned
from tgeokd_ray.pipeline.plans import chosen
from tgeokd_ray.pipeline.verdict import verdict
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.training.spec import Finished

FORMAT = 1
FIGURES = ("auc", "nll", "accuracy", "macro_f1")
PER_CLASS = ("recall", "predicted_over_observed", "by_class")
MORE = (
    "average_precision",
    "recall",
    "detection_rate",
    "ece",
    "predicted_over_observed",
    "calibration",
    "auc_interval",
    "nll_interval",
    "accuracy_interval",
)


def build_results(
    job: Job,
    run: str,
    card: Card,
    table: Artifact,
    finished: Sequence[Finished],
    stages: Sequence[Stage],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """All metrics are on the test split; one that is undefined is null, with a line in `warnings`, never NaN.

    The constant that was best on valid by the job's metric carries `chosen: true`. Classes go by their names in the
    card; `table.display` has the names for reports of those that the card gives one; `table.damage` is there, as in the
    manifest's schema, where the table is damaged on purpose. A warning is one line.
    """
    schema = table.manifest.schema
    lines = list(warnings)
    constants = [run.name for run in finished if run.name.startswith("constant-")]
    best = chosen(finished, constants, job.metric)
    models = []
    for run_ in finished:
        if run_.error is not None:
            lines.append(f"{run_.name}: {run_.error}")
            continue
        if "mean_logit" in run_.metrics:  # of a ratio, which is no model
            continue
        if run_.metrics["test"] is None:
            lines.append(f"{run_.name}: no figures, for its logits leave out the split test")
            continue
        model = model_entry(run_, schema["classes"])
        if run_.name == best:
            model["chosen"] = True
        models.append(model)
        undefined = by_name(run_.metrics["test"], schema["classes"]).get("undefined", {})
        lines += [f"{run_.name}: {name} is undefined on test: {why}" for name, why in undefined.items()]
    return {
        "format": FORMAT,
        "run": run,
        "seed": job.seed,
        "card": card.name,
        "metric": job.metric,
        "table": {
            "digest": table.digest,
            "artifact": table.label,
            "rows": schema["rows"],
            "classes": schema["classes"],
            "display": dict(card.label.display),
            **({"damage": schema["damage"]} if "damage" in schema else {}),
        },
        "models": models,
        "stages": [asdict(stage) for stage in stages],
        "warnings": ["; ".join(part.strip() for part in line.splitlines()) for line in lines],
        "extra": dict(schema.get("extra", {})),
    }


def told_ratio(models: Sequence[Mapping[str, Any]], ratio: tuple[Learned, Mapping[str, Any]] | None) -> dict[str, Any]:
    """`ratio` of `extra`: the verdict, which ratio it tells of, and what that does; nothing where none was stored."""
    if ratio is None:
        return {}
    learned, effect = ratio
    told = {"verdict": verdict(learned.choice, models), "pays": learned.choice["pays"]}
    return {"ratio": {**told, **learned.told, "effect": effect}}


def channel_entry(run: Finished, classes: Sequence[str]) -> dict[str, Any]:
    """What a channel says of the given labels, classes by name, and where the suspicious ones are listed."""
    told = by_name(run.metrics["channel"], classes)
    return told | {"artifact": "/".join(run.artifact.split("/")[-3:]), "digest": run.digest, "file": SUSPICIOUS_FILE}


def model_entry(run: Finished, classes: Sequence[str]) -> dict[str, Any]:
    """One entry of `models`: role, rule, figures on test, and what more is known about the run."""
    metrics, test = run.metrics, by_name(run.metrics["test"], classes)
    teacher = run.name == "teacher"
    entry: dict[str, Any] = {
        "name": run.name,
        "role": "teacher" if teacher else "student",
        "rule": None if teacher else metrics["rule"],
        "parameters": metrics["parameters"],
        **{name: test[name] for name in FIGURES},
        "rows": test["rows"],
        "artifact": "/".join(run.artifact.split("/")[-3:]),
        "digest": run.digest,
        "rows_per_second": metrics.get("rows_per_second"),
        "epoch": metrics["epoch"],
        "valid": {name: (metrics["valid"] or {}).get(name) for name in FIGURES},
        "history": metrics["history"],
    }
    entry |= {name: test[name] for name in MORE if test.get(name) is not None}
    if "ratio" in metrics:
        entry["ratio"] = by_name(metrics["ratio"], classes)
    if "choice" in metrics:
        entry["rule"] = {"kind": "tgeo", **chosen_ratio(metrics["choice"])}
        entry["choice"] = metrics["choice"]
    return entry


def chosen_ratio(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Strength and shift of the ratio per row that was chosen; strength 0 and the `value` of the constant that won."""
    chosen = choice["chosen"]
    if choice["pays"]:
        return {name: chosen[name] for name in ("strength", "shift", "temperature")}
    return {"strength": 0.0, "value": chosen["value"]}


def by_name(figures: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Figures of an evaluation or a ratio, whose classes are numbers, with the names of the classes in their place.

    That goes for what is told per class, and for the measures and the reasons under `undefined`.
    """
    named = dict(figures)
    for key in PER_CLASS:
        if isinstance(named.get(key), Mapping):
            named[key] = {classes[int(index)]: value for index, value in named[key].items()}
    if "undefined" in named:
        named["undefined"] = {
            re.sub(r"\.(\d+)$", lambda found: f".{classes[int(found[1])]}", measure): re.sub(
                r"\bclass (\d+)\b", lambda found: f"class {classes[int(found[1])]}", why
            )
            for measure, why in named["undefined"].items()
        }
    return named
