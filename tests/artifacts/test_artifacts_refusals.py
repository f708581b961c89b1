"""What is refused before anything is written, with a way out: names, files in the way, disks."""

import errno
from pathlib import Path

import pytest
from artifacts_faults import DATA, TestDisk, make, shells

from tgeokd_ray.artifacts import (
    DISK,
    check_name,
    latest,
    staging,
    write_file,
)
from tgeokd_ray.errors import ConfigError, IntegrityError, ResourceError


class TestRefusals:
    @pytest.mark.parametrize(
        "name", ["../x", "/etc/x", "a" * 300, "a" * 101, "a\0b", "", ".hidden", "a b", "ä", "a/b", "a\n"]
    )
    def test_x3_names_that_leave_the_root(self, tmp_path: Path, name):
        with pytest.raises(ConfigError, match="cannot name"):
            check_name(name)
        for kind, other in ((name, "demo"), ("tables", name)):
            with pytest.raises(ConfigError):
                staging(tmp_path, kind, other, arguments={}, parents={})
            with pytest.raises(ConfigError):
                latest(tmp_path, kind, other)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["a", "a" * 100, "criteo-1.0_b", "7"])
    def test_names_that_are_fine(self, name):
        assert check_name(name) == name

    @pytest.mark.parametrize("path", ["../x", "sub/x", "/etc/x", "manifest.json", ".x", "a" * 201, "a\0"])
    def test_x4_files_that_leave_the_folder(self, tmp_path: Path, path):
        with staging(tmp_path, "tables", "demo", arguments={}, parents={}) as work:
            with pytest.raises(ConfigError):
                work.write(path, lambda target: target.write_bytes(b""))
            with pytest.raises(ConfigError):
                write_file(work.folder, path, lambda target: target.write_bytes(b""))

    def test_s8_a_file_in_the_way(self, tmp_path: Path):
        (tmp_path / "root").write_text("a file")
        with pytest.raises(ResourceError, match="in the way"):
            make(tmp_path / "root")
        (tmp_path / "root2").mkdir()
        (tmp_path / "root2" / "tables").write_text("a file")
        with pytest.raises(ResourceError, match="root2/tables"):
            make(tmp_path / "root2")

    @pytest.mark.parametrize(
        ("number", "way_out"),
        [(errno.EROFS, "another --root"), (errno.EACCES, "permission"), (errno.EDQUOT, "free space")],
    )
    def test_s8_a_read_only_root(self, tmp_path: Path, number, way_out):
        with pytest.raises(ResourceError, match=way_out):
            make(tmp_path / "root", TestDisk(0, "before", lambda: OSError(number, "no", str(tmp_path))))

    def test_s5_too_little_space_is_said_before_the_work(self, tmp_path: Path):
        need = DISK.free_bytes(tmp_path) * 2
        with (
            pytest.raises(ResourceError, match=f"expected {need} bytes"),
            staging(tmp_path, "tables", "demo", arguments={}, parents={}, need_bytes=need),
        ):
            raise AssertionError("entered")
        assert shells(tmp_path) == []

    def test_s1_s4_all_written_files_that_are_gone_are_listed(self, tmp_path: Path):
        with staging(tmp_path, "tables", "demo", arguments={}, parents={}) as work:
            for path, data in DATA.items():
                work.write(path, lambda target, data=data: target.write_bytes(data))
            (work.folder / "part-0.bin").unlink()
            (work.folder / "part-1.bin").write_bytes(b"short")
            with pytest.raises(IntegrityError) as caught:
                work.commit({})
        assert [(one.expected, one.got) for one in caught.value.problems] == [
            ("3000 bytes", "no file"),
            ("2000 bytes", "5 bytes"),
        ]
        assert latest(tmp_path, "tables", "demo") is None

    def test_nan_in_schema_or_extra_is_refused_and_nothing_is_lost(self, tmp_path: Path):
        with staging(tmp_path, "tables", "demo", arguments={}, parents={}) as work:
            work.write("a.bin", lambda path: path.write_bytes(b"a"))
            with pytest.raises(ValueError, match="JSON"):
                work.write("b.bin", lambda path: path.write_bytes(b"b"), extra={"auc": float("nan")})
            with pytest.raises(ValueError, match="JSON"):
                work.commit({"auc": float("nan")})
            assert work.commit({}).file("a.bin").read_bytes() == b"a"
