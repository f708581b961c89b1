"""Ray Data: results in order whatever happens to a task, the same units as a direct reader, shared arrays."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.cluster import data
from tgeokd_ray.cluster.data import RayDataReader, ray_map
from tgeokd_ray.cluster.source import ClusterSource
from tgeokd_ray.cluster.store import share
from tgeokd_ray.errors import DataError, IntegrityError, ResourceError
from tgeokd_ray.feed import DirectReader, EncodedTable, LogitsTable, Wanted

pytestmark = [pytest.mark.ray, pytest.mark.timeout(100), pytest.mark.usefixtures("cluster")]


def test_k2_results_keep_the_order_and_a_killed_task_runs_again(tmp_path: Path) -> None:
    def task(item: tuple[int, str]) -> tuple[int, list[str], dict[str, tuple[int, ...]]]:
        number, name = item
        time.sleep(0.3 if number == 0 else 0)
        marker = tmp_path / "killed"
        if number == 2 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number, [name], {"empty": (), str(number): (number,)}

    items = [(number, f"item {number}") for number in range(6)]
    results = list(ray_map(task, iter(items), stage="test", tasks=2))
    assert results == [(n, [name], {"empty": (), str(n): (n,)}) for n, name in items]
    assert (tmp_path / "killed").exists()


def test_k9_errors_of_the_function_are_raised_here() -> None:
    def task(item: int) -> int:
        if item == 1:
            raise DataError("row 7 is bad", fix="mend it")
        return 1 // item

    with pytest.raises(DataError, match="row 7 is bad") as error:
        list(ray_map(task, [2, 1], stage="encode", tasks=2))
    assert error.value.fix == "mend it"
    with pytest.raises(ResourceError, match="a task of encode failed: ZeroDivisionError"):
        list(ray_map(task, [0], stage="encode", tasks=2))
    assert list(ray_map(task, [], stage="encode", tasks=2)) == []


def test_k2_a_task_that_dies_each_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Data by itself would try it without end."""

    def task(item: int) -> None:
        with (tmp_path / "starts").open("a") as starts:
            starts.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(data, "RETRIES", 1)
    with pytest.raises(ResourceError, match="WorkerCrashedError"):
        list(ray_map(task, [0], stage="test", tasks=1))
    assert (tmp_path / "starts").read_text() == "xx"


def test_units_are_those_of_the_direct_reader(encoded: tuple[Artifact, Artifact]) -> None:
    table = EncodedTable.open(encoded[0].path)
    logits = LogitsTable.open(encoded[1].path, table)
    source = ClusterSource("ray_data", share({}))
    wanted = Wanted(table, ("train",), (logits,))
    reader = source.reader(wanted)
    assert isinstance(reader, RayDataReader)
    units = table.units("train")
    units = [units[k] for k in (4, 0, 5, 3, 1)]
    expected = list(ClusterSource("direct", share({})).reader(wanted)(units))
    found = list(reader(units))
    assert [unit.num_rows for unit in found] == [40, 40, 17, 40, 40]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.schema == theirs.schema
        assert ours.equals(theirs)
    assert list(reader([])) == []
    stopped = reader(units)
    assert next(stopped).equals(expected[0])
    stopped.close()


def test_s3_a_damaged_unit_raises_its_own_error(encoded: tuple[Artifact, Artifact]) -> None:
    table = EncodedTable.open(encoded[0].path)
    good = table.units("train")[0]
    absent = type(good)(**{**vars(good), "group": 9})
    read = RayDataReader(DirectReader(table, [], "train"))([good, absent])
    assert next(read).num_rows == 40
    with pytest.raises(IntegrityError, match="train-00000"):
        next(read)


def test_shared_arrays_are_one_read_only_copy(encoded: tuple[Artifact, Artifact]) -> None:
    array = np.arange(1 << 20, dtype=np.float64)
    shared = share({"big": array, "small": np.eye(2, dtype=np.float32)})

    def task(_: int) -> tuple[bool, bool, float, float]:
        found = shared.get()
        again = shared.get()["big"]
        same_memory = found["big"].__array_interface__["data"][0] == again.__array_interface__["data"][0]
        return found["big"].flags.writeable, same_memory, float(found["big"].sum()), float(found["small"].sum())

    assert list(ray_map(task, [0, 1], stage="share", tasks=2)) == [(False, True, float(array.sum()), 2.0)] * 2
    with pytest.raises(TypeError, match="objects cannot be shared: names"):
        share({"names": np.array(["a", None], dtype=object)})
    logits = LogitsTable.open(encoded[1].path)
    other = np.zeros((3, 3), dtype=np.float32)
    assert (ClusterSource("direct", share({str(encoded[1].path): other})).class_means(logits) == other).all()
    assert (ClusterSource("direct", share({})).class_means(logits) == logits.class_means).all()
