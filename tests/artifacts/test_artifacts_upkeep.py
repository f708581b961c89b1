"""Verification with parents, lineage, and removing what dead runs left."""

import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from artifacts_faults import Crash, TestDisk, bury, make, shells, snapshot

from tgeokd_ray.artifacts import Artifact, collect, lineage, staging, verify, write_json
from tgeokd_ray.artifacts.owner import Owner

DAY = 86_400


def child(root: Path, kind: str, **parents: Artifact) -> Artifact:
    with staging(root, kind, "demo", arguments={}, parents=parents) as work:
        return work.commit({})


class TestParents:
    def test_lineage_names_every_ancestor_once_per_role(self, tmp_path: Path):
        table = make(tmp_path)
        teacher = child(tmp_path, "teachers", table=table)
        logits = child(tmp_path, "logits", table=table, teacher=teacher)
        student = child(tmp_path, "students", table=table, logits=logits)
        steps = lineage(student)
        assert [(step.role, step.parent.label) for step in steps] == [
            ("logits", "logits/demo/v000001"),
            ("logits/table", "tables/demo/v000001"),
            ("logits/teacher", "teachers/demo/v000001"),
            ("logits/teacher/table", "tables/demo/v000001"),
            ("table", "tables/demo/v000001"),
        ]
        assert [step.artifact for step in steps] == [logits, table, teacher, table, table]
        assert lineage(table) == []

    def test_a_missing_parent_is_a_note_and_no_problem(self, tmp_path: Path):
        table = make(tmp_path / "root")
        logits = child(tmp_path / "root", "logits", table=table)
        assert verify(logits.path) == ([], [])
        table.path.rename(tmp_path / "away")
        problems, (note,) = verify(logits.path)
        assert problems == []
        assert f"its table tables/demo/v000001 with digest {table.digest[:12]}" in str(note)
        assert [step.artifact for step in lineage(logits)] == [None]

    def test_p2_another_version_under_the_parents_name_is_not_the_parent(self, tmp_path: Path):
        table = make(tmp_path / "root")
        logits = child(tmp_path / "root", "logits", table=table)
        table.path.rename(tmp_path / "away")
        assert make(tmp_path / "root", value=1).label == table.label
        assert len(verify(logits.path)[1]) == 1

    def test_a_renamed_folder_is_a_note(self, tmp_path: Path):
        table = make(tmp_path)
        table.path.parent.rename(tmp_path / "tables" / "other")
        problems, (note,) = verify(tmp_path / "tables" / "other" / "v000001")
        assert problems == []
        assert "committed as tables/demo/v000001" in str(note)


class TestCollect:
    @pytest.fixture
    def left(self, tmp_path: Path) -> Path:
        """A staging folder whose owner died two hours ago, beside a committed version."""
        make(tmp_path, value=1)
        work = staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={})
        work.__enter__()
        work.write("part-0.bin", lambda path: path.write_bytes(b"x"))
        bury(tmp_path)
        self.age(tmp_path, 7200)
        return work.folder.parent

    def age(self, root: Path, seconds: float) -> None:
        for shell in shells(root):
            for path in (shell, *shell.rglob("*")):
                os.utime(path, (time.time() - seconds,) * 2)

    def test_a_dry_run_names_and_removes_nothing(self, tmp_path: Path, left: Path):
        before = snapshot(tmp_path)
        assert collect(tmp_path, dry_run=True) == [left]
        assert snapshot(tmp_path) == before

    def test_old_folders_of_dead_owners_go_and_versions_stay(self, tmp_path: Path, left: Path):
        version = tmp_path / "tables" / "demo" / "v000001"
        before = snapshot(version)
        assert collect(tmp_path, dry_run=False) == [left]
        assert shells(tmp_path) == []
        assert snapshot(version) == before
        assert collect(tmp_path, dry_run=False) == []

    def test_a_released_folder_is_nobodys(self, tmp_path: Path, left: Path):
        (left / "owner.json").unlink()
        self.age(tmp_path, 7200)
        assert collect(tmp_path, dry_run=False) == [left]

    def test_a_young_folder_stays(self, tmp_path: Path, left: Path):
        assert collect(tmp_path, dry_run=False, min_age_seconds=3 * 3600) == []
        (left / "files" / "part-1.bin").touch()
        assert collect(tmp_path, dry_run=False) == []
        assert shells(tmp_path) == [left]

    def test_a_living_owner_stays_at_any_age(self, tmp_path: Path):
        with staging(tmp_path, "tables", "demo", arguments={}, parents={}) as work:
            self.age(tmp_path, 10 * DAY)
            assert collect(tmp_path, dry_run=False, min_age_seconds=0) == []
            assert work.commit({}).version == "v000001"

    def test_an_owner_on_another_host_goes_after_a_day_of_silence(self, tmp_path: Path, left: Path):
        bury(tmp_path, host="node7")
        self.age(tmp_path, 7200)
        assert collect(tmp_path, dry_run=False) == []
        self.age(tmp_path, DAY + 60)
        assert collect(tmp_path, dry_run=False) == [left]
        assert shells(tmp_path) == []

    def test_checkpoints_and_what_ray_left_go_too(self, tmp_path: Path, left: Path):
        folder = tmp_path / "runs" / "demo"
        work = staging(folder, "checkpoints", "tgeo", arguments={}, parents={})
        work.__enter__()
        bury(folder)
        self.age(folder, 7200)
        ray = tmp_path / ".ray-0123"
        (ray / "attempt-0").mkdir(parents=True)
        (ray / "attempt-0" / "state.json").write_text("{}")
        write_json(ray / "owner.json", asdict(Owner.current()))
        checkpoint = work.folder.parent
        assert collect(tmp_path, dry_run=False) == sorted([left, checkpoint])
        assert not checkpoint.exists()
        for path in (ray, *ray.rglob("*")):
            os.utime(path, (time.time() - 2 * DAY,) * 2)
        assert collect(tmp_path, dry_run=False) == [], "its driver lives, however silent it is"
        write_json(ray / "owner.json", asdict(Owner.current()) | {"started": "1"})
        os.utime(ray / "owner.json", (time.time() - 7200,) * 2)
        os.utime(ray, (time.time() - 7200,) * 2)
        assert collect(tmp_path, dry_run=True) == [ray]
        assert ray.exists()
        assert collect(tmp_path, dry_run=False) == [ray]
        assert not ray.exists()

    def test_s10_a_crash_at_every_call_is_finished_by_the_next_gc(self, tmp_path: Path, left: Path):
        version = tmp_path / "tables" / "demo" / "v000001"
        before = snapshot(version)
        for at in range(100):
            disk = TestDisk(at)
            try:
                collect(tmp_path, dry_run=False, min_age_seconds=0, disk=disk)
                break
            except Crash:
                bury(tmp_path)
        assert 5 <= at < 100
        assert shells(tmp_path) == []
        assert snapshot(version) == before
        assert make(tmp_path).version == "v000002"
