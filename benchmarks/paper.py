"""The protocol of TGeo-KD's paper on Criteo, our figures beside its table 3: two columns that can not be compared.

python benchmarks/paper.py [--quick] [--json]

Needs the first rows of Criteo's train file, as in benchmarks/quality.py. The paper has the first 100,000; with fewer
all parts shrink alike. `datasets/protocols/criteo_paper.yaml` is the protocol. Means over seeds on test; the constant
predictor says "no click" of every row. --quick: one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import mean
from typing import Any

from figures import Figure, main
from quality import absent, data, model, runs

CARD = "datasets/protocols/criteo_paper.yaml"
# Table 3 of the paper, Criteo: accuracy and AUC in %, NLL.
PAPER: dict[str, tuple[float, float, float] | None] = {
    "teacher": (78.15, 79.08, 0.77),
    "labels": (69.43, 69.02, 1.79),
    "constant-0.3": (71.08, 69.42, 1.51),
    "anl": (72.71, 71.02, 1.08),
    "ada": (72.15, 71.01, 1.15),
    "wls": (75.30, 75.03, 0.82),
    "rw": (75.05, 75.11, 0.89),
    "tgeo": (77.80, 77.00, 0.81),
    "constant": None,  # the one that is best on valid
}
NO_CLICK = 77.14  # accuracy of "no click" on the paper's test rows, by its authors' labels
Results = dict[str, Any]


def table_3(quick: bool) -> Iterator[Figure]:
    """Accuracy, AUC and NLL of every rule, the paper's beside, and the accuracy of saying no click."""
    files = data("criteo/criteo_first80k.tsv.gz")
    if files is None:
        yield absent("paper.criteo")
        return
    found = runs("ctr_distill.py", "criteo_paper", ["--card", CARD, "--data", *files], quick)
    for role, theirs in PAPER.items():
        entries = [model(one, role) for one in found]
        values = [100 * mean(e["accuracy"] for e in entries), 100 * mean(e["auc"] for e in entries)]
        values.append(mean(e["nll"] for e in entries))
        for place, (name, value) in enumerate(zip(("accuracy", "auc", "nll"), values, strict=True)):
            seeds = [entry[name] * (1 if name == "nll" else 100) for entry in entries]
            context = {"paper": None if theirs is None else theirs[place], "seeds": len(entries)}
            unit = "nats" if name == "nll" else "%"
            yield Figure(f"paper.criteo.{role}.{name}", value, unit, "reported", True, sorted(seeds), context)
    share = mean(no_click(one) for one in found)
    context = {"paper": NO_CLICK, "seeds": len(found)}
    yield Figure("paper.criteo.no_click.accuracy", 100 * share, "%", "reported", True, context=context)


def no_click(results: Results) -> float:
    """The share of test rows without a click, from a model's accuracy: the mean of its recalls by that share."""
    teacher = model(results, "teacher")
    none, click = teacher["recall"]["0"], teacher["recall"]["1"]
    return float((teacher["accuracy"] - click) / (none - click))


MEASURES: dict[str, Callable[[bool], Iterator[Figure]]] = {"table_3": table_3}

if __name__ == "__main__":
    main("paper", MEASURES)
