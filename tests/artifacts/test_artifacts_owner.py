"""Staging folders: what a dead attempt leaves is kept or removed, and who may take it over."""

import json
import os
import socket
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from artifacts_faults import DATA, TestDisk, bury, crashed, make

from tgeokd_ray.artifacts import (
    DISK,
    held,
    latest,
    owner,
    staging,
    verify,
)
from tgeokd_ray.errors import ResourceError


class TestAdoption:
    def test_k3_finished_files_are_kept_and_not_rewritten(self, tmp_path: Path):
        folder = crashed(tmp_path)
        status = (folder / "part-0.bin").stat()
        disk = TestDisk()
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}, disk=disk) as work:
            assert list(work.kept) == ["part-0.bin"]
            assert [path.name for path in folder.iterdir()] == ["part-0.bin"]
            assert sorted(path.name for path in folder.parent.iterdir()) == ["files", "owner.json", "part-0.bin.entry"]
            work.add(work.kept["part-0.bin"])
            artifact = work.commit({})
        after = artifact.file("part-0.bin").stat()
        assert (after.st_ino, after.st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
        assert ("replace", "part-0.bin") not in [(name, path.name) for name, path in disk.calls]

    @pytest.mark.parametrize("damage", [b"", b"0" * 2999 + b"1", b"0" * 2999])
    def test_s1_s3_a_damaged_finished_file_is_not_kept(self, tmp_path: Path, damage):
        (crashed(tmp_path) / "part-0.bin").write_bytes(damage)
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}) as work:
            assert work.kept == {}

    @pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "part-1.bin"])
    def test_x4_an_entry_that_names_another_file_is_not_believed(self, tmp_path: Path, path):
        sidecar = crashed(tmp_path).parent / "part-0.bin.entry"
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"path": path}))
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}) as work:
            assert work.kept == {}

    def test_a_kept_file_that_is_not_added_is_left_out(self, tmp_path: Path):
        crashed(tmp_path)
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}) as work:
            artifact = work.commit({})
        assert verify(artifact.path) == ([], [])
        assert [path.name for path in artifact.path.iterdir()] == ["manifest.json"]

    def test_k9_an_error_in_the_block_keeps_finished_files_and_shows_nothing(self, tmp_path: Path):
        def failing(path: Path) -> None:
            path.write_bytes(b"half")
            raise RuntimeError("row 6500")

        work = staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={})
        with suppress(RuntimeError), work:
            work.write("part-0.bin", lambda path: path.write_bytes(DATA["part-0.bin"]))
            work.write("part-1.bin", failing)
            raise AssertionError("the error of the writer was lost")
        assert latest(tmp_path, "tables", "demo") is None
        left = sorted(path.name for path in work.folder.parent.rglob("*"))
        assert left == ["files", "part-0.bin", "part-0.bin.entry"]
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}) as again:
            assert list(again.kept) == ["part-0.bin"]

    def test_other_inputs_do_not_share_a_folder(self, tmp_path: Path):
        crashed(tmp_path)
        with staging(tmp_path, "tables", "demo", arguments={"value": 1}, parents={}) as work:
            assert work.kept == {}
            assert work.folder.parent.name == f".staging-{work.inputs[:16]}"


class TestOwner:
    def test_k8_a_living_owner_is_named(self, tmp_path: Path):
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}):
            with pytest.raises(ResourceError, match=f"process {os.getpid()} on {socket.gethostname()}") as caught:
                make(tmp_path)
            assert "wait" in str(caught.value)
        assert make(tmp_path).version == "v000001"

    @pytest.mark.parametrize(
        "changes",
        [{"pid": 2**22 + 1}, {"started": "1"}, {"boot": "another", "namespace": "another"}],
        ids=["no such process", "its number went to a later process", "the host was booted since"],
    )
    def test_k3_a_dead_owner_is_followed(self, tmp_path: Path, changes):
        crashed(tmp_path, dead=False)
        bury(tmp_path, **({"started": None} | changes))
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}) as work:
            assert list(work.kept) == ["part-0.bin"]

    @pytest.mark.parametrize("changes", [{"host": "node7"}, {"namespace": "another container"}])
    def test_k3_an_owner_that_cannot_be_judged_is_refused_with_a_way_out(self, tmp_path: Path, changes):
        crashed(tmp_path, dead=False)
        bury(tmp_path, **changes)
        with pytest.raises(ResourceError, match=f"tgeokd gc {tmp_path}"):
            make(tmp_path)

    @pytest.mark.parametrize("text", ["", "[]", '{"pid": 1}', "HOST-1", "HOST0", f"HOST{2**40}", 'HOST"1"'])
    def test_a_lock_that_cannot_be_read_is_nobodys_and_refused(self, tmp_path: Path, text):
        lock = f'{{"host": "{socket.gethostname()}", "started": null, "boot": null, "namespace": null, "pid": '
        folder = crashed(tmp_path)
        (folder.parent / "owner.json").write_text(text.replace("HOST", lock) + "}" * text.startswith("HOST"))
        with pytest.raises(ResourceError, match="unknown host"):
            make(tmp_path)

    @pytest.mark.parametrize(("lives", "patience", "taken"), [(0.6, 20.0, True), (30.0, 0.5, False)])
    def test_k3_a_worker_that_outlives_its_killed_driver_is_waited_for(
        self, tmp_path: Path, monkeypatch, lives: float, patience: float, taken: bool
    ):
        monkeypatch.setattr(owner, "PATIENCE_SECONDS", patience)
        script = "import sys, time; from tgeokd_ray.artifacts import staging\n"
        script += (
            "work = staging(sys.argv[1], 'tables', 'demo', arguments={'value': 0}, parents={}); work.__enter__()\n"
        )
        script += "print('held', flush=True); time.sleep(float(sys.argv[2])); import os; os._exit(9)"
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(lives)], stdout=subprocess.PIPE
        ) as child:
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == b"held\n"
                refused = nullcontext() if taken else pytest.raises(ResourceError, match=f"process {child.pid} on")
                with refused, staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}) as work:
                    assert work.commit({}).label == "tables/demo/v000001"
            finally:
                child.kill()
        assert (latest(tmp_path, "tables", "demo") is not None) == taken

    def test_a_folder_that_is_no_staging_is_held_by_one_process(self, tmp_path: Path, monkeypatch):
        monkeypatch.setattr(owner, "PATIENCE_SECONDS", 0.3)
        folder = tmp_path / "runs" / "demo"
        with held(folder, DISK):
            (folder / "results.json").write_text("{}")
            script = "import sys; from pathlib import Path; from tgeokd_ray.artifacts import DISK, held, owner\n"
            script += "owner.PATIENCE_SECONDS = 0.1\nwith held(Path(sys.argv[1]), DISK): pass"
            done = subprocess.run(
                [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False
            )
            assert f"process {os.getpid()} on" in done.stderr
            assert "is at work in this folder right now" in done.stderr
        assert sorted(path.name for path in folder.iterdir()) == ["results.json"]
        with held(folder, DISK):
            pass

    def test_nothing_is_committed_once_another_process_holds_the_folder(self, tmp_path: Path):
        with staging(tmp_path, "tables", "demo", arguments={}, parents={}) as work:
            bury(tmp_path, pid=1)
            with pytest.raises(ResourceError, match="does not hold"):
                work.commit({})
        assert latest(tmp_path, "tables", "demo") is None
        assert (work.folder.parent / "owner.json").exists()
