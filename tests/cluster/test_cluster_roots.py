"""Artifacts must outlive the job, and every node must see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgeokd_ray.cluster.jobs import JOB_CONFIG, in_submitted_job
from tgeokd_ray.cluster.roots import resolve_root
from tgeokd_ray.errors import ConfigError, ResourceError


def test_outside_of_a_job_a_root_is_relative_to_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_root("artifacts", in_job=False, environ={"TGEOKD_ROOT": "/elsewhere"}) == tmp_path / "artifacts"


def test_in_a_job_a_relative_root_is_refused() -> None:
    with pytest.raises(ConfigError, match="temporary copy") as error:
        resolve_root("artifacts", in_job=True, environ={})
    assert "--root" in str(error.value)
    assert "TGEOKD_ROOT" in str(error.value)


def test_in_a_job_a_relative_root_lies_below_the_configured_one() -> None:
    assert resolve_root("a/b", in_job=True, environ={"TGEOKD_ROOT": "/data"}) == Path("/data/a/b")
    with pytest.raises(ConfigError, match="TGEOKD_ROOT must be an absolute path"):
        resolve_root("a/b", in_job=True, environ={"TGEOKD_ROOT": "data"})


def test_in_a_job_an_absolute_root_stands_unless_it_is_in_the_copy() -> None:
    assert resolve_root("/data/x", in_job=True, environ={}) == Path("/data/x")
    with pytest.raises(ConfigError, match="temporary copy"):
        resolve_root("/tmp/ray/s/runtime_resources/working_dir_files/_ray_pkg_1/x", in_job=True, environ={})


def test_a_job_is_known_by_its_environment() -> None:
    environ = {JOB_CONFIG: "{}"}
    assert in_submitted_job(environ)
    assert not in_submitted_job({"RAY_ADDRESS": "h:6379"})
    with pytest.raises(ConfigError):
        resolve_root("artifacts", environ=environ)


def test_nodes_that_do_not_see_the_root_are_named() -> None:
    from tgeokd_ray.cluster.visibility import blind_nodes

    assert blind_nodes(Path("/r"), "t", {"one": "t", "two": "t"}) is None
    problem = blind_nodes(Path("/r"), "t", {"one": "t", "two": "", "three": "other", "four": None})
    assert isinstance(problem, ResourceError)
    assert "root /r must be one folder for all 4 nodes: not seen by two, three; no answer from four" in str(problem)


@pytest.mark.ray
@pytest.mark.timeout(100)
@pytest.mark.usefixtures("cluster")
def test_every_node_is_asked_and_nothing_is_left(tmp_path: Path) -> None:
    from tgeokd_ray.cluster.visibility import check_root_visible

    check_root_visible(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for blocked in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(ResourceError, match="cannot be written"):
            check_root_visible(blocked)
