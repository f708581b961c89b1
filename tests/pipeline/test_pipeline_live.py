"""A teacher that is asked in each step against stored logits: the same without augmentation, another thing with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from image_rows import image_card, write_cifar

from tgeokd_ray.artifacts import latest, load_tensors
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.live import live_teacher
from tgeokd_ray.training.data import DirectSource, open_data
from tgeokd_ray.training.reuse import run_inputs
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.worker import LocalWorker

pytestmark = pytest.mark.timeout(90)

LOCAL = Place(local=True)
SETTINGS = [
    "metric=nll",
    "teacher.model={kind: resnet, depth: 8, dropout: 0, members: 1}",
    "teacher.training={epochs: 1, batch_rows: 32, optimizer: {kind: momentum, learning_rate: 0.02}}",
    "student.model={kind: mlp, hidden: [8]}",
    "student.training={epochs: 2, batch_rows: 24, optimizer: {learning_rate: 0.005}}",
    "distill.constants=[0.5]",
    "distill.strengths=[1.0]",
    "distill.shifts=[-1.0, 1.0]",
    "distill.margin=0",
    "distill.channel=off",
    "distill.fusion={every: 2, batch_rows: 16, look_ahead: 2, hidden: 8}",
]
NAMES = ("labels", "constant-0.5", "tgeo")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    (folder / "images.yaml").write_text(yaml.safe_dump(image_card()))
    write_cifar(folder / "train.bin", 240)
    write_cifar(folder / "test.bin", 60, seed=1)
    return folder


def students(place: Path, *settings: str) -> dict[str, torch.Tensor]:
    """The parameters of each student of a job, as one vector; teacher and logits are made once."""
    options = {"card": str(place / "images.yaml"), "root": str(place / "root"), "data": [str(place)], "device": "cpu"}
    results, _ = run_job(*resolve(options, settings=[*SETTINGS, *settings]), LOCAL, Silent())
    found = {}
    for model in results["models"]:
        tensors = load_tensors(place / "root" / model["artifact"] / "model.safetensors")
        found[model["name"]] = torch.cat([value.flatten() for value in tensors.values()])
    return found


def test_without_augmentation_both_give_the_same_students(place: Path) -> None:
    stored, live = students(place), students(place, "distill.teacher=live")
    for name in NAMES:
        torch.testing.assert_close(live[name], stored[name], rtol=0, atol=1e-6)
    made = latest(place / "root", "students", "images-tgeo")
    assert made is not None
    assert {"table", "logits", "teacher"} <= made.manifest.parents.keys()


def test_with_augmentation_the_teacher_sees_what_the_student_sees(place: Path) -> None:
    plain = students(place)
    moved = "student.training.augment=crop_flip"
    stored, live = students(place, moved), students(place, moved, "distill.teacher=live")
    assert torch.equal(stored["labels"], live["labels"])
    for name in ("constant-0.5", "tgeo"):
        assert (stored[name] - live[name]).abs().max() > 1e-4
        assert (stored[name] - plain[name]).abs().max() > 1e-4
    again = students(place, moved)
    assert all(torch.equal(value, again[name]) for name, value in stored.items())


def test_the_logits_of_a_batch_are_the_teachers_of_the_moved_images(place: Path) -> None:
    root = place / "root"
    students(place)
    table, logits, teacher = (latest(root, kind, "images") for kind in ("tables", "logits", "teachers"))
    assert table is not None
    assert logits is not None
    assert teacher is not None
    spec = RunSpec(
        name="live", kind="students", artifact="live", root=str(root), folder=str(root), table=str(table.path),
        logits=(str(logits.path),), live=str(teacher.path), augment="crop_flip", batch_rows=20,
    )  # fmt: skip
    data = open_data(spec, LocalWorker(), DirectSource(), outer=False)
    batch = next(data.train.batches(2))
    taught = data.taught(batch, 2, torch.device("cpu"))
    assert data.live is not None
    assert data.augmentation is not None
    moved = data.augmentation(batch, 2)
    expected = torch.from_numpy(data.live(moved.numeric, moved.categorical))
    torch.testing.assert_close(taught.logits[:, 0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        torch.from_numpy(data.live(batch.numeric, batch.categorical)), batch.logits[:, 0], rtol=1e-5, atol=1e-5
    )
    assert not torch.equal(taught.numeric, batch.numeric)


def test_what_a_run_is_made_of_tells_both_apart(place: Path) -> None:
    root = place / "root"
    students(place)
    table, logits, teacher = (str(latest(root, kind, "images").path) for kind in ("tables", "logits", "teachers"))  # type: ignore[union-attr]
    places = {"name": "a", "kind": "students", "artifact": "a", "root": "", "folder": "", "table": table}
    specs = [
        RunSpec(**places, logits=(logits,), **more)  # type: ignore[arg-type]
        for more in ({}, {"augment": "crop"}, {"live": teacher}, {"live": teacher, "augment": "crop"})
    ]
    assert len({run_inputs(spec) for spec in specs}) == 4
    assert "augment" not in specs[0].arguments()


def test_folds_have_no_live_teacher(place: Path) -> None:
    students(place)
    settings = [*SETTINGS, "teacher.folds=2", "distill.teacher=live"]
    options = {"card": str(place / "images.yaml"), "root": str(place / "root"), "data": [str(place)], "device": "cpu"}
    job, card = resolve(options, settings=settings)
    with pytest.raises(ConfigError, match="it takes one teacher of ours, and 2 made the logits"):
        run_job(job, card, LOCAL, Silent())
    table = latest(place / "root", "tables", "images")
    assert table is not None
    stored, _ = resolve(options, settings=SETTINGS)
    assert live_teacher(stored, table, []) is None
