"""What of the rows goes into the object store: each split once, as far as there is room; the rest is counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_card import small_card

from tgeokd_ray.cluster import shared_rows
from tgeokd_ray.cluster.shared_rows import STORE_SHARE, SharedRows, share_rows
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place, run_stage
from tgeokd_ray.training.data import DirectSource, all_wanted
from tgeokd_ray.training.spec import RunSpec


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """A student on labels of a small table, which reads train and valid."""
    root = tmp_path_factory.mktemp("rows")
    options = {"card": str(small_card(root, 1500, 700)), "root": str(root)}
    (table,) = run_stage("encode", *resolve(options), {}, Place(local=True), Silent())
    places = {"root": "", "folder": "", "table": str(table.path)}
    return RunSpec(name="a", kind="students", artifact="a", measured=False, **places)


class Store:
    """An object store of so many bytes, without Ray."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = 1e9
        self.puts: list[int] = []
        monkeypatch.setattr(shared_rows, "share", self._share)
        monkeypatch.setattr(shared_rows.ray, "cluster_resources", lambda: {"object_store_memory": self.size})

    def _share(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
        self.puts.append(sum(array.nbytes for array in arrays.values()))
        return arrays

    def __call__(self, *specs: RunSpec) -> SharedRows:
        self.puts = []
        return share_rows(specs, DirectSource())  # type: ignore[arg-type]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(monkeypatch)


def test_every_split_goes_there_once(spec: RunSpec, store: Store) -> None:
    found = store(spec, replace(spec, name="b", temperature=2.0), replace(spec, name="c", measured=True))
    wanted = all_wanted(replace(spec, measured=True))
    assert set(found.rows) == {one.key for one in wanted}
    assert len(store.puts) == len(wanted) == 3
    assert found.left == 0
    assert found.bytes == pytest.approx(sum(store.puts), rel=0.05), "what it takes is estimated before it is read"


def test_what_has_no_room_is_left_and_counted_once(spec: RunSpec, store: Store) -> None:
    """Half of the store is for rows; what is small enough still goes there."""
    whole = store(spec)
    train, valid = store.puts
    assert train > valid
    store.size = (whole.bytes - 1) / STORE_SHARE
    found = store(spec, replace(spec, name="b"))
    assert found.bytes + found.left == whole.bytes
    assert len(store.puts) == 1
    assert store.puts == [train]
    store.size = 1.5 * valid / STORE_SHARE
    found = store(spec)
    assert store.puts == [valid]
    assert (set(found.rows), found.bytes + found.left) == ({all_wanted(spec)[1].key}, whole.bytes)
    store.size = 0
    assert store(spec) == SharedRows({}, 0, whole.bytes)


def test_a_split_may_be_too_large_for_a_process(spec: RunSpec, store: Store) -> None:
    assert store(replace(spec, cache_bytes=10)).bytes == 0
    assert store.puts == []
