"""A submitted job joins its cluster, finds the package, refuses a relative root and ends with our exit code."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = """
import sys
from tgeokd_ray.cluster.connect import connect
from tgeokd_ray.cluster.data import ray_map
from tgeokd_ray.cluster.jobs import in_submitted_job, submission_id
from tgeokd_ray.cluster.roots import resolve_root
from tgeokd_ray.errors import UserError

def task(item):
    import tgeokd_ray
    return item * item

assert in_submitted_job() and submission_id() == "ours"
connection = connect(workers=1)
assert not connection.local
print("squares", list(ray_map(task, range(4), stage="job", tasks=1)))
try:
    resolve_root("artifacts")
except UserError as error:
    print(error)
    sys.exit(error.exit_code + 5)
"""

SUBMIT = """
import sys, time
from ray.job_submission import JobSubmissionClient

client = JobSubmissionClient(sys.argv[1])
entrypoint, working = sys.executable + " jobs/squares.py", {"working_dir": sys.argv[2]}
for attempt in range(60):
    try:
        client.submit_job(entrypoint=entrypoint, submission_id="ours", runtime_env=working)
        break
    except RuntimeError as error:  # the head answers before its agent does
        if "No available agent" not in str(error):
            raise
        time.sleep(0.5)
while not client.get_job_status("ours").is_terminal():
    time.sleep(0.2)
print(client.get_job_logs("ours"), "CODE", client.get_job_info("ours").driver_exit_code)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL by id to what is left: a head whose actors live on drains for half a minute."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=5)
    for one in alive:
        one.kill()
    psutil.wait_procs(alive, timeout=5)
    process.wait(5)


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head with a dashboard and a token, in a process of its own that is ended by its id."""
    dashboard, token = f"http://127.0.0.1:{free_port()}", secrets.token_hex(32)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    options = {
        "num-cpus": 3,
        "port": free_port(),
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard.rpartition(":")[2],
        "dashboard-agent-listen-port": free_port(),  # its default is taken by the Ray of the other tests
        "include-log-monitor": "false",
        "temp-dir": f"/tmp/tgeokd-{os.getpid()}",  # short: sockets lie in it
    }
    process = subprocess.Popen(
        [
            Path(sys.executable).with_name("ray"),
            "start",
            "--head",
            "--block",
            *(f"--{name}={value}" for name, value in options.items()),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    request = urllib.request.Request(f"{dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    try:
        for _ in range(120):
            assert process.poll() is None
            try:
                urllib.request.urlopen(request, timeout=2).close()
                break
            except (URLError, OSError):
                time.sleep(0.5)
        yield dashboard
    finally:
        end(process)
        shutil.rmtree(options["temp-dir"], ignore_errors=True)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(110)
def test_a_submitted_job(head: str, tmp_path: Path) -> None:
    folder = tmp_path / "working"
    (folder / "jobs").mkdir(parents=True)
    (folder / "tgeokd_ray").symlink_to(REPOSITORY / "tgeokd_ray")
    (folder / "jobs" / "squares.py").write_text(JOB)
    script = tmp_path / "submit.py"
    script.write_text(SUBMIT)
    command = [sys.executable, str(script), head, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert "squares [0, 1, 4, 9]" in done.stdout, done.stdout + done.stderr
    assert "root 'artifacts' is relative" in done.stdout
    assert "CODE 7" in done.stdout
