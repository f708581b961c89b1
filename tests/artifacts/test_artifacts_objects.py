"""Artifacts in object stores, against a real S3 server: crashes, races, damage, hostile pointers, stores that fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from artifacts_faults import DATA, make, shells
from artifacts_stores import Crash, FaultyStore

from tgeokd_ray.artifacts import (
    Artifact,
    find_stored,
    open_store,
    parents_first,
    pointers,
    pull,
    push,
    staging,
    verify,
    with_digest,
)
from tgeokd_ray.errors import Problem, ResourceError

pytestmark = pytest.mark.timeout(60)


def labels(store: Any) -> list[str]:
    return [stored.label for stored in pointers(store)]


def test_a_copy_has_the_same_digest_on_both_sides(store: Any, tmp_path: Path):
    made = make(tmp_path / "here")
    assert push(made, store).label == "tables/demo/v000001"
    assert push(make(tmp_path / "other"), store).label == "tables/demo/v000001", "equal content is there already"
    assert push(make(tmp_path / "here", value=1), store).label == "tables/demo/v000002"
    make(tmp_path / "there", value=9)
    copy = pull(store, "tables", "demo", tmp_path / "there", "v000001")
    assert (copy.label, copy.digest) == ("tables/demo/v000002", made.digest)
    assert verify(copy.path) == ([], [])
    assert copy.manifest.record == made.manifest.record, "when and where it was made, not copied"
    assert pull(store, "tables", "demo", tmp_path / "there", "v000001").path == copy.path
    assert shells(tmp_path / "there") == []
    assert pull(store, "tables", "demo", tmp_path / "new").manifest.arguments == {"value": 1}, "the newest"
    assert labels(store) == ["tables/demo/v000001", "tables/demo/v000002"]


def test_parents_are_found_by_digest(store: Any, tmp_path: Path):
    def child(kind: str, **parents: Artifact) -> Artifact:
        with staging(tmp_path / "here", kind, "demo", arguments={}, parents=parents) as work:
            return work.commit({})

    table = make(tmp_path / "here")
    teacher = child("teachers", table=table)
    logits = child("logits", table=table, teacher=teacher)
    present = {one.digest: one for one in (table, teacher)}
    assert parents_first(logits, lambda parent: present.get(parent.digest)) == [table, teacher]
    push(make(tmp_path / "other", value=5), store)
    for artifact in (table, logits):
        push(artifact, store)
    stored = find_stored(store, "logits", "demo")
    found = parents_first(stored, lambda one: with_digest(store, f"{one.kind}/{one.name}", one.digest))
    assert [one.label for one in found] == ["tables/demo/v000002"], "there is no teacher; the version counts not"


@pytest.mark.parametrize("fault", ["before", "after"])
def test_k1_k7_a_crash_at_every_call_of_a_push_shows_nothing_or_a_whole_artifact(s3: Any, tmp_path: Path, fault: str):
    made = make(tmp_path / "here")
    counting = FaultyStore(s3("count"))
    push(made, counting)
    names = [name for name, _ in counting.calls]
    assert names == ["list", "list", "create", "create", "put", "put", "put", "list", "create"]
    whole = 0
    for at in range(len(names)):
        store = s3(f"{fault}{at}")
        with pytest.raises(Crash):
            push(made, FaultyStore(store, at, fault))
        shown = labels(store)
        whole += len(shown)
        if shown:
            assert pull(store, "tables", "demo", tmp_path / f"{at}").digest == made.digest
        assert push(made, store).label == "tables/demo/v000001"
        assert labels(store) == ["tables/demo/v000001"]
    assert whole == (fault == "after")


@pytest.mark.parametrize("fault", ["before", "after"])
def test_k1_k3_a_crash_at_every_call_of_a_pull_keeps_what_was_loaded(tmp_path: Path, fault: str):
    made, store = make(tmp_path / "here"), open_store((tmp_path / "store").as_uri())
    push(made, store)
    counting = FaultyStore(store)
    pull(counting, "tables", "demo", tmp_path / "count")
    for at in range(len(counting.calls)):
        root = tmp_path / str(at)
        dying, again = FaultyStore(store, at, fault), FaultyStore(store)
        with pytest.raises(Crash):
            pull(dying, "tables", "demo", root)
        assert not list(root.glob("*/*/v*"))
        assert pull(again, "tables", "demo", root).digest == made.digest
        done = [key for name, key in dying.calls[:-1] if name == "get"]
        assert not set(done) & {key for name, key in again.calls if name == "get"}
        assert shells(root) == []


def race(work: list[Callable[[], Any]]) -> list[Any]:
    results: list[Any] = [None] * len(work)
    barrier = threading.Barrier(len(work))

    def run(number: int) -> None:
        barrier.wait(20)
        results[number] = work[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    return results


def test_k8_eight_writers_get_a_number_each(s3: Any, tmp_path: Path):
    made = [make(tmp_path / str(value), value=value) for value in range(8)]
    results = race([partial(push, one, s3()) for one in made])
    assert sorted(stored.label for stored in results) == [f"tables/demo/v{number:06d}" for number in range(1, 9)]
    assert {(s.label, s.data) for s in pointers(s3())} == {(s.label, s.data) for s in results}, "none was overwritten"
    for one, stored in zip(made, results, strict=True):
        assert pull(s3(), "tables", "demo", tmp_path / "all", stored.manifest.version).digest == one.digest


def test_k8_eight_writers_of_one_content_share_a_number(s3: Any, tmp_path: Path):
    made = make(tmp_path / "here")
    results = race([partial(push, made, s3(anew=True)) for _ in range(8)])
    assert {stored.label for stored in results} == {"tables/demo/v000001"}
    assert [stored.data for stored in pointers(s3())] == [results[0].data]


def refused() -> ResourceError:
    return ResourceError([Problem("the answer was lost")])


def at_the_pointer(store: Any, fault: str, error: Callable[[], BaseException] = refused) -> FaultyStore:
    """A store that fails at the create of the pointer, after 2 lists, the pointers, 2 probes, the files, a look."""
    return FaultyStore(store, 2 + len(labels(store)) + 2 + len(DATA) + 1, fault, error)


def test_k7_an_unknown_outcome_of_the_create_is_looked_up(store: Any, tmp_path: Path):
    made = [make(tmp_path / "here", value=value) for value in range(3)]
    done = at_the_pointer(store, "after")
    assert push(made[0], done).label == "tables/demo/v000001"
    assert done.calls[-2:] == [("create", "tables/demo/v000001.json"), ("read", "tables/demo/v000001.json")]
    undone = at_the_pointer(store, "before")
    assert push(made[1], undone).label == "tables/demo/v000002"
    assert [name for name, _ in undone.calls[-3:]] == ["create", "read", "create"]

    def overtaken() -> ResourceError:
        push(make(tmp_path / "there", value=3), store)
        return refused()

    assert push(made[2], at_the_pointer(store, "before", overtaken)).label == "tables/demo/v000004"
    assert labels(store) == [f"tables/demo/v{number:06d}" for number in (1, 2, 3, 4)]


def test_k7_an_answer_lost_on_the_way(s3: Any, tmp_path: Path):
    made = make(tmp_path / "here")
    assert push(made, s3("lost")).label == "tables/demo/v000001"
    assert labels(s3("lost")) == ["tables/demo/v000001"]
    assert pull(s3("lost"), "tables", "demo", tmp_path / "there").digest == made.digest


def test_k10_a_server_that_ignores_the_condition_is_refused_before_a_pointer(s3: Any, tmp_path: Path):
    with pytest.raises(ResourceError, match="overwrites what must only be created") as caught:
        push(make(tmp_path / "here"), s3("old"))
    assert "If-None-Match" in str(caught.value.fix)
    assert labels(s3("old")) == []


def test_k9_a_store_that_fails_for_good_shows_nothing(tmp_path: Path):
    class Failing(FaultyStore):
        def create(self, key: str, data: bytes) -> bool:
            if key.endswith(".json"):
                raise refused()
            return bool(self.run("create", key, data))

    inner = open_store((tmp_path / "store").as_uri())
    with pytest.raises(ResourceError, match="the answer was lost"):
        push(make(tmp_path / "here"), Failing(inner))
    assert labels(inner) == []
    assert push(make(tmp_path / "here"), inner).label == "tables/demo/v000001"
