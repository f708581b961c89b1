"""From options to one job: order of the sources, all problems at once, did-you-mean."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tgeokd_ray.config.job import Fusion
from tgeokd_ray.config.resolve import merged, resolve
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.geometry import FEATURES
from tgeokd_ray.tables.cards import load_card


def test_later_sources_win_and_options_that_are_none_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("seed: 3\nstudent:\n  model:\n    hidden: [32]\ndistill:\n  temperature: 4\n")
    job, card = resolve({"seed": None, "root": "here"}, config=str(file), settings=["distill.temperature=2"])
    assert (job.seed, job.root, job.student.model.hidden, job.distill.temperature) == (3, "here", (32,), 2.0)
    assert job.student.model.embedding == resolve({})[0].student.model.embedding
    assert card.name == "synthetic_ctr"
    assert resolve({"seed": 5}, config=str(file))[0].seed == 5
    assert resolve({"seed": 5}, settings=["seed=6", "seed=7"])[0].seed == 7


def test_a_set_value_is_yaml() -> None:
    job, _ = resolve({}, settings=["distill.constants=[0.1, 0.9]", "teacher.training.optimizer.clip_norm=null"])
    assert job.distill.constants == (0.1, 0.9)
    assert job.teacher.training.optimizer.clip_norm is None


CARDS = Path(__file__).resolve().parents[2] / "datasets"


@pytest.mark.parametrize(
    ("card", "name", "hidden", "embedding"),
    [("criteo", "recommended", 438, 1), ("criteo", "fast", 78, 1), ("nsl_kdd", "recommended", 114, 8)],
)
def test_a_student_of_the_card_is_asked_for_by_name(card: str, name: str, hidden: int, embedding: int) -> None:
    options = {"card": str(CARDS / f"{card}.yaml"), "data": ["file"]}
    usual, _ = resolve(options)
    job, _ = resolve(options, settings=[f"student.model={name}", "student.model.dropout=0.25"])
    model = {"kind": "mlp", "hidden": (hidden,), "embedding": embedding, "dropout": 0.25}
    assert job.student.model == usual.student.model.model_copy(update=model)
    assert job.student.training == usual.student.training
    assert job.teacher == usual.teacher


def test_every_student_of_a_card_is_one() -> None:
    found = {}
    for path in sorted(CARDS.glob("*.yaml")):
        for name in load_card(path).students:
            job, _ = resolve({"card": str(path), "data": ["file"]}, settings=[f"student.model={name}"])
            found[path.stem, name] = job.student.model
    assert len(found) == len(set(found.values())) >= 4


@pytest.mark.parametrize(
    ("card", "name", "text"),
    [
        (
            str(CARDS / "criteo.yaml"),
            "recomended",
            "--set: student.model: the card criteo has no student 'recomended'; did you mean 'recommended'?; "
            "expected a model, or one of recommended, fast",
        ),
        (
            "synthetic_ctr",
            "fast",
            "the card synthetic_ctr has no student 'fast'; expected a model\n",
        ),
    ],
)
def test_a_student_that_the_card_does_not_have_is_refused(card: str, name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"card": card, "data": ["file"]}, settings=[f"student.model={name}"])
    assert text in str(caught.value)
    assert caught.value.total == 1


def test_quick_is_smaller_and_an_explicit_setting_still_wins() -> None:
    quick, _ = resolve({}, quick=True)
    whole, _ = resolve({})
    assert quick.student.training.epochs < whole.student.training.epochs
    assert len(quick.distill.constants) == 1
    assert resolve({}, quick=True, settings=["student.training.epochs=7"])[0].student.training.epochs == 7


def test_all_problems_are_said_at_once_with_the_way_out() -> None:
    settings = ["distill.temperatur=2", "student.training.epochs=0", "precision=fp16"]
    with pytest.raises(ConfigError) as caught:
        resolve({}, settings=settings)
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert "unknown key 'temperatur' in distill; did you mean 'temperature'?" in text
    assert "student.training.epochs" in text
    assert "got 0" in text
    assert "precision" in text


@pytest.mark.parametrize("workers", [0, -1, 5, 7, 24])
def test_workers_must_divide_the_lanes(workers: int) -> None:
    with pytest.raises(ConfigError, match="1, 2, 3, 4, 6, 12"):
        resolve({"workers": workers})


@pytest.mark.parametrize("setting", ["epochs", "=3", "student..epochs=3", "seed=[1"])
def test_a_setting_of_another_form_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        resolve({}, settings=[setting])


@pytest.mark.parametrize(("content", "why"), [("- 1\n- 2\n", "keys and values"), ("a: [1\n", "not YAML")])
def test_a_config_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=why):
        resolve({}, config=str(file))


def test_a_config_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve({}, config="no-such.yaml")


def test_merging_replaces_lists_and_keeps_siblings() -> None:
    assert merged({"a": {"b": [1], "c": 2}}, {"a": {"b": [3, 4]}}) == {"a": {"b": [3, 4], "c": 2}}
    source = {"a": {"b": 1}}
    merged(source)["a"]["b"] = 2
    assert source == {"a": {"b": 1}}, "sources stay as they are"


def test_one_changed_key_keeps_its_siblings_own_defaults() -> None:
    plain, _ = resolve({})
    changed, _ = resolve({}, settings=["teacher.model.hidden=[8]"])
    assert changed.teacher.model.kind == plain.teacher.model.kind
    assert changed.teacher.model.dropout == plain.teacher.model.dropout


def test_the_feature_sets_are_those_of_the_objectives() -> None:
    assert set(get_args(Fusion.model_fields["features"].annotation)) == set(FEATURES)
    job, _ = resolve({}, settings=["distill.fusion.features=label_free", "distill.fusion.disagreement=true"])
    assert (job.distill.fusion.features, job.distill.fusion.disagreement) == ("label_free", True)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_cards_of_images_have_the_settings_that_distillation_is_compared_by(name: str) -> None:
    card = Path(__file__).parents[2] / "datasets" / f"{name}.yaml"
    pair = ["teacher.model={kind: wrn, depth: 40, width: 2}", "student.model={kind: wrn, depth: 16, width: 2}"]
    job, _ = resolve({"card": str(card)})
    assert (job.teacher.model.depth, job.student.model.depth) == (56, 20)
    assert (job.distill.temperature, job.distill.constants[0], job.student.training.batch_rows) == (4.0, 0.2, 128)
    assert job.student.training.optimizer.learning_rate == 0.1
    other, _ = resolve({"card": str(card)}, settings=pair)
    assert (other.teacher.model.kind, other.teacher.model.width, other.student.model.depth) == ("wrn", 2, 16)


def test_the_card_of_small_imagenet_has_the_epochs_of_its_authors_and_the_rates_of_cifar() -> None:
    job, card = resolve({"card": str(CARDS / "imagenet32.yaml")})
    cifar, _ = resolve({"card": str(CARDS / "cifar100.yaml")})
    training = job.student.training
    assert (training.epochs, training.batch_rows, training.lower_at) == (40, 128, (0.25, 0.5, 0.75))
    assert training.optimizer == cifar.student.training.optimizer
    assert job.teacher.training.optimizer == cifar.teacher.training.optimizer
    assert len(card.label.classes) == 1000
    assert card.checks.total == {"train_data_batch_*": 1_281_167, "val_data*": 50_000}
    assert not card.checks.rows, "the publisher states no count for a single file"
