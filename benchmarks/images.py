"""Images: what a live teacher gives over stored logits under augmentation and costs, how fast CIFAR is encoded, and how
fast the networks of the cards train and score.

python benchmarks/images.py [teacher encode pace] [--quick] [--json]

On made-up images in CIFAR's form (`image_rows`), or with TGEOKD_CIFAR10 naming a folder of the real files on the first
of their rows. One thread.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import yaml
from figures import Figure, main
from image_rows import image_card, write_cifar

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.metrics import paired_difference
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.tables.cards import load_card
from tgeokd_ray.tables.encode import encode

ROWS, QUICK_ROWS = (2000, 1000), (800, 500)  # of the train and the test file
SEEDS, QUICK_SEEDS = (0, 1, 2), (0, 1)
ROW_BYTES = 3073
FORMS = {
    "stored": ["student.training.augment=none"],
    "stored, augmented": ["student.training.augment=crop_flip"],
    "live, augmented": ["student.training.augment=crop_flip", "distill.teacher=live"],
}
SETTINGS = [
    "metric=nll",
    "teacher.model={kind: resnet, depth: 8, dropout: 0, members: 1}",
    "teacher.training={epochs: 12, batch_rows: 32, patience: 12, augment: crop_flip}",
    "teacher.training.optimizer={kind: momentum, learning_rate: 0.05}",
    "student.model={kind: mlp, hidden: [64]}",
    "student.training={epochs: 20, batch_rows: 32, patience: 20, exact_sums: false}",
    "student.training.optimizer={kind: adam, learning_rate: 0.001}",
    "distill.constants=[0.75]",
    "distill.rule=tgeo_one_step",
    "distill.temperature=4",
    "distill.channel=off",
    "distill.fusion={every: 16, batch_rows: 128}",
]
# The teacher's and the student's of the cards of CIFAR, and those of ImageNet in images of 32 x 32.
NETWORKS = {
    "resnet56": "{kind: resnet, depth: 56, width: 1}",
    "resnet20": "{kind: resnet, depth: 20, width: 1}",
    "wrn28x2": "{kind: wrn, depth: 28, width: 2}",
    "wrn16x1": "{kind: wrn, depth: 16, width: 1}",
}
AS_THE_CARDS = [
    "teacher.model.dropout=0",
    "teacher.model.members=1",
    "teacher.training={epochs: 2, batch_rows: 128, patience: 9, augment: crop_flip}",
    "student.training={epochs: 2, batch_rows: 128, patience: 9, augment: crop_flip, exact_sums: false}",
    "teacher.training.optimizer={kind: momentum, learning_rate: 0.1}",
    "student.training.optimizer={kind: momentum, learning_rate: 0.1}",
    "distill.constants=[0.5]",
    "distill.rule=tgeo_one_step",
    "distill.channel=off",
    "distill.fusion={every: 16, batch_rows: 128}",
]


def teacher(quick: bool) -> Iterator[Figure]:
    """The student of the constant 0.75 in each form, and paired differences over the seeds: live less stored logits
    under augmentation, and augmentation less none."""
    found: dict[str, list[Mapping[str, Any]]] = {form: [] for form in FORMS}
    with tempfile.TemporaryDirectory() as place:
        card = _files(Path(place), *(QUICK_ROWS if quick else ROWS))
        for seed in QUICK_SEEDS if quick else SEEDS:
            for form, settings in FORMS.items():
                options = {"card": str(card), "data": [place], "root": f"{place}/root", "seed": seed, "device": "cpu"}
                job, own = resolve(options, settings=[*SETTINGS, *settings])
                results, _ = run_job(job, own, Place(local=True), Silent())
                found[form].append(next(m for m in results["models"] if m["name"] == "constant-0.75"))
    for form, models in found.items():
        spread = [float(model["nll"]) for model in models]
        context = {"accuracy": mean(model["accuracy"] for model in models)}
        context |= {"rows_per_second": mean(model["rows_per_second"] for model in models)}
        yield Figure(f"images.{form}", mean(spread), "nats", "reported", None, spread, context | {"reason": "reported"})
    nll = {form: [float(model["nll"]) for model in models] for form, models in found.items()}
    yield _difference("images.live_less_stored", nll["live, augmented"], nll["stored, augmented"])
    yield _difference("images.augmented_less_plain", nll["stored, augmented"], nll["stored"])


def _difference(name: str, these: Sequence[float], those: Sequence[float]) -> Figure:
    value, low, high = paired_difference(list(these), list(those))
    return Figure(name, value, "nats", "reported", None, [low, high], {"reason": "reported"})


def encoding(quick: bool) -> Iterator[Figure]:
    """Rows per second from a binary file to an encoded table, and its bytes per row on the disk."""
    rows = 4000 if quick else 20_000
    with tempfile.TemporaryDirectory() as place:
        card = load_card(_files(Path(place), rows, 500))
        files = sorted(Path(place).glob("*.bin"))
        began = time.perf_counter()
        table, _ = encode(card, files, Path(place) / "root", LocalEngine("cpu", 1).map, Silent())
        seconds = time.perf_counter() - began
        stored = sum(entry.bytes for entry in table.manifest.files)
    told = {"rows": rows + 500, "reason": "reported"}
    yield Figure("images.encode", (rows + 500) / seconds, "rows/s", "reported", None, context=told)
    yield Figure("images.bytes_per_row", stored / (rows + 500), "bytes", "reported", None, context=told)


def pace(quick: bool) -> Iterator[Figure]:
    """Images of 32 x 32 per second of one thread through each network: trained as a teacher, as a student on labels
    and with a constant side by side, and scored. What recipes compute the hours of studies from."""
    for name, model in NETWORKS.items():
        with tempfile.TemporaryDirectory() as place:
            card = _files(Path(place), 800 if quick else 2000, 200)
            options = {"card": str(card), "data": [place], "root": f"{place}/root", "device": "cpu"}
            models = [f"{who}.model={model}" for who in ("teacher", "student")]
            job, own = resolve(options, settings=[*models, *AS_THE_CARDS])
            results, _ = run_job(job, own, Place(local=True), Silent())
        rates = {model["name"]: model["rows_per_second"] for model in results["models"]}
        seconds = next(stage["seconds"] for stage in results["stages"] if stage["name"] == "precompute")
        scored = sum(results["table"]["rows"][split] for split in ("train", "outer", "valid", "test"))
        told = {"teacher": rates["teacher"], "student": rates["labels"], "score": scored / seconds}
        for what, value in told.items():
            yield Figure(
                f"images.pace.{name}.{what}", value, "images/s", "reported", None, context={"reason": "reported"}
            )


def _files(place: Path, train: int, test: int) -> Path:
    """The card of two files in this folder, made up or cut from real ones."""
    real = os.environ.get("TGEOKD_CIFAR10")
    if real is None:
        write_cifar(place / "train.bin", train)
        write_cifar(place / "test.bin", test, seed=1)
    else:
        for source, name, rows in (("data_batch_1.bin", "train.bin", train), ("test_batch.bin", "test.bin", test)):
            (place / name).write_bytes((Path(real) / source).read_bytes()[: rows * ROW_BYTES])
    (place / "card.yaml").write_text(yaml.safe_dump(image_card()))
    return place / "card.yaml"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(__doc__ or "", {"teacher": teacher, "encode": encoding, "pace": pace})
