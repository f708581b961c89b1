"""The journal of a sweep: whole entries or none, equal points with one name, an order for the leaderboard."""

from __future__ import annotations

from pathlib import Path

from tgeokd_ray.pipeline.sweep_journal import Journal, Trial, ranked, trial_name

POINT = {"rule": "constant", "constant": 0.5, "student.model.hidden": [8]}


def entry(point: dict[str, object], **changes: object) -> Trial:
    values: dict[str, object] = {"status": "finished", "value": 0.7, "curve": (0.6, None, 0.7), "raw": {"rule": 1}}
    return Trial(trial_name(point), point, **{**values, **changes})  # type: ignore[arg-type]


def test_an_entry_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    journal, trial = Journal(tmp_path), entry(POINT)
    assert journal.get(trial.name) is None
    assert journal.known() == {}
    journal.keep(trial)
    assert Journal(tmp_path).known() == {trial.name: trial}


def test_equal_points_have_one_name_whatever_their_order() -> None:
    assert trial_name(POINT) == trial_name(dict(reversed(POINT.items())))
    assert trial_name(POINT) != trial_name({**POINT, "constant": 0.25})


def test_t1_a_torn_entry_counts_as_not_done_and_leaves_the_others(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path), entry({"rule": "labels"})
    torn = entry(POINT)
    journal.keep(torn)
    journal.keep(other)
    (path,) = (tmp_path / "trials" / torn.name).glob("v*/trial.json")
    data = path.read_bytes()
    for damaged in (b"", data[: len(data) // 2], data[:-4] + b"9" + data[-3:]):
        path.write_bytes(damaged)
        assert journal.known() == {other.name: other}
    journal.keep(torn)
    assert journal.known() == {other.name: other, torn.name: torn}


def test_what_was_begun_is_told_until_it_is_over(tmp_path: Path) -> None:
    journal, trial = Journal(tmp_path), entry(POINT)
    journal.begin(trial.name, POINT, {"rule": 1})
    assert journal.begun() == [{"point": POINT, "raw": {"rule": 1}}]
    (tmp_path / "asked" / "t-torn.json").write_text('{"point": ')
    assert len(journal.begun()) == 1
    journal.keep(trial)
    assert journal.begun() == []


def test_the_best_come_first_then_stopped_then_failed() -> None:
    low, high = (entry({"constant": c}, value=v) for c, v in ((0.1, 0.6), (0.2, 0.8)))
    stopped, failed = entry({"constant": 0.3}, status="stopped", value=0.9), entry({}, status="failed", value=None)
    assert ranked([failed, stopped, low, high], higher_is_better=True) == [high, low, stopped, failed]
    assert ranked([failed, stopped, low, high], higher_is_better=False) == [low, high, stopped, failed]
