"""The ratio that a run reports is the teachers' share of the weights, whatever rows sum to."""

from __future__ import annotations

from training_runs import run


def test_the_ratio_of_an_additive_rule_is_a_share(small) -> None:  # type: ignore[no-untyped-def]
    (finished,) = run(small.spec("wls", rule={"kind": "wls"}, epochs=2))
    most = 2.25 / 3.25
    assert 0.3 < finished.metrics["ratio"]["mean"] < most
    counts = finished.metrics["ratio"]["histogram"]["counts"]
    assert sum(counts) == 600
    assert not any(counts[14:]), "no row has a share above 2.25 / 3.25"
    assert all(0.3 < entry["ratio"] < most for entry in finished.metrics["history"])
