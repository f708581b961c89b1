"""What a stored ratio does, counted over shards: against plain sums over the rows as they lie in the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from training_runs import run

from tgeokd_ray.artifacts import open_artifact
from tgeokd_ray.errors import IntegrityError
from tgeokd_ray.feed.ratios import RatiosTable
from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.objectives.rules import Given
from tgeokd_ray.training import finish
from tgeokd_ray.training.effect import GEOMETRY, CountEffect, Segment, Truth, add_up
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.ratios import commit_known
from tgeokd_ray.training.spec import Finished

SHARDS = ("train-00000.parquet", "outer-00000.parquet")
STRENGTH, SHIFT = 2.0, 0.5


@pytest.fixture
def shape(small, monkeypatch):  # type: ignore[no-untyped-def]
    """A learned ratio, and the problem and state that it came from."""
    kept: list[Any] = []
    score = finish.score
    monkeypatch.setattr(finish, "score", lambda *inputs: kept.append(inputs) or score(*inputs))
    splits = {"splits": ("train",), "ratio_splits": ("train", "outer")}
    (found,) = run(small.spec("shape", kind="ratios", rule={"kind": "tgeo_shape"}, **splits))
    return found, kept[0]


def column(path: Path, name: str) -> np.ndarray:
    values = pq.read_table(path, columns=[name]).column(name).combine_chunks()
    lists = pa.types.is_fixed_size_list(values.type)
    return values.flatten().to_numpy().reshape(len(values), -1) if lists else values.to_numpy()


def together(folders: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Columns of the rows of all shards, by where they lie."""
    names = {"row_id": "table", "label": "table", "categorical": "table", "numeric": "table", "logits": "logits"}
    names |= {"ratio": "ratios", "distance": "ratios"}
    return {
        name: np.concatenate([column(folders[place] / shard, name) for shard in SHARDS])
        for name, place in names.items()
    }


def rows_of(small, found: Finished) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    rows = together({"table": small.table.path, "logits": small.logits.path, "ratios": Path(found.artifact)})
    mean = found.metrics["mean_logit"]
    rows["a"] = 1 / (1 + np.exp(-(mean + SHIFT + STRENGTH * (rows["ratio"][:, 0].astype(np.float64) - mean))))
    return rows


def counted(small, found: Finished, **options: Any) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    rule = Given(0, STRENGTH, SHIFT, found.metrics["mean_logit"])
    count = CountEffect(str(small.table.path), (str(small.logits.path),), found.artifact, rule, **options)
    return add_up([count(shard) for shard in SHARDS])  # type: ignore[misc]


def groups(by: np.ndarray, values: np.ndarray, number: int) -> tuple[list[int], list[float]]:
    return [int((by == g).sum()) for g in range(number)], [float(values[by == g].sum()) for g in range(number)]


def check(sums: Mapping[str, np.ndarray], name: str, by: np.ndarray, values: np.ndarray, number: int) -> None:
    rows, total = groups(by, values, number)
    assert sums[f"rows/{name}"].tolist() == rows
    assert sums[f"sums/{name}"].tolist() == pytest.approx(total, abs=1e-9)


def test_distances_are_those_of_the_last_snapshot(small, shape) -> None:  # type: ignore[no-untyped-def]
    found, (_, problem, state, *_) = shape
    rows = rows_of(small, found)
    last = max(name.split("/")[0] for name in state.snapshots)
    theta = {n.split("/", 2)[2]: v[0] for n, v in state.snapshots.items() if n.startswith(f"{last}/theta/")}
    inputs = (torch.from_numpy(rows["numeric"]), torch.from_numpy(rows["categorical"]).long())
    with torch.no_grad():
        student = torch.func.functional_call(problem.module.eval(), theta, inputs).double().softmax(-1)
    teacher = torch.from_numpy(rows["logits"]).double().softmax(-1)
    expected = (student - teacher).square().sum(-1).sqrt().numpy()
    np.testing.assert_allclose(rows["distance"][:, 0], expected, atol=1e-5)
    (median,) = RatiosTable.open(found.artifact).median_distances
    assert median == pytest.approx(np.median(expected), abs=1e-5)


def test_sums_by_class_geometry_and_column(small, shape) -> None:  # type: ignore[no-untyped-def]
    found, _ = shape
    rows = rows_of(small, found)
    segments = (Segment("c1", 1, offset=6, size=6), Segment("n2", 2, cuts=(-0.5, 0.5)))
    sums = counted(small, found, segments=segments)
    check(sums, "class", rows["label"], rows["a"], 3)
    check(sums, "segment_0", rows["categorical"][:, 1] - 6, rows["a"], 6)
    number = rows["numeric"][:, 2]
    check(sums, "segment_1", (number > -0.5).astype(int) + (number > 0.5), rows["a"], 3)
    right, far = rows["logits"].argmax(1) == rows["label"], rows["distance"][:, 0] > np.median(rows["distance"])
    check(sums, "geometry_0", 2 * right + far, rows["a"], 4)
    assert GEOMETRY[2 * True + False] == "right_near"
    assert sums["rows/bins"].tolist() == np.histogram(rows["a"], bins=100, range=(0, 1))[0].tolist()


def test_beside_a_known_ratio_rows_that_it_lacks_do_not_count(small, shape, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found, _ = shape
    rows = rows_of(small, found)
    known = np.random.default_rng(5).random(len(rows["a"]))
    region, kept = np.array(["B", "A"])[rows["row_id"] % 2], rows["row_id"] % 3 > 0
    file = tmp_path / "truth.parquet"
    truth = pa.table({"row_id": rows["row_id"], "region": region, "ratio_teacher_0": known})
    pq.write_table(truth.filter(pa.array(kept)).take(pa.array(np.argsort(-rows["row_id"][kept]))), file)
    sums = counted(small, found, truth=Truth(str(file), ("A", "B")))
    check(sums, "region", (region[kept] == "B").astype(int), rows["a"][kept], 2)
    assert sums["known"].tolist() == pytest.approx([known[kept & (region == r)].sum() for r in "AB"])
    a, r = rows["a"][kept], known[kept]
    expected = [[kept.sum(), a.sum(), r.sum(), (a * a).sum(), (r * r).sum(), (a * r).sum()]]
    np.testing.assert_allclose(sums["moments"], expected, rtol=1e-9)


def test_ratios_that_nobody_learned_have_no_geometry(small, shape) -> None:  # type: ignore[no-untyped-def]
    ids, weights = np.arange(800), np.full((800, 2), 0.5, np.float32)
    weights[::2] = 0.2, 0.8
    known = commit_known(small.root, "known", small.table, ("train", "outer"), ids, weights, {})
    count = CountEffect(str(small.table.path), (str(small.logits.path),), str(known.path), Given())
    sums = add_up([count(shard) for shard in SHARDS])  # type: ignore[misc]
    assert not [name for name in sums if "geometry" in name]
    assert sums["sums/class"].sum() == pytest.approx(400 * (0.5 + 0.8), rel=1e-6)


def test_several_teachers_one_of_which_lacks_a_row_and_a_row_without_a_label() -> None:
    """Shares of label and teachers by hand; what a teacher that did not score the row had goes to the label."""
    u = torch.tensor([[0.5, -0.3], [1.2, 0.4], [0.1, 0.9]])
    rows = Rows(
        row_id=torch.arange(3),
        numeric=torch.zeros(3, 1),
        categorical=torch.zeros(3, 0, dtype=torch.int64),
        labels=torch.tensor([1, 0, -1]),
        weights=torch.ones(3),
        logits=torch.tensor([[[0.0, 2.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]),
        covered=torch.tensor([[1, 1], [1, 0], [1, 1]], dtype=torch.uint8),
        ratios=torch.cat([u, torch.tensor([[1.4], [0.6], [1.0]])], 1).unsqueeze(1),
        targets=torch.empty(3, 0),
        offset=torch.empty(3, 0),
    )
    count = CountEffect("", ("", ""), "", Given(strength=1.0))
    far = np.array([[0.0, 1.0], [1.0, np.nan], [0.0, 0.0]])
    sums = count.of_rows(rows, far, 2)
    odds = np.exp(u.double().numpy())
    share = odds / (1 + odds.sum(1, keepdims=True))
    assert sums["rows/class"].tolist() == [1, 1]
    assert sums["sums/class"].tolist() == pytest.approx([share[1, 0], share[0].sum()], abs=1e-6)
    assert sums["rows/geometry_0"].tolist() == [0, 0, 1, 1]
    assert sums["sums/geometry_0"].tolist() == pytest.approx([0, 0, share[0, 0], share[1, 0]], abs=1e-6)
    assert sums["rows/geometry_1"].tolist() == [0, 1, 0, 0]
    assert sums["sums/geometry_1"].tolist() == pytest.approx([0, share[0, 1], 0, 0], abs=1e-6)


def test_a_damaged_shard_is_an_answer_not_an_exception(small, shape) -> None:  # type: ignore[no-untyped-def]
    found, _ = shape
    count = CountEffect(str(small.table.path), (str(small.logits.path),), found.artifact, Given())
    shard = open_artifact(Path(found.artifact)).file(SHARDS[1])
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-40] + bytes(40))
    assert isinstance(count(SHARDS[1]), IntegrityError)


def test_rows_of_a_batch_go_through_the_network_a_few_at_a_time(shape, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Statistics stay those of the whole batch, so that the ratios are the same."""
    _, (*inputs, at_once) = shape
    sizes: list[int] = []
    logits = Problem.logits
    monkeypatch.setattr(
        Problem, "logits", lambda self, theta, rows: sizes.append(len(rows)) or logits(self, theta, rows)
    )
    whole = finish.score(*inputs, at_once)
    (num_rows,) = sizes
    sizes.clear()
    parts = finish.score(*inputs, 64)
    assert sizes == [64] * (num_rows // 64) + [num_rows % 64] * (num_rows % 64 > 0)
    assert torch.equal(parts.row_ids, whole.row_ids)
    torch.testing.assert_close(parts.weights, whole.weights, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts.distances, whole.distances, rtol=1e-5, atol=1e-6)
