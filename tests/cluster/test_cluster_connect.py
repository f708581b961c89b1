"""Which Ray is joined or started, and what its processes find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tgeokd_ray.cluster import environment
from tgeokd_ray.cluster.connect import Connection, connect, cores
from tgeokd_ray.errors import ConfigError, ResourceError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    environment.prepare()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.2"


def test_processes_find_this_package_first_and_the_users_path_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/a", str(REPOSITORY), "/b"]))
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    assert environment.inherited(verbose=True) == {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), "/a", "/b"])}
    assert environment.inherited(verbose=False)["PYTHONWARNINGS"] == "ignore"
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert environment.inherited(verbose=False)["PYTHONWARNINGS"] == "error"


def test_the_environment_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "1")
    monkeypatch.delenv("TWO", raising=False)
    with environment.environment({"ONE": "x", "TWO": "y"}):
        assert (os.environ["ONE"], os.environ["TWO"]) == ("x", "y")
    assert os.environ["ONE"] == "1"
    assert "TWO" not in os.environ


@pytest.mark.parametrize(("home", "token"), [("writable", False), ("/proc/absent", True)])
def test_x10_the_token_needs_no_home(home: str, token: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.TOKENS:
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", home if token else str(tmp_path))
    environment.ensure_token()
    assert len(os.environ.get("RAY_AUTH_TOKEN", "")) == (64 if token else 0)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://host:10001"])
def test_addresses_for_job_submission_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="ray job submit"):
        connect(address, workers=1)


@pytest.mark.timeout(60)
def test_no_ray_at_the_address_is_said_at_once() -> None:
    code = "from tgeokd_ray.cluster.connect import connect; connect(workers=1)"
    environ = {**os.environ, "RAY_ADDRESS": "127.0.0.1:9", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=50, check=False
    )
    assert "ResourceError: resource: Ray at 127.0.0.1:9: [Errno 111] Connection refused" in done.stderr


def test_a_missing_token_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**options: object) -> None:
        try:
            raise RuntimeError("Last connection error:\n ray.exceptions.AuthenticationError: RPC error")
        except RuntimeError as cause:
            raise ConnectionError("Failed to connect to Ray cluster at 1.2.3.4:6379") from cause

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ResourceError, match="asks for a token") as error:
        connect("auto", workers=1)
    assert "RAY_AUTH_MODE=token" in str(error.value)


def test_a_ray_that_does_not_start_in_time_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def too_late(**options: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because the raylet failed")

    monkeypatch.setattr(ray, "init", too_late)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ResourceError, match=r"Ray does not start on this machine: .* timed out") as error:
        connect(None, workers=1)
    assert "use --local" in str(error.value)


@pytest.mark.ray
@pytest.mark.timeout(100)
def test_a_connected_process_stays_connected(cluster: Connection) -> None:
    import ray

    second = connect(workers=6)
    assert second.address == cluster.address
    assert [node["CPU"] for node in second.nodes()] == [max(4, cores())], "two beside the two workers"
    second.close()
    assert ray.is_initialized()


@pytest.mark.ray
@pytest.mark.timeout(100)
@pytest.mark.usefixtures("cluster")
def test_workers_import_this_checkout() -> None:
    import ray

    def where() -> str:
        import tgeokd_ray

        return str(tgeokd_ray.__file__)

    assert ray.get(ray.remote(where).remote()) == str(REPOSITORY / "tgeokd_ray" / "__init__.py")


DRIVER = """
import os, signal, sys, time
from tgeokd_ray.cli.guard import guarded
from tgeokd_ray.cluster.connect import connect

def work():
    connection = connect(sys.argv[1], workers=1)
    print("local", connection.local, flush=True)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    finally:
        connection.close()
        print("closed", flush=True)

guarded(work, debug=False)
"""


@pytest.mark.ray
@pytest.mark.timeout(100)
def test_k12_a_joined_driver_ends_in_order_at_sigterm(cluster: Connection) -> None:
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_AUTH_MODE": "token"}
    command = [sys.executable, "-c", DRIVER, cluster.address]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout.splitlines() == ["local False", "closed"], done.stderr
    assert done.returncode == 143
    assert "SIGTERM received" not in done.stderr, "Ray's own report of a crash"
    assert len(cluster.nodes()) == 1, "a cluster that was joined stays"
