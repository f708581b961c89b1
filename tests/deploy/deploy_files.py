"""The files of deploy/ and what is wrong with them: keys against their schemas, references, options of commands."""

from __future__ import annotations

import copy
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import typer
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
RAYJOB, CLUSTER = REPOSITORY / "deploy" / "rayjob.yaml", REPOSITORY / "deploy" / "cluster.yaml"
QUANTITIES = {"cpu", "memory", "storage", "nvidia.com/gpu"}
KeyPath = tuple[str | int, ...]
JSON = dict[str, Any]


def rayjob() -> list[JSON]:
    return list(yaml.safe_load_all(RAYJOB.read_text(encoding="utf-8")))


def cluster() -> JSON:
    return dict(yaml.safe_load(CLUSTER.read_text(encoding="utf-8")))


def of_kind(documents: list[JSON], kind: str) -> JSON:
    (found,) = [document for document in documents if document.get("kind") == kind]
    return found


def pods(documents: list[JSON]) -> list[JSON]:
    """The groups of the Ray cluster, the head first."""
    spec = of_kind(documents, "RayJob")["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def containers(documents: list[JSON]) -> list[JSON]:
    return [one for pod in pods(documents) for one in pod["template"]["spec"]["containers"]]


def project() -> JSON:
    return dict(tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def pinned(package: str) -> str:
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    return str(re.findall(rf"(?m)^{package}==(\S+)", text)[0])


@cache
def ray_schema() -> JSON:
    path = distribution("ray").locate_file("ray/autoscaler/ray-schema.json")
    return dict(json.loads(Path(str(path)).read_text(encoding="utf-8")))


@cache
def rayjob_schema() -> JSON:
    return dict(yaml.safe_load((Path(__file__).parent / "rayjob_schema.yaml").read_text(encoding="utf-8")))


@cache
def start_options() -> frozenset[str]:
    from ray.scripts.scripts import start

    return frozenset(option.lstrip("-") for parameter in start.params for option in parameter.opts)


@cache
def run_instances() -> Any:
    """What EC2's RunInstances takes, which Ray hands a node_config to."""
    from botocore.session import get_session

    return get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def told(schema: JSON, instance: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in jsonschema.Draft7Validator(schema).iter_errors(instance)]


def rayjob_problems(documents: list[JSON]) -> list[str]:
    """What a strict API server, `ray start` and the objects that name one another would not take."""
    problems = []
    for document in documents:
        kind = {"$ref": f"#/$defs/{document.get('kind', 'RayJob')}"}
        problems += told(rayjob_schema() | kind, document)
    if problems:
        return problems
    for pod in pods(documents):
        problems += [f"ray start has no --{key}" for key in pod["rayStartParams"] if key not in start_options()]
        problems += loose_ends(pod["template"]["spec"], documents)
    data = of_kind(documents, "ConfigMap")["data"]
    files = [f"/etc/tgeokd/{name}" for name in data]
    sweep = {one["name"]: one["value"] for one in containers(documents)[0]["env"]}.get("TGEOKD_SWEEP")
    asked = [*shlex.split(of_kind(documents, "RayJob")["spec"]["entrypoint"])[1:], sweep]
    problems += [f"{path} is not in the ConfigMap" for path in asked if path not in files]
    resources = [one["resources"] for one in containers(documents)]
    resources.append(of_kind(documents, "PersistentVolumeClaim")["spec"]["resources"])
    names = {name for one in resources for part in one.values() for name in part}
    return problems + [f"no resource {name}" for name in sorted(names - QUANTITIES)]


def loose_ends(spec: JSON, documents: list[JSON]) -> Iterator[str]:
    """Names in a pod that nothing has."""
    there = {(document["kind"], document["metadata"]["name"]) for document in documents}
    mounts = {mount["name"] for one in spec["containers"] for mount in one["volumeMounts"]}
    yield from (f"no volume {name}" for name in sorted(mounts ^ {one["name"] for one in spec["volumes"]}))
    for volume in spec["volumes"]:
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        names = ("PersistentVolumeClaim", claim) if claim else ("ConfigMap", volume.get("configMap", {}).get("name"))
        yield from () if names in there else (f"no {names}",)


def cluster_problems(config: JSON) -> list[str]:
    """What Ray's schema, its `ray start` and EC2 would not take."""
    from botocore.validate import ParamValidator

    problems = told(ray_schema(), config)
    types = config.get("available_node_types", {})
    known = ray_schema()["properties"]["provider"]["properties"]
    problems += [f"no provider.{key}" for key in config.get("provider", {}) if key not in known]
    problems += [] if config.get("head_node_type") in types else ["no head_node_type among the types"]
    for name, node in types.items():
        problems += [f"{name}: no resource {key}" for key in node.get("resources", {}) if key not in ("CPU", "GPU")]
        asked = {**node.get("node_config", {}), "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(asked, run_instances())
        problems += [f"{name}: {report.generate_report()}"] if report.has_errors() else []
    commands = [*config.get("head_start_ray_commands", ()), *config.get("worker_start_ray_commands", ())]
    options = [option for line in commands for option in re.findall(r"(?<=--)[a-z-]+", line.partition("ray start")[2])]
    return problems + [f"ray start has no --{option}" for option in options if option not in start_options()]


def keys(tree: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The paths of all keys of all mappings in a tree."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*path, key)
            yield from keys(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from keys(value, (*path, index))


def misspelt(tree: Any, path: KeyPath) -> Any:
    """A copy in which the key at this path has one letter too many, its value unchanged."""
    changed = copy.deepcopy(tree)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[f"{path[-1]}x"] = holder.pop(path[-1])
    return changed


def unknown_options(lines: str) -> list[str]:
    """Commands and options in a script that the command line lacks; lines of other programs are passed over."""
    from tgeokd_ray.cli.main import app

    root: Any = typer.main.get_command(app)
    found = []
    for line in lines.replace("\\\n", " ").splitlines():
        if not line.startswith(("python jobs/sweep.py", "tgeokd ")):
            continue
        words = shlex.split(line, comments=True)
        name, words = ("sweep", words[2:]) if words[0] == "python" else (words[1], words[2:])
        command = root.commands.get(name)
        known = {option for one in command.params for option in one.opts} if command else {"--help"}
        found += [] if command else [f"tgeokd {name}"]
        found += [f"{name} {word}" for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return found


def unknown_ray_options(lines: str) -> list[str]:
    """Subcommands and options of Ray's own command line in a script that the installed Ray lacks."""
    from ray.scripts.scripts import cli

    found = []
    for line in lines.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["ray"]:
            continue
        command: Any = cli
        while hasattr(command, "commands"):
            words = words[1:]
            command = command.commands.get(words[0]) if words else None
        if command is None:
            found.append(f"ray {' '.join(words[:1])}")
            continue
        known = {option for one in command.params for option in one.opts}
        own = words[: words.index("--")] if "--" in words else words
        found += [f"{own[0]} {word}" for word in own if word.startswith("--") and word.partition("=")[0] not in known]
    return found
