"""Submitted jobs on a head with a token: a whole chain with the numbers of one process, and failures with our code."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import psutil
import pytest
import yaml
from cluster_chain import SMALL, Chain

from tgeokd_ray.artifacts import list_artifacts

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """End the process with all below it, each by its id; Ray by itself would drain its node first."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=3)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end in this very moment
            one.kill()
    psutil.wait_procs(alive, timeout=5)
    process.wait(5)


@dataclass(frozen=True)
class Head:
    """A head that answers: where its dashboard is, and the environment of those who know its token."""

    dashboard: str
    environ: dict[str, str]

    def call(self, path: str, body: dict[str, Any] | None = None, token: bool = True) -> Any:
        """The answer of the jobs API, parsed."""
        headers = {"Authorization": f"Bearer {self.environ['RAY_AUTH_TOKEN']}"} if token else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.dashboard}/api/jobs/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def submit(self, *words: str, name: str) -> subprocess.CompletedProcess[str]:
        """What a user types, from a checkout of the repository."""
        command = [BIN / "ray", "job", "submit", "--submission-id", name, "--working-dir", ".", "--", "python", *words]
        environ = {**self.environ, "RAY_API_SERVER_ADDRESS": self.dashboard}
        return subprocess.run(
            command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=240, check=False
        )

    def outcome(self, *words: str, name: str, working: str) -> tuple[int, str]:
        """Exit code of the driver and the logs of a job in the working folder that an earlier one brought."""
        entrypoint = " ".join(["python", *words])
        body = {"entrypoint": entrypoint, "submission_id": name, "runtime_env": {"working_dir": working}}
        self.call("", body)
        while (job := self.call(name))["status"] in ("PENDING", "RUNNING"):
            time.sleep(0.3)
        return job["driver_exit_code"], self.call(f"{name}/logs")["logs"]


@pytest.fixture
def head() -> Iterator[Head]:
    """A head with a dashboard and a token, in a process of its own that is ended by its id."""
    port, agent, folder = free_port(), free_port(), tempfile.mkdtemp(prefix="tg")  # short: sockets lie in it
    environ = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "RAY_AUTH_MODE": "token"}
    environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    options = {
        "num-cpus": 2,
        "port": free_port(),
        "dashboard-host": "127.0.0.1",
        "dashboard-port": port,
        "dashboard-agent-listen-port": agent,  # its default may be taken by another Ray on this machine
        "include-log-monitor": "false",
        "temp-dir": folder,
    }
    command = [BIN / "ray", "start", "--head", "--block", *(f"--{name}={value}" for name, value in options.items())]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environ, start_new_session=True, **quiet)
    found = Head(f"http://127.0.0.1:{port}", environ)
    try:
        for _ in range(160):
            assert process.poll() is None
            try:
                found.call("")
                socket.create_connection(("127.0.0.1", agent), 1).close()  # it takes the jobs, and comes last
                break
            except (URLError, OSError):
                time.sleep(0.5)
        yield found
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def figures(results: dict[str, Any]) -> list[dict[str, Any]]:
    """All that results.json says of the models but how fast they were trained."""
    return [{key: value for key, value in m.items() if key != "rows_per_second"} for m in results["models"]]


def swept(head: Head, working: str, chain: Chain, root: Path, settings: list[str]) -> None:
    """A sweep over the very students of the chain finds their values."""
    space = {"rule": {"choice": ["labels", "constant"]}}
    space["constant"] = {"choice": [0.25, 0.75], "when": {"rule": "constant"}}
    file = root.parent / "swept.yaml"
    file.write_text(yaml.safe_dump({"space": space, "search": "grid", "packs": False}))
    words = ["jobs/sweep.py", str(file), "--root", str(root), "--card", chain.job.card, *settings]
    code, logs = head.outcome(*words, name="swept", working=working)
    assert code == 0, logs
    for told in ("joined ", "reused logits/", f"report: {root}"):
        assert told in logs
    trials = json.loads((root / "runs" / "swept" / "results.json").read_text())["extra"]["sweep"]["trials"]
    values = {model["valid"]["auc"] for model in chain.results["models"] if model["role"] == "student"}
    assert len(trials) == 3
    assert {trial["value"] for trial in trials} <= values


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_x10_submitted_jobs(head: Head, chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(HTTPError, match="401"):
        head.call("", token=False)

    settings = [word for setting in SMALL for word in ("--set", setting.replace(" ", ""))]
    root = tmp_path / "root"
    script = "jobs/ctr_distill.py"
    done = head.submit(script, "--quick", "--root", str(root), "--card", chain.job.card, *settings, name="whole")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("joined ", "TGeo-KD", "student on labels", f"report: {root}", "Job 'whole' succeeded"):
        assert words in done.stdout
    results = json.loads((root / "runs" / "synthetic_ctr" / "results.json").read_text())
    assert figures(results) == figures(chain.results), "one worker of Ray gives the numbers of no Ray"
    assert (results["extra"], results["warnings"]) == (chain.results["extra"], chain.results["warnings"])
    digests = [{one.label: one.digest for one in list_artifacts(place)} for place in (root, chain.root)]
    assert digests[0] == digests[1]
    assert not [*root.glob(".ray-*"), *root.glob(".visible-*")], "neither Ray's files nor a probe are left"

    done = head.submit(script, "--card", "no_such_card", "--root", str(root), name="card")
    assert done.returncode == 1, "all that Ray passes on to its own caller"
    assert "no_such_card" in done.stdout
    assert "Job entrypoint command failed with exit code 2" in done.stdout + done.stderr
    job = head.call("card")
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)

    working = job["runtime_env"]["working_dir"]
    swept(head, working, chain, root, settings)
    code, logs = head.outcome(script, name="relative", working=working)
    assert code == 2
    assert "root 'artifacts' is relative: in a submitted job it would lie in the cluster's temporary copy" in logs
