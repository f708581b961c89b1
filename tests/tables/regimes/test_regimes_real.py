"""Regimes on real rows: what the teacher never sees, whose labels are wrong and where, and what is natural."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tgeokd_ray.config.job import Job
from tgeokd_ray.config.sources import merged
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.tables.cards import load_card
from tgeokd_ray.tables.regimes.catalogue import build
from tgeokd_ray.tables.regimes.describing import describe
from tgeokd_ray.tables.regimes.regime import Regime
from tgeokd_ray.tables.regimes.writing import write

DATASETS = Path(__file__).resolve().parents[3] / "datasets"
FILES = {
    "nsl_kdd": "nsl_kdd/KDDTrain+.txt.gz",
    "gas": "msu_gas/gas_pipeline_10pct.arff.gz",
    "criteo": "criteo/criteo_first80k.tsv.gz",
}
# rows of train, outer, valid, test; classes that the teacher saw; share of wrong labels where labels are damaged
CLAIMS = {
    "nsl_kdd.both": ((400, 300, 300, 20_000), {"normal", "dos", "u2r"}, 0.4),
    "nsl_kdd.both.20000": ((20_000, 1000, 1000, 20_000), {"normal", "dos", "u2r"}, 0.4),
    "nsl_kdd.flip": ((400, 300, 300, 20_000), {"normal", "dos", "probe", "r2l", "u2r"}, 0.4),
    "gas.both": ((400, 300, 300, 3000), {"normal", "cmri", "recon"}, 0.5),
    "gas.both.noisy": ((400, 300, 300, 3000), {"normal", "cmri", "recon"}, 0.5),
    "gas.flip": (
        (400, 300, 300, 3000),
        {"normal", "nmri", "cmri", "msci", "mpci", "mfci", "dos", "recon"},
        0.5,
    ),
    "criteo": ((12_000, 4000, 4000, 16_000), {"0", "1"}, 0.0),
    "digits.both": ((450, 200, 147, 500), set("0123456"), 0.5),
    "digits.both.noisy": ((450, 200, 147, 500), set("0123456"), 0.5),
}
FAIR = {"nsl_kdd": 1.0, "criteo": 0.75}  # the reference where nothing is damaged; else .5
NOISY = {"nsl_kdd.flip", "gas.both.noisy", "gas.flip", "digits.both.noisy"}


@pytest.fixture(scope="module", params=CLAIMS)
def regime(request: pytest.FixtureRequest) -> Regime:
    name: str = request.param
    table = name.partition(".")[0]
    if table not in FILES:
        return build(name)
    file = request.getfixturevalue("real_data") / FILES[table]
    if not file.exists():
        pytest.skip(f"real data absent: {file}")
    return build(name, load_card(DATASETS / f"{table}.yaml"), [file])


def test_rows_of_every_split(regime: Regime) -> None:
    parts = regime.split(0)
    counts, seen, _ = CLAIMS[regime.name]
    assert tuple(len(parts[split]) for split in ("train", "outer", "valid", "test")) == counts
    together = np.concatenate(list(parts.values()))
    assert len(np.unique(together)) == len(together)
    assert {regime.classes[c] for c in regime.true[parts["teacher"]]} == seen
    assert np.array_equal(regime.split(1)["teacher"], parts["teacher"])
    assert regime.logits is None


def test_labels_are_wrong_in_the_region_of_the_damaged_splits(regime: Regime) -> None:
    share = CLAIMS[regime.name][2]
    for name, summary in describe(regime).items():
        expected = share if "labels damaged" in name else 0
        assert summary.label_noise == pytest.approx(expected, abs=0.05)
        assert summary.teacher_accuracy == ()
    if share:
        assert 0.4 < (regime.region % 2).mean() < 0.6
    noisy = {"train", "outer", "valid"} if regime.name in NOISY else {"train"} if share else set()
    wrong = {split: (regime.labels(split) != regime.true)[rows].any() for split, rows in regime.split(0).items()}
    assert {split for split, any_wrong in wrong.items() if any_wrong} == noisy
    assert regime.trusted == (regime.name not in {*NOISY, "criteo"})  # of criteo nobody knows


def test_the_reference_leaves_out_a_teacher_that_never_saw_the_class(regime: Regime) -> None:
    unseen = ~np.isin(np.array(regime.classes)[regime.true], list(CLAIMS[regime.name][1]))
    assert np.array_equal(regime.ratios[:, 1] == 0, unseen)
    wrong = (regime.given != regime.true) & ~unseen
    assert (regime.ratios[wrong, 1] == 1).all()
    assert np.array_equal(regime.region >= 2, unseen)
    assert set(regime.ratios[regime.region == 0, 1]) == {FAIR.get(regime.name.partition(".")[0], 0.5)}


def test_a_job_takes_the_settings_and_the_rows_are_written(regime: Regime, tmp_path: Path) -> None:
    job = Job.model_validate(merged(Job().model_dump(), regime.settings))
    assert (job.metric, job.teacher.model.members) == ("nll", 3)
    written = write(regime, 0, tmp_path)
    rows = pq.read_table(written.rows)
    assert written.teachers == ()
    assert rows["split"].to_pylist().count("teacher") == len(regime.taught)
    assert {*regime.numeric, *regime.categorical} < set(rows.column_names)


def test_a_teacher_that_was_asked_refines_the_reference() -> None:
    regime = build("digits.both")
    logits = np.eye(10)[np.where(regime.true == 3, 8, regime.true)][:, None]
    asked = regime.with_teacher(logits)
    assert (asked.ratios[regime.true == 3] == [1, 0]).all()
    assert np.array_equal(asked.ratios[regime.true != 3], regime.ratios[regime.true != 3])
    assert {len(summary.teacher_accuracy) for summary in describe(asked).values()} == {1}


def test_digits_need_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"the regime digits.both needs scikit-learn") as caught:
        build("digits.both")
    assert "tgeokd_ray[dev]" in str(caught.value.fix)


def test_the_card_of_another_table_and_too_few_rows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="made of the table gas, got the card criteo"):
        build("gas.both", load_card(DATASETS / "criteo.yaml"), [tmp_path / "x"])
    few = tmp_path / "few.tsv"
    few.write_text("0" + "\t1" * 13 + "\ta" * 26 + "\n")
    with pytest.raises(ConfigError, match="needs 76000 rows; got 1"):
        build("criteo", load_card(DATASETS / "criteo.yaml"), [few])
