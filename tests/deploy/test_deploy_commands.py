"""What deploy/ runs: options that exist, pinned versions, no secret, room for the sweep, and the script itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from deploy_files import (
    CLUSTER,
    RAYJOB,
    REPOSITORY,
    cluster,
    containers,
    of_kind,
    pinned,
    pods,
    project,
    rayjob,
    unknown_options,
    unknown_ray_options,
)
from packaging.requirements import Requirement
from s3_server import BUCKET, access

from tgeokd_ray.artifacts import list_artifacts
from tgeokd_ray.cluster.capacity import Node, check_trials
from tgeokd_ray.config.sweep import Resolved, resolve_sweep

SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL")
SECRET_TEXT = re.compile(
    r"A[KS]IA[0-9A-Z]{16}|-----BEGIN|\b[0-9a-fA-F]{32,}\b|(?<![\w/.-])[A-Za-z0-9+/]{40}(?![\w/.-])"
)


def data() -> dict[str, str]:
    return dict(of_kind(rayjob(), "ConfigMap")["data"])


def test_options_of_all_commands_exist() -> None:
    script, told = data()["run.sh"], "\n".join(blocks())
    quoted = "\n".join(re.findall(r"(?:-- |&& )((?:python jobs/sweep|tgeokd ).*?)'?$", told, re.MULTILINE))
    assert script.count("tgeokd ") == 2
    assert "tgeokd push" in quoted
    assert "python jobs/sweep.py" in quoted
    assert unknown_options(script) == []
    assert unknown_options(f"{told}\n{quoted}") == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("python jobs/sweep.py s.yaml --rot /data", "sweep --rot"),
        ("tgeokd push sweeps/first --onto s3://b", "push --onto"),
        ("tgeokd pusch sweeps/first", "tgeokd pusch"),
    ],
)
def test_an_option_that_does_not_exist_is_found(line: str, told: str) -> None:
    assert unknown_options(line) == [told]


def blocks() -> list[str]:
    page = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    return re.findall(r"(?ms)^```\n(.*?)^```", page)


def test_rays_own_commands_on_the_page_exist() -> None:
    assert sum(line.startswith("ray ") for line in "\n".join(blocks()).splitlines()) > 8
    assert unknown_ray_options("\n".join(blocks())) == []
    wrong = "ray job submitt --working-dir . -- x\nray up a.yaml --now"
    assert unknown_ray_options(wrong) == ["ray submitt", "up --now"]


def test_the_steps_wait_for_the_workers_as_a_head_alone_has_no_room(tmp_path: Path) -> None:
    (steps,) = [block for block in blocks() if "ray up " in block]
    places = [steps.index(step) for step in ("\nray up ", "/ray status'", "\nray job submit ", "\nray down ")]
    assert places == sorted(places)
    head = cluster()["available_node_types"][cluster()["head_node_type"]]
    asked = resolved(tmp_path).sweep
    told = check_trials(asked.concurrency, asked.resources.cpu, asked.resources.gpu, [head["resources"]])
    assert "there is room for 0 on 1 node(s)" in str(told)


def secrets_in(text: str, documents: list[Any]) -> list[str]:
    """Values that look like a credential, names of one that are given a value, and objects that hold some."""
    found = SECRET_TEXT.findall(text)
    for one in containers(documents):
        found += [entry["name"] for entry in one.get("env", ()) if SECRET_NAME.search(entry["name"])]
    return found + [document["kind"] for document in documents if document["kind"] == "Secret"]


def test_no_secret_stands_in_a_file() -> None:
    documents = rayjob()
    assert secrets_in(RAYJOB.read_text(encoding="utf-8") + CLUSTER.read_text(encoding="utf-8"), documents) == []
    assert [one["envFrom"] for one in containers(documents) if "envFrom" in one] == [
        [{"secretRef": {"name": "tgeokd-object-store"}}]
    ]
    containers(documents)[0]["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "x"})
    assert secrets_in("AWS: AKIA" + "A" * 16, documents) == ["AKIA" + "A" * 16, "AWS_SECRET_ACCESS_KEY"]
    assert secrets_in(f"token: {'0f' * 32}", rayjob())


def test_versions_are_those_of_the_project() -> None:
    documents = rayjob()
    version = of_kind(documents, "RayJob")["spec"]["rayClusterSpec"]["rayVersion"]
    (ray,) = [one for one in map(Requirement, project()["dependencies"]) if one.name == "ray"]
    assert version == pinned("ray")
    assert version in ray.specifier
    assert {one["image"].rpartition(":")[2] for one in containers(documents)} == {project()["version"]}
    assert len({one["image"] for one in containers(documents)}) == 1
    built = re.search(r"docker build -t (\S+) \. && docker push (\S+)", RAYJOB.read_text(encoding="utf-8"))
    assert built is not None
    assert set(built.groups()) == {containers(documents)[0]["image"]}


def test_the_image_and_the_nodes_have_what_the_commands_need() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    (extras,) = re.findall(r'ARG EXTRAS="(.*)"', dockerfile)
    (install,) = [line for line in cluster()["setup_commands"] if "pip install" in line]
    found = re.search(r"-c ~/tgeokd/constraints.txt \"\$HOME/tgeokd\[(.*)\]\"", install)
    assert found is not None
    for told in (extras, found[1]):
        assert {"object-store", "tune"} <= set(told.split(",")) <= set(project()["optional-dependencies"])
    for folder in ("jobs", "datasets"):
        assert f" {folder} {folder}\n" in dockerfile
    (home,) = re.findall(r"cd (\S+)", data()["run.sh"])
    assert f"WORKDIR {home}\n" in dockerfile
    uids = {pod["template"]["spec"]["securityContext"]["runAsUser"] for pod in pods(rayjob())}
    assert uids == {int(uid) for uid in re.findall(r"useradd .*--uid (\d+)", dockerfile)}


def test_no_node_starts_without_a_token() -> None:
    config = cluster()
    starts = [config[f"{who}_start_ray_commands"][-1] for who in ("head", "worker")]
    assert all("export RAY_AUTH_MODE=token" in line.partition("ray start")[0] for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert of_kind(rayjob(), "RayJob")["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def resolved(folder: Path) -> Resolved:
    (folder / "sweep.yaml").write_text(data()["sweep.yaml"], encoding="utf-8")
    return resolve_sweep(str(folder / "sweep.yaml"), {})


def smallest() -> list[list[Node]]:
    """The nodes that either file starts with, before anything scales."""
    groups = [
        (pod["minReplicas"], pod["template"]["spec"]["containers"][0]["resources"]["limits"])
        for pod in pods(rayjob())[1:]
    ]
    types = cluster()["available_node_types"].values()
    return [
        [{"CPU": float(limits["cpu"])} for number, limits in groups for _ in range(number)],
        [{"CPU": float(one["resources"]["CPU"])} for one in types for _ in range(one.get("min_workers", 0))],
    ]


def test_the_sweep_fits_on_the_nodes_that_are_there_from_the_start(tmp_path: Path) -> None:
    found = resolved(tmp_path)
    assert f"tgeokd push sweeps/{found.name} " in data()["run.sh"]
    sweep = found.sweep
    for nodes in smallest():
        assert check_trials(sweep.concurrency, sweep.resources.cpu, sweep.resources.gpu, nodes) is None
        assert check_trials(9, sweep.resources.cpu, sweep.resources.gpu, nodes) is not None
        several = [check_trials(sweep.concurrency, sweep.resources.cpu, 0, nodes, workers) for workers in (2, 3)]
        assert [wrong is None for wrong in several] == [True, False]


def run_script(folder: Path, store: str, secret: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The job's script as it stands, on this machine: one small trial without Ray. `secret` is in the Secret."""
    for name, text in data().items():
        (folder / name).write_text(text.replace("cd /app", f"cd {REPOSITORY}"), encoding="utf-8")
    told = {"TGEOKD_ROOT": str(folder / "root"), "TGEOKD_SWEEP": str(folder / "sweep.yaml"), "TGEOKD_STORE": store}
    small = ["--trials", "1", "--set", "student.training.epochs=1", "--set", "teacher.training.epochs=1"]
    command = ["bash", str(folder / "run.sh"), "--local", *small]
    return ran(command, {**told, **(secret or {})})


def ran(command: list[str], told: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The command in an environment that holds of Ray, AWS and ours only what it is told."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TGEOKD_", "AWS_"))}
    inherited["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    inherited["PYTHONPATH"] = str(REPOSITORY)
    return subprocess.run(command, env=inherited | told, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.slow
def test_the_script_makes_the_sweep_sends_it_and_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = run_script(tmp_path, store.as_uri())
    assert first.returncode == 0, first.stderr
    sent = sorted(path.relative_to(store) for path in store.rglob("*") if path.is_file())
    kinds = {path.parts[0] for path in sent}
    assert kinds == {"tables", "teachers", "logits", "students", "sweeps"}
    again = run_script(tmp_path, store.as_uri())
    assert again.returncode == 0, again.stderr
    assert "1 of 1 are over and are kept" in again.stdout + again.stderr
    assert sorted(path.relative_to(store) for path in store.rglob("*") if path.is_file()) == sent


@pytest.mark.slow
@pytest.mark.timeout(220)
def test_the_sweep_goes_to_s3_and_comes_back_whole(tmp_path: Path, server: str) -> None:
    """With what the Secret holds, as the manifest hands it on; on another host the same artifacts are verified."""
    store, secret = f"s3://{BUCKET}/deploy/{tmp_path.name}", access(server)
    made = run_script(tmp_path, store, secret)
    assert made.returncode == 0, made.stderr
    here, there = tmp_path / "root", tmp_path / "back"
    pulled = ran(["tgeokd", "pull", "sweeps/first", "--parents", "--from", store, "--root", str(there)], secret)
    assert pulled.returncode == 0, pulled.stderr
    labels = sorted(artifact.label for artifact in list_artifacts(there))
    assert {label.partition("/")[0] for label in labels} == {"tables", "teachers", "logits", "students", "sweeps"}
    verified = ran(["tgeokd", "verify", *labels, "--root", str(there)], {})
    assert verified.returncode == 0, verified.stderr
    digests = {artifact.label: artifact.digest for artifact in list_artifacts(here)}
    for artifact in list_artifacts(there):
        assert digests[artifact.label] == artifact.digest
        assert f"{artifact.label} -> {store}/{artifact.label}  {artifact.digest[:12]}" in made.stdout
        assert f"{store}/{artifact.label} -> {artifact.label}  {artifact.digest[:12]}" in pulled.stdout
    model = "students/first/v000001/model.safetensors"
    assert (there / model).read_bytes() == (here / model).read_bytes()
    damaged = bytearray((there / model).read_bytes())
    damaged[-1] ^= 1
    (there / model).write_bytes(damaged)
    assert ran(["tgeokd", "verify", "students/first", "--root", str(there)], {}).returncode == 5


def test_a_bucket_that_is_not_there_ends_the_job_before_anything_is_made(tmp_path: Path, server: str) -> None:
    found = run_script(tmp_path, f"s3://no-such-bucket/{tmp_path.name}", access(server))
    assert found.returncode == 6
    assert "no-such-bucket" in found.stderr
    assert not (tmp_path / "root").exists()


def test_a_store_that_is_none_ends_the_job_before_anything_is_made(tmp_path: Path) -> None:
    found = run_script(tmp_path, "s4://bucket")
    assert found.returncode == 2
    assert "this names no store" in found.stderr
    assert not (tmp_path / "root").exists()
