"""What a copy refuses: damaged objects, hostile pointers, stores that cannot be reached; and what gc removes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from artifacts_faults import DATA, make, shells, snapshot
from artifacts_stores import Crash, FaultyStore
from s3_server import BUCKET

from tgeokd_ray.artifacts import collect_store, digest, find_stored, open_store, pointers, pull, push
from tgeokd_ray.artifacts.objects import FilesystemStore
from tgeokd_ray.errors import ConfigError, IntegrityError, ResourceError

pytestmark = pytest.mark.timeout(60)
POINTER = "tables/demo/v000001.json"


def change(store: Any, key: str, data: bytes | None) -> None:
    """Replace or remove an object behind the back of the protocol."""
    store.remove(key)
    assert data is None or store.create(key, data)


@pytest.mark.parametrize("damage", ["one byte", "shorter", "missing"])
def test_s1_s3_s4_a_damaged_object_is_refused_and_pushed_again(store: Any, tmp_path: Path, damage: str):
    made = make(tmp_path / "here")
    key = push(made, store).key("part-0.bin")
    whole = DATA["part-0.bin"]
    change(store, key, {"one byte": b"1" + whole[1:], "shorter": whole[:-1], "missing": None}[damage])
    with pytest.raises(IntegrityError) as caught:
        pull(store, "tables", "demo", tmp_path / "there")
    assert f"{store.url}/{key}" in str(caught.value)
    assert "--again" in str(caught.value.fix)
    assert not list(tmp_path.glob("there/*/*/v*"))
    assert not list(tmp_path.glob("there/*/*/.staging-*/files/part-0.bin"))
    again = damage == "one byte"  # which only a download can see
    assert push(made, store, again=again).label == "tables/demo/v000002"
    assert pull(store, "tables", "demo", tmp_path / "there").digest == made.digest
    assert push(made, store).label == "tables/demo/v000002"


def test_s4_all_missing_objects_are_listed(tmp_path: Path):
    store = open_store((tmp_path / "store").as_uri())
    stored = push(make(tmp_path / "here"), store)
    for name in DATA:
        store.remove(stored.key(name))
    with pytest.raises(IntegrityError) as caught:
        pull(store, "tables", "demo", tmp_path / "there")
    assert len(caught.value.problems) == 3
    assert not (tmp_path / "there").exists()


def test_s3_a_damaged_artifact_is_not_pushed(tmp_path: Path):
    made, store = make(tmp_path / "here"), open_store((tmp_path / "store").as_uri())
    made.file("part-0.bin").write_bytes(b"1" + DATA["part-0.bin"][1:])
    with pytest.raises(IntegrityError, match="the bytes differ"):
        push(made, store)
    assert not (tmp_path / "store").exists()


def test_k3_files_of_the_same_inputs_that_were_made_here_are_not_mixed_with_a_copy(tmp_path: Path):
    store = open_store((tmp_path / "store").as_uri())
    push(make(tmp_path / "here"), store)
    at = 3 + len(DATA)  # the last download
    with pytest.raises(Crash):
        pull(FaultyStore(store, at), "tables", "demo", tmp_path / "there")
    (left,) = shells(tmp_path / "there")
    assert (left / "part-0.bin.entry").exists()
    make(tmp_path / "there")
    assert shells(tmp_path / "there") == [left], "work on these inputs took a folder of its own"


def sealed(whole: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A manifest with fresh digests, as a forger would make it."""
    whole = whole | changes
    parents = {role: parent["digest"] for role, parent in whole["parents"].items()}
    made_from = {"kind": whole["kind"], "arguments": whole["arguments"], "parents": parents}
    return whole | {
        "inputs": digest(made_from),
        "digest": digest({**made_from, "schema": whole["schema"], "files": whole["files"]}),
    }


def entry(path: str, size: int = 1) -> dict[str, Any]:
    return {"path": path, "bytes": size, "sha256": "0" * 64, "rows": None, "extra": {}}


PARENT = {"kind": "tables", "name": "../x", "version": "v000001", "digest": "0" * 64}
DEEP: dict[str, Any] = {}
for _ in range(100):
    DEEP = {"a": DEEP}
FORGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "path up": lambda p: p | {"manifest": sealed(p["manifest"], files=[entry("../../../evil")])},
    "absolute path": lambda p: p | {"manifest": sealed(p["manifest"], files=[entry("/tmp/evil")])},
    "its own manifest": lambda p: p | {"manifest": sealed(p["manifest"], files=[entry("manifest.json")])},
    "negative size": lambda p: p | {"manifest": sealed(p["manifest"], files=[entry("a", -1)])},
    "files out of order": lambda p: p | {"manifest": sealed(p["manifest"], files=p["manifest"]["files"][::-1])},
    "another name": lambda p: p | {"manifest": sealed(p["manifest"], name="other")},
    "name up": lambda p: p | {"manifest": sealed(p["manifest"], name="..")},
    "another version": lambda p: p | {"manifest": sealed(p["manifest"], version="v000002")},
    "parent up": lambda p: p | {"manifest": sealed(p["manifest"], parents={"table": PARENT})},
    "edited": lambda p: p | {"manifest": p["manifest"] | {"arguments": {"value": 7}}},
    "deep record": lambda p: p | {"manifest": p["manifest"] | {"record": DEEP}},
    "data up": lambda p: p | {"data": "../other/data-" + "0" * 32},
    "data elsewhere": lambda p: p | {"data": "/etc"},
    "data is no text": lambda p: p | {"data": 1},
    "more fields": lambda p: p | {"more": 1},
    "another format": lambda p: p | {"format": 2},
    "a list": lambda p: [p],
    "torn": lambda p: None,
}


@pytest.mark.parametrize("forged", FORGED)
def test_x3_x4_x6_p7_a_hostile_pointer_is_refused_and_nothing_written(tmp_path: Path, forged: str):
    store = open_store((tmp_path / "store").as_uri())
    push(make(tmp_path / "here"), store)
    pointer = FORGED[forged](json.loads(store.read(POINTER) or b""))
    change(store, POINTER, json.dumps(pointer).encode() if pointer is not None else b"{")
    before = snapshot(tmp_path)
    with pytest.raises(IntegrityError) as caught:
        pull(store, "tables", "demo", tmp_path / "there")
    assert POINTER in str(caught.value) or "data-" in str(caught.value)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "there").exists()
    assert collect_store(store, dry_run=False, min_age_seconds=0) == []


@pytest.mark.parametrize(
    "words", [("..", "demo"), ("tables", "../demo"), ("tables", "a\0"), ("tables", "demo", "../v1")]
)
def test_x3_names_that_leave_the_store(tmp_path: Path, words: tuple[str, ...]):
    with pytest.raises(ConfigError):
        find_stored(open_store((tmp_path / "store").as_uri()), *words)


def test_s6_the_newest_whole_version_is_taken(store: Any, tmp_path: Path):
    old = make(tmp_path / "here")
    push(old, store)
    change(store, push(make(tmp_path / "here", value=1), store).key("part-0.bin"), None)
    assert store.create("tables/demo/v000003.json", b"{")
    assert pull(store, "tables", "demo", tmp_path / "there").digest == old.digest
    with pytest.raises(IntegrityError, match="no object"):
        pull(store, "tables", "demo", tmp_path / "there", "v000002")
    with pytest.raises(ConfigError, match="no artifact 'tables/demo/v000004'"):
        pull(store, "tables", "demo", tmp_path / "there", "v000004")


class TestUnreachable:
    def told(self, tmp_path: Path, url: str) -> ResourceError:
        with pytest.raises(ResourceError) as caught:
            push(make(tmp_path / "here"), open_store(url))
        assert url in str(caught.value.problems[0])
        return caught.value

    def test_s8_a_bucket_that_is_not_there(self, aws: None, tmp_path: Path):
        assert "make the bucket" in str(self.told(tmp_path, "s3://no-such-bucket/x").fix)
        with pytest.raises(ResourceError, match="bucket"):
            pull(open_store("s3://no-such-bucket/x"), "tables", "demo", tmp_path / "there")

    def test_s8_no_credentials(self, aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert "AWS_ACCESS_KEY_ID" in str(self.told(tmp_path, f"s3://{BUCKET}/x").fix)

    @pytest.mark.parametrize("cause", ["AccessDenied", "ExpiredToken"])
    def test_s8_a_user_who_may_not(self, tmp_path: Path, cause: str):
        class Refusing:
            def ls(self, path: str, detail: bool) -> None:
                error = PermissionError("no") if cause == "AccessDenied" else TimeoutError("expired")
                raise error from RuntimeError(f"An error occurred ({cause}) when calling the operation")

        with pytest.raises(ResourceError, match=r"s3://b/tables/demo: .*refused") as caught:
            push(make(tmp_path / "here"), FilesystemStore(Refusing(), "b", "s3://b"))
        assert "AWS_ACCESS_KEY_ID" in str(caught.value.fix)

    def test_s8_a_server_that_is_gone(self, aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        assert "AWS_ENDPOINT_URL" in str(self.told(tmp_path, f"s3://{BUCKET}/x").fix)

    def test_s8_a_package_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(ResourceError, match="s3fs") as caught:
            open_store("s3://bucket/x")
        assert caught.value.fix == "pip install 'tgeokd_ray[object-store]'"

    def test_s5_s8_a_full_or_blocked_folder(self, tmp_path: Path):
        (tmp_path / "store").write_text("a file")
        with pytest.raises(ResourceError, match="in the way"):
            push(make(tmp_path / "here"), open_store((tmp_path / "store").as_uri()))

    @pytest.mark.parametrize("url", ["s3://", "ftp://x/y", "file://host/x", "file:x", "s3://b/../c", "gs://b/x"])
    def test_another_url(self, url: str):
        with pytest.raises(ConfigError, match=r"expected s3://BUCKET/PREFIX or file:///FOLDER"):
            open_store(url)


def test_s10_gc_removes_what_no_pointer_names_once_it_is_old(store: Any, tmp_path: Path):
    made = make(tmp_path / "here")
    kept = push(made, store)
    with pytest.raises(Crash):
        push(make(tmp_path / "here", value=1), FaultyStore(store, 7))
    assert collect_store(store, dry_run=False) == [], "an upload may be under way"
    (left,) = collect_store(store, dry_run=True, min_age_seconds=0)
    assert kept.data not in left
    before = {one.name for one in store.list("tables/demo")}
    assert collect_store(store, dry_run=True, min_age_seconds=0) == [left], "nothing was removed"
    with pytest.raises(Crash):
        collect_store(FaultyStore(store, 7), dry_run=False, min_age_seconds=0)
    assert collect_store(store, dry_run=False, min_age_seconds=0) in ([left], [])
    assert collect_store(store, dry_run=False, min_age_seconds=0) == []
    assert {one.name for one in store.list("tables/demo")} == before - {left.rpartition("/")[2]}
    assert pull(store, "tables", "demo", tmp_path / "there").digest == made.digest
    assert [stored.label for stored in pointers(store)] == ["tables/demo/v000001"]


def test_s10_an_upload_of_today_is_left_alone_and_one_of_the_day_before_yesterday_is_not(tmp_path: Path):
    store = open_store((tmp_path / "store").as_uri())
    with pytest.raises(Crash):
        push(make(tmp_path / "here"), FaultyStore(store, 6))
    assert collect_store(store, dry_run=False) == []
    for path in (tmp_path / "store").rglob("*"):
        os.utime(path, (time.time() - 2 * 86_400,) * 2)
    assert len(collect_store(store, dry_run=False)) == 1
    assert list((tmp_path / "store").glob("*/*/data-*")) == []
