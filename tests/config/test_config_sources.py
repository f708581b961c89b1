"""Where each problem of a configuration was written, the rules between keys, and the card that nobody named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tgeokd_ray.cluster.capacity import check_workers
from tgeokd_ray.config.job import Job
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.config.sources import Source, source_of
from tgeokd_ray.config.training import Training
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.tables.cards import PACKAGED, Card, load_card


def write_card(path: Path, **changes: object) -> str:
    card = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    path.write_text(yaml.safe_dump(card | changes))
    return str(path)


def refused(**arguments: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolve(arguments.pop("options", {}), **arguments)  # type: ignore[arg-type]
    return caught.value


def test_every_problem_of_every_source_comes_at_once_and_names_its_source(tmp_path: Path) -> None:
    defaults = {"metric": "f2", "student": {"training": {"epochs": 3}}}
    card = write_card(tmp_path / "card.yaml", name="mine", defaults=defaults)
    file = tmp_path / "job.yaml"
    file.write_text("student: {training: {epochs: 0, patience: -1}}\nteacher: {modell: {}}\n")
    settings = ["distill.temperature=-1", "epochs", "seed=[1", "student.training.patience=-2"]
    options = {"card": card, "workers": 5, "seed": -3}
    error = refused(options=options, config=str(file), settings=settings)
    found = [(problem.file, problem.what.partition(" must")[0]) for problem in error.problems]
    assert sorted(found, key=str) == sorted(
        [
            (None, "--set needs key.path=value"),
            (None, "--set seed: the value is not YAML"),
            (card, "defaults: metric"),
            (str(file), "student.training.epochs"),
            (str(file), "unknown key 'modell' in teacher; did you mean 'model'?"),
            (None, "--set: student.training.patience"),
            (None, "--set: distill.temperature"),
            (None, "--workers: workers:"),
            (None, "--seed: seed"),
        ],
        key=str,
    )
    assert error.total == len(error.problems)


def test_a_card_that_is_wrong_or_not_there_hides_no_other_problem(tmp_path: Path) -> None:
    for card in ("no-such-card", write_card(tmp_path / "card.yaml", weight="n0"), None):
        settings = ["workers=7"] if card else ["workers=7", "card=null"]
        text = str(refused(options={"card": card}, settings=settings))
        assert "--set: workers: must divide" in text
        assert any(what in text for what in ("no such card", "cannot be a feature too", "card must be a valid string"))


def test_a_config_file_that_cannot_be_read_hides_no_other_problem() -> None:
    error = refused(config="no-such.yaml", settings=["workers=7", "x"])
    assert [problem.file for problem in error.problems] == ["no-such.yaml", None, None]


def test_quick_and_the_defaults_of_the_command_lie_where_they_should(tmp_path: Path) -> None:
    card = write_card(tmp_path / "card.yaml", name="mine", defaults={"seed": 4, "run": "of-the-card"})
    defaults = {"card": card, "run": "of-the-command", "root": "there"}
    job, found = resolve({}, defaults=defaults)
    assert (found.name, job.card, job.seed, job.run, job.root) == ("mine", card, 4, "of-the-card", "there")
    file = tmp_path / "job.yaml"
    file.write_text("card: synthetic_ctr\nrun: of-the-file\n")
    job, found = resolve({}, config=str(file), defaults=defaults)
    assert (found.name, job.card, job.seed, job.run, job.root) == (
        "synthetic_ctr",
        "synthetic_ctr",
        0,
        "of-the-file",
        "there",
    )


def test_a_resolved_job_fed_back_is_the_same_job(tmp_path: Path) -> None:
    card = write_card(tmp_path / "card.yaml", name="mine", defaults={"distill": {"temperature": 3}})
    options = {"card": card, "root": str(tmp_path), "run": "x", "seed": 2}
    settings = ["teacher.model.members=1", "distill.fusion.level=0.25"]
    job, found = resolve(options, settings=settings, quick=True, defaults={"card": "synthetic_ctr"})
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False))
    assert resolve({}, config=str(file), defaults={"card": "synthetic_ctr"}) == (job, found)


def test_the_card_of_the_root_is_taken_where_nobody_names_one(tmp_path: Path) -> None:
    own, asked = load_card("synthetic_ctr"), []

    def own_card(root: str) -> tuple[str, Card]:
        asked.append(root)
        return "there/card.json", own

    file = tmp_path / "job.yaml"
    file.write_text("root: there\n")
    job, card = resolve({}, config=str(file), own_card=own_card)
    assert (job.card, card, asked) == ("there/card.json", own, ["there"])
    named = write_card(tmp_path / "card.yaml", name="mine")
    file.write_text(f"card: {named}\n")
    for arguments in ({"config": str(file)}, {"settings": [f"card={named}"]}):
        assert resolve({}, own_card=own_card, **arguments)[1].name == "mine"  # type: ignore[arg-type]
    assert resolve({"card": named}, own_card=own_card)[1].name == "mine"
    assert asked == ["there"]


def test_the_last_source_that_sets_a_value_or_all_around_it_is_to_blame() -> None:
    built, card, file = Source({"a": {"b": 1, "c": 2}}), Source({"a": {"b": 3}}, "card"), Source({"a": 5}, "file")
    sources = [built, card]
    assert source_of(("a", "b"), sources) is card
    assert source_of(("a", "c"), sources) is built
    assert source_of(("a", "b", 0), sources) is card
    assert source_of(("a", "c"), [*sources, file]) is file
    assert source_of(("z",), sources) is built


def test_job_and_cluster_allow_the_same_numbers_of_workers() -> None:
    for workers in range(-3, 30):
        if check_workers(workers) is None:
            assert Job(workers=workers).workers == workers
        else:
            with pytest.raises(ValueError, match="one of 1, 2, 3, 4, 6, 12, got"):
                Job(workers=workers)


def test_rare_classes_are_corrected_for_once(tmp_path: Path) -> None:
    assert Training(oversample=8).oversample == 8
    assert Training(class_weights="balanced").oversample == 1
    defaults = {"teacher": {"training": {"class_weights": "balanced"}}}
    card = write_card(tmp_path / "card.yaml", defaults=defaults)
    error = refused(options={"card": card}, settings=["teacher.training.oversample=4", "seed=-1"])
    text = str(error)
    assert "--set: teacher.training.oversample: 4 repeats rare rows" in text
    assert "set class_weights: none, or 1 here" in text
    assert "seed" in text
    settings = ["teacher.training.oversample=4", "teacher.training.class_weights=none"]
    assert resolve({"card": card}, settings=settings)[0].teacher.training.oversample == 4


def test_a_patience_of_zero_is_allowed_and_a_negative_one_is_not() -> None:
    assert resolve({}, settings=["student.training.patience=0"])[0].student.training.patience == 0
    assert "patience must be greater than or equal to 0, got -1" in str(
        refused(settings=["student.training.patience=-1"])
    )


@pytest.mark.parametrize("value", ["2024-13-45", "[" * 5000])
def test_a_value_that_yaml_cannot_take_is_refused(value: str) -> None:
    assert "the value is not YAML" in str(refused(settings=[f"run={value}"]))
