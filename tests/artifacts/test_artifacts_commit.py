"""The commit protocol in one process: order, crashes and full disks at every call, versions."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from artifacts_faults import CALLS, Crash, TestDisk, bury, make, reference, shells, snapshot

from tgeokd_ray.artifacts import (
    Disk,
    find,
    open_artifact,
    read_json,
    staging,
    verify,
    write_file,
)
from tgeokd_ray.artifacts.names import version_number, versions
from tgeokd_ray.errors import ResourceError


class CleanlyRefused(Exception):
    """A ResourceError that names the place and a way out."""


@contextmanager
def explaining(root: Path) -> Iterator[None]:
    try:
        yield
    except ResourceError as error:
        text = str(error)
        raise (CleanlyRefused if "next: " in text and str(root) in text else AssertionError)(text) from error


def number_of_calls(tmp_path: Path) -> int:
    disk = TestDisk()
    make(tmp_path / "count", disk)
    return len(disk.calls)


class TestOrder:
    def test_write_sync_rename_then_the_manifest_then_the_folder(self, tmp_path: Path):
        disk = TestDisk()
        make(tmp_path, disk)
        calls = [(name, path.name) for name, path in disk.calls]
        first, second = calls.index(("replace", "part-0.bin")), calls.index(("replace", "part-2.bin"))
        assert [name for name, _ in calls[first - 3 : first + 3]] == [
            "write",
            "sync",
            "remove",
            "replace",
            "write",
            "replace",
        ]
        assert calls[first - 1 : first + 3 : 3] == [("remove", "part-0.bin.entry"), ("replace", "part-0.bin.entry")]
        assert calls[second + 3 : second + 8] == [
            ("write", "manifest.json"),
            ("sync", "manifest.json"),
            ("sync_folder", "files"),
            ("publish", "v000001"),
            ("sync_folder", "demo"),
        ]
        assert [name for name, _ in calls[second + 8 :]] == ["remove"] * 4 + ["remove_folder"]
        assert calls[-2][1] == "owner.json"

    def test_each_new_folder_is_made_durable_in_its_parent(self, tmp_path: Path):
        disk = TestDisk()
        make(tmp_path / "root", disk)
        calls = [(name, path) for name, path in disk.calls[:8]]
        home = tmp_path / "root" / "tables"
        assert ("sync_folder", home) in calls
        assert ("sync_folder", home.parent) in calls
        assert ("sync_folder", tmp_path) in calls

    def test_the_seam_knows_every_call(self):
        public = {name for name in vars(Disk) if not name.startswith("_")}
        assert public == {*CALLS, "free_bytes"}


@pytest.mark.parametrize("fault", ["before", "after", "half"])
def test_k1_k6_k7_a_crash_at_every_call_leaves_absent_or_whole(tmp_path: Path, fault):
    expected, count = reference(tmp_path), number_of_calls(tmp_path)
    assert count > 30
    whole = 0
    for at in range(count):
        root = tmp_path / f"{fault}-{at}"
        with pytest.raises(Crash):
            make(root, TestDisk(at, fault))
        committed = list(versions(root / "tables" / "demo"))
        whole += len(committed)
        assert all(verify(path) == ([], []) for path in committed)
        bury(root)
        again = make(root)
        assert again.digest == expected
        assert [path.name for path in versions(again.path.parent)] == ["v000001"]
        assert verify(again.path) == ([], [])
        assert shells(root) == []
    assert 0 < whole < count


@pytest.mark.parametrize("fault", ["before", "after", "half"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_s5_k9_k10_disk_full_at_every_call_keeps_earlier_versions(tmp_path: Path, number, fault):
    expected, count = reference(tmp_path), number_of_calls(tmp_path)
    for at in range(count):
        root = tmp_path / str(at)
        old = make(root, value=7)
        before = snapshot(old.path)
        disk = TestDisk(at, fault, lambda: OSError(number, "refused"))
        with suppress(CleanlyRefused), explaining(root):  # a fault after the commit, or of a mere tidying, is no error
            assert make(root, disk).digest == expected
        assert snapshot(old.path) == before
        assert make(root).digest == expected
        assert all(verify(path) == ([], []) for path in versions(old.path.parent))
        assert len(list(versions(old.path.parent))) == 2


def test_k7_unknown_outcome_of_the_rename_is_looked_up(tmp_path: Path):
    disk = TestDisk()
    make(tmp_path / "count", disk)
    at = [name for name, _ in disk.calls].index("publish")
    artifact = make(tmp_path / "root", TestDisk(at, "after", lambda: OSError(errno.EIO, "connection lost")))
    assert artifact.version == "v000001"
    assert verify(artifact.path) == ([], [])
    assert shells(tmp_path / "root") == []


class TestVersions:
    def test_k11_equal_content_is_not_written_twice(self, tmp_path: Path):
        first = make(tmp_path)
        second = make(tmp_path)
        assert second == first
        assert shells(tmp_path) == []

    def test_other_content_is_the_next_version_and_the_first_stays(self, tmp_path: Path):
        first = make(tmp_path)
        before = snapshot(first.path)
        assert make(tmp_path, value=1).version == "v000002"
        assert snapshot(first.path) == before

    def test_s6_a_damaged_version_is_no_winner(self, tmp_path: Path):
        first = make(tmp_path)
        (first.path / "part-0.bin").write_bytes(b"9" * 3000)
        second = make(tmp_path)
        assert (second.version, second.digest) == ("v000002", first.digest)
        assert verify(second.path) == ([], [])

    def test_s9_k8_a_faster_writer_takes_the_number(self, tmp_path: Path):
        class Slow(Disk):
            def publish(self, source: Path, target: Path) -> None:
                if target.name == "v000001":
                    make(tmp_path, value=1)
                super().publish(source, target)

        slow = make(tmp_path, Slow())
        assert slow.version == "v000002"
        assert open_artifact(slow.path).manifest.version == "v000002"
        assert make(tmp_path, value=1).version == "v000001"

    def test_parents_are_kept_by_digest(self, tmp_path: Path):
        parent = make(tmp_path)
        with staging(tmp_path, "logits", "demo", arguments={}, parents={"table": parent}) as work:
            child = work.commit({})
        with staging(tmp_path, "logits", "demo", arguments={}, parents={"table": parent.as_parent()}) as again:
            assert again.inputs == child.manifest.inputs
        assert child.manifest.parents["table"] == parent.as_parent()
        assert child.manifest.parents["table"].label == "tables/demo/v000001"

    def test_the_record_says_when_where_and_what_the_caller_adds(self, tmp_path: Path):
        record = read_json(make(tmp_path).path / "manifest.json")["record"]
        assert record["host"] == socket.gethostname()
        assert record["seconds"] == 0.1
        assert {"created", "versions", "commit"} < record.keys()
        assert record["created"].endswith("+00:00")

    def test_the_returned_artifact_is_the_one_on_disk(self, tmp_path: Path):
        with staging(tmp_path, "tables", "demo", arguments={"a": (1, 2)}, parents={}) as work:
            work.write("a.bin", lambda path: path.write_bytes(b"a"), extra={"labels": ((1, 2), (3, 4))})
            made = work.commit({"shape": (1, 2)})
        assert open_artifact(made.path) == made
        assert find(tmp_path, "tables", "demo", made.manifest.inputs) == made


def test_writing_again_replaces_the_file_and_its_entry(tmp_path: Path):
    with staging(tmp_path, "tables", "demo", arguments={}, parents={}) as work:
        write_file(work.folder, "a.bin", lambda path: path.write_bytes(b"first"))
        entry = write_file(
            work.folder, "a.bin", lambda path: path.write_bytes(b"second"), rows=2, extra={"split": "train"}
        )
        work.add(entry)
        artifact = work.commit({})
    assert artifact.file("a.bin").read_bytes() == b"second"
    assert (entry.bytes, entry.rows, entry.extra) == (6, 2, {"split": "train"})


def test_the_writer_sees_the_ending_of_the_name(tmp_path: Path):
    with staging(tmp_path, "tables", "demo", arguments={}, parents={}) as work:
        work.write("a.csv.gz", lambda path: path.write_text("".join(path.suffixes)))
        assert (work.folder / "a.csv.gz").read_text().endswith(".csv.gz")


@pytest.mark.parametrize(
    ("name", "number"), [("v000001", 1), ("v1000000", 1_000_000), ("v0000001", None), ("x", None), ("v1", None)]
)
def test_version_numbers(name, number):
    assert version_number(name) == number


def test_k3_a_file_taken_over_again_after_a_kill_leaves_the_earlier_version_alone(tmp_path: Path):
    first = make(tmp_path)
    before = snapshot(first.path)
    for _ in range(2):  # the second attempt finds its file in place, as another name of the same bytes
        with staging(tmp_path, "tables", "demo", arguments={"value": 1}, parents={}) as work:
            taken = work.take_over(first, first.manifest.files[0])
            assert snapshot(first.path) == before
    with staging(tmp_path, "tables", "demo", arguments={"value": 1}, parents={}) as work:
        assert work.kept == {taken.path: taken}
