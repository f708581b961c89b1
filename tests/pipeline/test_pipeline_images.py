"""The whole chain on a few images in CIFAR's form: a ResNet14 teaches a ResNet8, stops anywhere, is asked again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from image_rows import image_card, write_cifar

from tgeokd_ray.artifacts import latest, list_artifacts, load_tensors, verify
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.predict import predict
from tgeokd_ray.training.assess import assess

pytestmark = pytest.mark.timeout(90)

LOCAL = Place(local=True)
SETTINGS = [
    "metric=nll",
    "teacher.model={kind: resnet, depth: 14, dropout: 0, members: 1}",
    "teacher.training={epochs: 1, batch_rows: 32, optimizer: {kind: momentum, learning_rate: 0.02}}",
    "student.model={kind: resnet, depth: 8}",
    "student.training={epochs: 1, batch_rows: 24, exact_sums: false, optimizer: {kind: momentum, learning_rate: 0.02}}",
    "distill.constants=[0.5]",
    "distill.temperature=4",
    "distill.strengths=[1.0]",
    "distill.shifts=[-1.0, 1.0]",
    "distill.channel=off",
    "distill.fusion={every: 2, batch_rows: 16, look_ahead: 2, hidden: 8}",
]


def image_job(folder: Path, root: Path, *settings: str):  # type: ignore[no-untyped-def]
    options = {"card": str(folder / "images.yaml"), "root": str(root), "data": [str(folder)], "device": "cpu"}
    return resolve(options, settings=[*SETTINGS, *settings])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "images.yaml").write_text(yaml.safe_dump(image_card()))
    write_cifar(folder / "train.bin", 240)
    write_cifar(folder / "test.bin", 60, seed=1)
    return folder


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """(results, root) of one undisturbed job."""
    root = tmp_path_factory.mktemp("root")
    return run_job(*image_job(images, root), LOCAL, Silent())[0], root


def digests(root: Path) -> dict[str, str]:
    return {artifact.label: artifact.digest for artifact in list_artifacts(root)}


def test_results_are_the_usual_ones(whole) -> None:  # type: ignore[no-untyped-def]
    results, root = whole
    models = {model["name"]: model for model in results["models"]}
    assert set(models) == {"teacher", "labels", "constant-0.5", "tgeo"}
    assert {model["rows"] for model in models.values()} == {60}
    assert models["teacher"]["parameters"] > 2 * models["tgeo"]["parameters"] > 150_000
    assert all(0 < model["nll"] < 4 for model in models.values())
    for artifact in list_artifacts(root):
        verify(artifact.path)


def test_k3_interrupted_in_any_stage_the_same_command_ends_with_the_same_digests(  # type: ignore[no-untyped-def]
    whole, images: Path, tmp_path: Path
) -> None:
    class Stops(Silent):
        def __init__(self, stage: str, step: int) -> None:
            super().__init__()
            self.stage, self.left = stage, step

        def advanced(self, stage: str, amount: int, note: str = "") -> None:
            super().advanced(stage, amount, note)
            self.left -= stage.startswith(self.stage)
            if stage.startswith(self.stage) and self.left == 0:
                raise KeyboardInterrupt

    for stage, step in (("encode", 2), ("teacher", 4), ("labels", 4), ("shape", 4), ("tgeo", 4)):
        with pytest.raises(KeyboardInterrupt):
            run_job(*image_job(images, tmp_path), LOCAL, Stops(stage, step))
    heard = Silent()
    run_job(*image_job(images, tmp_path), LOCAL, heard)
    assert "tgeo: continued from step 2" in heard.warnings
    assert digests(tmp_path) == digests(whole[1])


def test_evaluation_and_prediction_repeat_the_figures_of_the_run(whole, images: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    results, root = whole
    student = latest(root, "students", "images-labels")
    table = EncodedTable.open(latest(root, "tables", "images").path)
    told = assess(student.path, table, "test", Silent())
    (labels,) = [model for model in results["models"] if model["name"] == "labels"]
    assert told["nll"] == pytest.approx(labels["nll"], rel=1e-5)
    rows = predict(student.path, [str(images / "test.bin")], tmp_path / "out.parquet", Silent())
    assert rows == 60
    found = pq.read_table(tmp_path / "out.parquet")
    chances = np.stack(found["probabilities"].to_numpy(zero_copy_only=False))
    own = chances[np.arange(60), np.arange(60) % 10]
    assert -np.log(own).mean() == pytest.approx(told["nll"], rel=1e-4)


def test_a_student_does_not_depend_on_who_is_in_its_pack(whole, images: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, root = whole
    run_job(
        *image_job(images, tmp_path, "distill.constants=[0.25, 0.75]", "distill.rule=tgeo_one_step"), LOCAL, Silent()
    )
    first, again = (latest(place, "students", "images-labels") for place in (root, tmp_path))
    one, other = (load_tensors(artifact.file("model.safetensors")) for artifact in (first, again))
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-4, atol=1e-5)


def test_layers_that_do_not_add_up_are_told_before_anything_starts(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        image_job(images, tmp_path, "student.model.depth=9", "teacher.model.dropout=0.1")
    told = str(caught.value)
    assert "student.model: depth of a resnet must be 6 n + 2, got 9" in told
    assert "teacher.model: dropout must be 0: a resnet drops nothing, got 0.1" in told
