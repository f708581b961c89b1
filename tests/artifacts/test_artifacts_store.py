"""Reading: every kind of damage is found, listed at once, and refused; artifacts are found by their inputs."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
from artifacts_faults import make

from tgeokd_ray.artifacts import (
    Artifact,
    canonical,
    find,
    latest,
    list_artifacts,
    open_artifact,
    replaced,
    staging,
    verify,
    version_folders,
)
from tgeokd_ray.artifacts.digest import digest
from tgeokd_ray.errors import IntegrityError


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make(tmp_path / "root")


def edit(artifact: Artifact, *, sealed: bool = False, **changes: object) -> None:
    """Edit the manifest by hand; `sealed` recomputes the digests as a forger would."""
    file = artifact.path / "manifest.json"
    whole = json.loads(file.read_text()) | changes
    if sealed:
        parents = {role: parent["digest"] for role, parent in whole["parents"].items()}
        made_from = {"kind": whole["kind"], "arguments": whole["arguments"], "parents": parents}
        whole["inputs"] = digest(made_from)
        whole["digest"] = digest({**made_from, "schema": whole["schema"], "files": whole["files"]})
    file.write_text(json.dumps(whole))


def refused(artifact: Artifact, level: str = "size") -> list[str]:
    """The problems that opening lists; verify must list the same."""
    with pytest.raises(IntegrityError) as caught:
        open_artifact(artifact.path, level=level)
    problems = [str(problem) for problem in caught.value.problems]
    assert [str(problem) for problem in verify(artifact.path)[0]] == problems
    return problems


class TestDamage:
    def test_a_whole_artifact_opens_at_both_levels(self, artifact, tmp_path):
        assert open_artifact(artifact.path) == open_artifact(str(artifact.path), level="full") == artifact
        assert open_artifact(artifact.path, level="full", cache=tmp_path / "cache.json") == artifact
        assert verify(artifact.path) == ([], [])

    @pytest.mark.parametrize("bit", [0, 7, 8 * 1500 + 3, 8 * 2999 + 7])
    def test_s3_one_bit_flipped(self, artifact, bit):
        data = bytearray((artifact.path / "part-0.bin").read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        (artifact.path / "part-0.bin").write_bytes(data)
        (problem,) = refused(artifact, "full")
        assert "part-0.bin: the bytes differ; expected sha256" in problem

    @pytest.mark.parametrize("size", [0, 1500, 2999, 3001])
    def test_s1_a_shard_empty_half_or_cut(self, artifact, size):
        os.truncate(artifact.path / "part-0.bin", size)
        (problem,) = refused(artifact)
        assert f"part-0.bin: the size differs; expected 3000 bytes; got {size} bytes" in problem

    def test_s2_a_shard_replaced_by_another_whole_one(self, artifact):
        (artifact.path / "part-0.bin").write_bytes((artifact.path / "part-1.bin").read_bytes())
        assert "expected 3000 bytes; got 2000 bytes" in refused(artifact)[0]

    def test_s4_missing_and_stray_files_are_listed_together(self, artifact):
        (artifact.path / "part-0.bin").unlink()
        os.truncate(artifact.path / "part-1.bin", 1)
        (artifact.path / "stray").write_text("x")
        (artifact.path / "folder").mkdir()
        problems = refused(artifact)
        assert len(problems) == 4
        assert "folder: this file is not in the manifest" in problems[0]
        assert "stray: this file is not in the manifest" in problems[1]
        assert "part-0.bin: this file is missing" in problems[2]
        assert "part-1.bin: the size differs" in problems[3]

    def test_x4_a_link_in_place_of_a_file(self, artifact, tmp_path):
        (tmp_path / "elsewhere").write_bytes(b"0" * 3000)
        (artifact.path / "part-0.bin").unlink()
        (artifact.path / "part-0.bin").symlink_to(tmp_path / "elsewhere")
        assert "not a regular file" in refused(artifact)[0]

    def test_x4_a_link_in_place_of_the_folder_or_the_manifest(self, artifact, tmp_path):
        (tmp_path / "root" / "tables" / "demo" / "v000002").symlink_to(artifact.path)
        with pytest.raises(IntegrityError, match="links"):
            open_artifact(tmp_path / "root" / "tables" / "demo" / "v000002")
        assert latest(tmp_path / "root", "tables", "demo") == artifact
        manifest = artifact.path / "manifest.json"
        manifest.rename(tmp_path / "moved.json")
        manifest.symlink_to(tmp_path / "moved.json")
        assert "links" in refused(artifact)[0]

    def test_x4_a_pipe_in_place_of_a_file_does_not_block(self, artifact):
        for name in ("part-0.bin", "manifest.json"):
            (artifact.path / name).unlink()
            os.mkfifo(artifact.path / name)
            assert "not a regular file" in refused(artifact, "full")[0]

    def test_what_is_no_artifact_is_said_with_a_hint(self, artifact, tmp_path):
        with pytest.raises(IntegrityError, match=f"did you mean {artifact.path}"):
            open_artifact(artifact.path.parent)
        for path in (tmp_path / "nothing", artifact.path / "part-0.bin"):
            with pytest.raises(IntegrityError, match="no artifact"):
                open_artifact(path)

    def test_a_file_is_had_only_through_the_manifest(self, artifact):
        assert artifact.file("part-0.bin") == artifact.path / "part-0.bin"
        with pytest.raises(IntegrityError, match=r"'\.\./x'"):
            artifact.file("../x")


class TestManifest:
    @pytest.mark.parametrize(
        "changes",
        [
            {"arguments": {"value": 1}},
            {"schema": {}},
            {"kind": "logits"},
            {"digest": "0" * 64},
            {"inputs": "0" * 64},
            {"files": []},
            {"parents": {"table": {"kind": "tables", "name": "x", "version": "v000001", "digest": "0" * 64}}},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_p7_a_manifest_edited_by_hand(self, artifact, changes):
        edit(artifact, **changes)
        assert all("edited or damaged" in problem for problem in refused(artifact))

    @pytest.mark.parametrize(
        "path", ["../../../escape", "/etc/passwd", "a/b", "..", ".", "", "manifest.json", "a\0b", "\ud800"]
    )
    def test_x4_a_forged_manifest_with_an_unsafe_path(self, artifact, path):
        entry = {"path": path, "bytes": 1, "sha256": "0" * 64, "rows": None, "extra": {}}
        edit(artifact, sealed=True, files=[entry])
        assert "is not allowed" in refused(artifact)[0]

    @pytest.mark.parametrize(
        "changes",
        [{"kind": "../x"}, {"name": "/etc"}, {"name": "a\0"}, {"version": "../v000001"}, {"version": "v1"}],
        ids=str,
    )
    def test_x3_a_forged_manifest_with_an_unsafe_label(self, artifact, changes):
        edit(artifact, sealed=True, **changes)
        refused(artifact)

    @pytest.mark.parametrize(
        "changes",
        [
            {"files": {}},
            {"files": [1]},
            {"files": [{"path": "a", "bytes": True, "sha256": "", "rows": None, "extra": {}}]},
            {"files": [{"path": "a", "bytes": 1, "sha256": "", "rows": None, "extra": {}, "more": 1}]},
            {"files": [{"path": ["a"], "bytes": "1", "sha256": 1, "rows": 1.5, "extra": []}]},
            {"parents": {"table": None}},
            {"parents": []},
            {"record": None},
            {"more": 1},
            {"format": "1"},
            {"format": True},
        ],
        ids=str,
    )
    def test_mistyped_or_unknown_fields(self, artifact, changes):
        edit(artifact, **changes)
        refused(artifact)

    def test_all_mistyped_fields_are_listed_at_once(self, artifact):
        edit(artifact, files={}, parents=[], more=1)
        assert len(refused(artifact)) == 3

    def test_a_file_listed_twice(self, artifact):
        entries = json.loads((artifact.path / "manifest.json").read_text())["files"]
        edit(artifact, sealed=True, files=entries + entries[:1])
        assert "a file is listed twice" in refused(artifact)[0]

    def test_another_format_is_said(self, artifact):
        edit(artifact, format=2)
        with pytest.raises(IntegrityError, match=r"another format.*expected 1; got 2"):
            open_artifact(artifact.path)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", '{"arguments":' * 300_000, "NaN"], ids=lambda text: text[:3]
    )
    def test_x6_torn_or_hostile_json(self, artifact, text):
        (artifact.path / "manifest.json").write_text(text)
        refused(artifact)

    def test_x6_deep_nesting_that_json_can_read(self, artifact):
        edit(artifact, arguments=json.loads('{"a":' * 200 + "1" + "}" * 200))
        assert "64 levels" in refused(artifact)[0]

    def test_x6_a_number_beyond_floats(self, artifact):
        file = artifact.path / "manifest.json"
        file.write_text(file.read_text().replace('"value": 0', '"value": 1e999'))
        assert "has no digest" in refused(artifact)[0]

    def test_the_digests_are_those_of_the_written_out_contents(self, artifact):
        files = [
            {"bytes": entry.bytes, "extra": {}, "path": entry.path, "rows": entry.rows, "sha256": entry.sha256}
            for entry in artifact.manifest.files
        ]
        inputs = {"kind": "tables", "arguments": {"value": 0}, "parents": {}}
        assert canonical(inputs) == b'{"arguments":{"value":0},"kind":"tables","parents":{}}'
        assert artifact.manifest.inputs == "5a05ea2cb8734ed68207f8e36feaece65eff890835dc2238f486a98e9809289b"
        assert artifact.digest == digest({**inputs, "schema": {"columns": ["a", "b"]}, "files": files})


class TestFinding:
    def test_the_newest_whole_version_with_the_inputs(self, tmp_path):
        first, second = make(tmp_path), make(tmp_path, value=1)
        inputs = first.manifest.inputs
        assert find(tmp_path, "tables", "demo", inputs) == first
        assert find(tmp_path, "tables", "demo", second.manifest.inputs) == second
        assert find(tmp_path, "tables", "demo", "0" * 64) is None
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}) as work:
            third = work.commit({"other": 1})
        assert find(tmp_path, "tables", "demo", inputs) == third
        (third.path / "stray").touch()
        assert find(tmp_path, "tables", "demo", inputs) == first

    def test_s3_a_version_with_one_changed_byte_is_not_found(self, tmp_path):
        artifact = make(tmp_path)
        inputs, file = artifact.manifest.inputs, artifact.path / "part-0.bin"
        assert find(tmp_path, "tables", "demo", inputs) == artifact
        data = bytearray(file.read_bytes())
        data[0] ^= 1
        file.write_bytes(data)
        assert find(tmp_path, "tables", "demo", inputs) is None
        again = make(tmp_path)
        assert (again.version, again.digest) == ("v000002", artifact.digest), "it is made again beside the damaged one"
        assert (replaced(artifact), replaced(again)) == ([], ["tables/demo/v000001"])

    def test_what_was_found_once_is_not_hashed_again(self, tmp_path, monkeypatch):
        artifact = make(tmp_path)
        for path in artifact.path.iterdir():
            os.utime(path, (time.time() - 60,) * 2)
        assert find(tmp_path, "tables", "demo", artifact.manifest.inputs) == artifact
        module = sys.modules["tgeokd_ray.artifacts.digest"]  # the package's own `digest` is the function
        monkeypatch.setattr(module, "file_sha256", lambda path: "0" * 64)
        assert find(tmp_path, "tables", "demo", artifact.manifest.inputs) == artifact

    def test_nothing_is_found_where_nothing_is(self, tmp_path):
        assert find(tmp_path / "none", "tables", "demo", "0") is None
        assert latest(tmp_path, "tables", "demo") is None
        assert list_artifacts(tmp_path / "none") == []

    def test_s6_latest_passes_over_a_damaged_version(self, tmp_path):
        first, second = make(tmp_path), make(tmp_path, value=1)
        assert latest(tmp_path, "tables", "demo") == second
        os.truncate(second.path / "part-0.bin", 1)
        assert latest(tmp_path, "tables", "demo") == first

    def test_the_list_is_in_order_and_shows_no_staging(self, tmp_path):
        made = [make(tmp_path, name=name, value=value) for name in ("a", "b") for value in range(2)]
        work = staging(tmp_path, "tables", "a", arguments={}, parents={})
        with work:
            work.write("x.bin", lambda path: path.write_bytes(b"x"))
        (tmp_path / "runs" / "demo" / "checkpoints").mkdir(parents=True)
        (tmp_path / "results.json").write_text("{}")
        assert list_artifacts(tmp_path) == made
        assert [artifact.label for artifact in made][:2] == ["tables/a/v000001", "tables/a/v000002"]
        os.truncate(made[0].path / "part-0.bin", 1)
        assert list_artifacts(tmp_path) == made[1:]
        assert version_folders(tmp_path) == [artifact.path for artifact in made]

    def test_opening_a_large_manifest_takes_milliseconds(self, tmp_path):
        facts = {"split": "train", "groups": [4096] * 16, "labels": [[2000, 2096]] * 16}
        with staging(tmp_path, "tables", "demo", arguments={}, parents={}) as work:
            for number in range(100):
                work.write(f"train-{number:05d}.parquet", lambda path: path.write_bytes(b"x"), extra=facts)
            artifact = work.commit({})
        best = min(_seconds(artifact) for _ in range(5))
        assert best <= 0.05


def _seconds(artifact: Artifact) -> float:
    started = time.perf_counter()
    open_artifact(artifact.path)
    return time.perf_counter() - started
