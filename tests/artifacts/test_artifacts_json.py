"""JSON files: replaced whole, read with limits."""

import errno
import tracemalloc
from pathlib import Path

import pytest
from artifacts_faults import TestDisk

from tgeokd_ray.artifacts import json_files, read_json, write_json
from tgeokd_ray.errors import IntegrityError, ResourceError


def test_what_was_written_is_read(tmp_path: Path):
    write_json(tmp_path / "a.json", {"b": [1, None], "a": "é"})
    assert read_json(tmp_path / "a.json") == {"b": [1, None], "a": "é"}
    assert (tmp_path / "a.json").read_bytes() == b'{\n "a": "\\u00e9",\n "b": [\n  1,\n  null\n ]\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_nobody_reads_by_eye_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, value = tmp_path / "x.json", {"b": [1, 2.5, "\u00e4"], "a": None}
    write_json(path, value)
    assert path.read_text().splitlines()[1] == ' "a": null,'
    monkeypatch.setattr(json_files, "READABLE", 10)
    write_json(path, value)
    assert path.read_text().count("\n") == 1
    assert read_json(path) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, [float("nan")] * 10)


@pytest.mark.parametrize("fault", ["before", "after", "half"])
@pytest.mark.parametrize("at", range(4))
def test_s5_disk_full_leaves_the_old_file_or_the_new_one(tmp_path: Path, at, fault):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    disk = TestDisk(at, fault, lambda: OSError(errno.ENOSPC, "no space"))
    with pytest.raises(ResourceError, match="free space"):
        write_json(path, {"new": 1}, disk=disk)
    assert read_json(path) in ({"old": 1}, {"new": 1})
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_n1_nan_is_refused_and_the_old_file_stays(tmp_path: Path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"auc": float("nan")})
    assert read_json(tmp_path / "a.json") == 1


BAD = [
    b"",
    b'{"a": ',
    b"\xff\xfe",
    b"NaN",
    b'{"a": Infinity}',
    b"[" * 200_000 + b"]" * 200_000,
    b"9" * 10_000,
    b"\x80\x04K\x01.",
]


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_x1_x6_s7_torn_or_hostile_json_is_an_integrity_error(tmp_path: Path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"a\.json.*\n  next: run the command"):
        read_json(tmp_path / "a.json")


def test_x6_a_file_above_the_limit_is_not_parsed(tmp_path: Path):
    (tmp_path / "a.json").write_bytes(b" " * 1001)
    with pytest.raises(IntegrityError, match="too large"):
        read_json(tmp_path / "a.json", limit=1000)


def test_a_missing_file_is_told_from_a_torn_one(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json")


def test_a_folder_is_no_json_file(tmp_path: Path):
    with pytest.raises(IntegrityError, match="regular"):
        read_json(tmp_path)


def test_reading_reserves_what_the_file_has_and_not_the_limit(tmp_path: Path):
    """Within a limit of memory 64 MiB for a small file are refused."""
    write_json(tmp_path / "a.json", list(range(1000)))
    tracemalloc.start()
    try:
        assert len(read_json(tmp_path / "a.json")) == 1000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20
