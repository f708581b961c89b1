"""A plausible run, invented, with every key that a report can show."""

from __future__ import annotations

from typing import Any

import pytest

MODELS = [
    ("teacher", "teacher", None, 0.7862, 0.4712),
    ("labels", "student", {"kind": "labels"}, 0.7701, 0.4838),
    ("constant-0.25", "student", {"kind": "constant", "value": 0.25}, 0.7733, 0.4817),
    ("constant-0.75", "student", {"kind": "constant", "value": 0.75}, 0.7764, 0.4796),
    ("tgeo", "student", {"kind": "tgeo_one_step"}, 0.7791, 0.4772),
]


def model(name: str, role: str, rule: dict[str, Any] | None, auc: float, nll: float) -> dict[str, Any]:
    return {
        "name": name,
        "role": role,
        "rule": rule,
        "parameters": 1_842_371 if role == "teacher" else 61_257,
        "auc": auc,
        "nll": nll,
        "accuracy": 0.79,
        "macro_f1": 0.6543,
        "rows": 60_000,
        "artifact": f"students/{name}/v000001",
        "digest": "91bc3f2a" * 8,
        "auc_interval": [auc - 0.003, auc + 0.004],
        "average_precision": 0.5591,
        "detection_rate": {"0.01": 0.0982, "0.001": 0.0156},
        "recall": {"no click": 0.9, "click": 0.449},
        "rows_per_second": 188_000.4,
        "calibration": [{"rows": 9.0, "confidence": p, "accuracy": p - 0.02} for p in (0.55, 0.75, 0.95)],
        "history": [
            {"epoch": 1, "step": 340, "loss": 0.51, "valid_auc": 0.7, "valid_nll": 0.52},
            {"epoch": 2, "step": 680, "loss": 0.47, "valid_auc": auc, "valid_nll": None},
        ],
    }


@pytest.fixture
def results() -> dict[str, Any]:
    models = [model(*entry) for entry in MODELS]
    models[3]["chosen"] = True
    histogram = {"edges": [0.0, 0.25, 0.5, 0.75, 1.0], "counts": [10, 200, 400, 31]}
    models[4]["ratio"] = {"mean": 0.58, "histogram": histogram, "by_class": {"no click": 0.61, "click": None}}
    return {
        "format": 1,
        "run": "demo",
        "seed": 0,
        "card": "synthetic_ctr",
        "metric": "nll",
        "table": {
            "digest": "3f2a91bc" * 8,
            "artifact": "tables/synthetic_ctr/v000001",
            "rows": {"train": 180_000, "test": 60_000},
            "classes": ["no click", "click"],
            "display": {},
        },
        "models": models,
        "stages": [
            {"name": "encode", "seconds": 6.213, "rows": 400_000, "reused": False},
            {"name": "teacher", "seconds": 0.1, "rows": 0, "reused": True},
        ],
        "warnings": ["column 'device_id': 3.1 % of rows hold values never seen in train"],
        "extra": {"bayes_auc": 0.8011},
        "config": {"seed": 0, "student": {"hidden": [64, 32]}},
    }


RATE, HIDDEN = "student.training.optimizer.learning_rate", "student.model.hidden"
SPACE = {
    RATE: {"log_uniform": [1e-4, 1e-1]},
    "rule": {"choice": ["labels", "constant", "tgeo"]},
    "constant": {"uniform": [0, 1], "when": {"rule": "constant"}},
    HIDDEN: {"choice": [[16], [32, 16]]},
}
POINTS = [
    ("t-a", "finished", 0.7312, {RATE: 0.003, "rule": "tgeo", HIDDEN: [32, 16]}),
    ("t-b", "finished", 0.7250, {RATE: 0.03, "rule": "constant", "constant": 0.25, HIDDEN: [16]}),
    ("t-c", "finished", 0.7101, {RATE: 0.0002, "rule": "labels", HIDDEN: [16]}),
    ("t-d", "stopped", 0.7003, {RATE: 0.0001, "rule": "tgeo", HIDDEN: [32, 16]}),
    ("t-e", "failed", None, {RATE: 0.1, "rule": "tgeo", HIDDEN: [16]}),
    ("t-f", "failed", None, {RATE: 0.09, "rule": "labels", HIDDEN: [16]}),
]


def trial(name: str, status: str, value: float | None, point: dict[str, Any], rank: int | None) -> dict[str, Any]:
    epochs = {"finished": 3, "stopped": 1, "failed": 0}[status]
    failed = status == "failed"
    return {
        "rank": rank,
        "name": name,
        "point": point,
        "status": status,
        "value": value,
        "curve": [] if value is None else [value - 0.01 * k for k in reversed(range(epochs))],
        "epochs": epochs,
        "steps": 40 * epochs,
        "seconds": 3.1,
        "students": 1,
        "parameters": None if failed else 1234,
        "reason": "numeric: the loss is not finite\n  next: lower the rate" if failed else None,
        "code": "numeric" if failed else None,
        "figures": {} if failed else {"auc": value, "nll": None},
    }


@pytest.fixture
def swept(results: dict[str, Any]) -> dict[str, Any]:
    """A sweep of six trials with the student of the best one."""
    trials = [trial(*entry, k + 1 if entry[1] == "finished" else None) for k, entry in enumerate(POINTS)]
    results["models"] = [results["models"][0], model("best", "student", {"kind": "tgeo_one_step"}, 0.7291, 0.4772)]
    results["extra"]["sweep"] = {
        "name": "lr",
        "metric": "auc",
        "higher_is_better": True,
        "search": "random",
        "scheduler": "asha",
        "seeds": 1,
        "resumed": False,
        "space": SPACE,
        "trials": trials,
        "counts": {"finished": 3, "stopped": 1, "failed": 2, "unfinished": 0},
        "best": "t-a",
        "importance": {RATE: 0.71, "rule": 0.2, HIDDEN: 0.09},
        "importance_note": None,
        "cost": {"cpu_hours": 0.123, "gpu_hours": 0.0, "trial_seconds": 412.0},
        "seconds": 231.4,
        "budget_minutes": None,
    }
    return results
