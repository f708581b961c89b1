"""The sentence that says whether a ratio per sample pays, and columns whose quarters are one value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tgeokd_ray.artifacts import staging
from tgeokd_ray.pipeline.segments import segments_of
from tgeokd_ray.pipeline.verdict import verdict

MODELS = [{"name": "constant-0.75", "chosen": True, "auc": 0.8095, "nll": 0.44}, {"name": "constant-1", "auc": 0.9}]


def choice(metric: str, learned: float, constant: float, test: float, *, pays: bool) -> dict[str, Any]:
    best = {"strength": 2.0, "shift": -1.5, "temperature": 1.0, "valid": learned, "test": {metric: test}}
    known = {"kind": "constant", "value": 0.75, "valid": constant}
    return {"metric": metric, "pays": pays, "best": best, "constant": known, "chosen": best if pays else known}


def test_a_ratio_that_pays() -> None:
    assert verdict(choice("nll", 0.41, 0.43, 0.42, pays=True), MODELS) == (
        "A ratio per sample pays here: NLL on valid is 0.4100 (strength 2, shift -1.5) against 0.4300 of the best "
        "constant, 0.75: 0.0200 better; on test it is 0.4200 against 0.4400."
    )


def test_test_rows_that_say_the_opposite_are_heard() -> None:
    said = verdict(choice("auc", 0.8056, 0.8029, 0.8083, pays=True), MODELS)
    assert said.startswith("A ratio per sample pays on valid, but not on test: AUC on valid is 0.8056 ")
    assert said.endswith("0.0027 better; on test it is 0.8083 against 0.8095.")
    assert "pays on valid, but not on test" in verdict(choice("nll", 0.41, 0.43, 0.45, pays=True), MODELS)
    assert verdict(choice("auc", 0.8056, 0.8029, 0.8195, pays=True), MODELS[1:]).endswith("0.75: 0.0027 better.")


def test_a_gain_that_nothing_tests_is_said_to_be_untested() -> None:
    """Of an AUC of rows with weights, and of some metrics, there is no standard error: the margin can not be held."""
    told = choice("auc", 0.8056, 0.8029, 0.8195, pays=True)
    untested = ": 0.0027 better, untested, for it has no standard error here; on test it is"
    assert untested in verdict(told | {"standard_error": None}, MODELS)
    assert "untested" not in verdict(told, MODELS)  # of a version that did not say
    assert "0.0027 better, with a standard error of 0.0010; on" in verdict(told | {"standard_error": 0.001}, MODELS)


def test_a_ratio_that_does_not_pay() -> None:
    assert verdict(choice("auc", 0.8011, 0.8029, 0.8083, pays=False), MODELS) == (
        "No ratio per sample pays here: AUC on valid is at best 0.8011 (strength 2, shift -1.5) against 0.8029 of the "
        "constant 0.75, which is kept."
    )


def test_a_gain_within_its_error_is_told_with_it() -> None:
    told = choice("nll", 0.4100, 0.4113, 0.42, pays=False) | {"gain": 0.0013, "standard_error": 0.0021, "margin": 1.0}
    said = "of the constant 0.75, which is kept: only 0.0013 better, with a standard error of 0.0021."
    assert verdict(told, MODELS).endswith(said)
    told |= {"pays": True, "standard_error": 0.0004}
    assert "0.0013 better, with a standard error of 0.0004; on test it is" in verdict(told, MODELS)


def test_mixtures_temperatures_and_a_choice_without_a_constant() -> None:
    told = choice("average_precision", 0.5, 0.4, 0.5, pays=True)
    told["constant"]["value"], told["best"]["temperature"] = [0.5, 0.25], 2.0
    said = verdict(told, [])
    assert "average precision on valid is 0.5000 (strength 2, shift -1.5, temperature 2)" in said
    assert "of the best constant, 0.5 0.25: 0.1000 better." in said
    alone = {"metric": "auc", "pays": True, "chosen": told["best"]}
    point = "(strength 2, shift -1.5, temperature 2)"
    expected = f"A ratio per sample was chosen by AUC on valid {point}; there is no constant to compare with."
    assert verdict(alone, []) == expected


def test_a_number_that_is_mostly_one_value_has_fewer_groups(tmp_path: Path) -> None:
    values = np.repeat(np.array([0.0, 3.0], np.float32), [80, 20])
    shard = pa.table({"numeric": pa.FixedSizeListArray.from_arrays(pa.array(values), 1)})
    with staging(tmp_path, "tables", "flags", arguments={}, parents={}) as stage:
        stage.write("train-0.parquet", lambda path: pq.write_table(shard, path), rows=100, extra={"split": "train"})
        table = stage.commit(schema={"numeric": ["n"], "categorical": []}, record={})
    ((segment, names),) = segments_of(table, ["n"])
    assert (segment.cuts, names) == ((0.0,), ["0 to 75 %", "75 to 100 %"])
