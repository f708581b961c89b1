"""deploy/ against the schemas of Ray's launcher, KubeRay and EC2: the files pass, and no misspelt key does."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml
from deploy_files import (
    CLUSTER,
    cluster,
    cluster_problems,
    containers,
    keys,
    misspelt,
    of_kind,
    pods,
    ray_schema,
    rayjob,
    rayjob_problems,
    rayjob_schema,
)

# Names that are free: any other would do as well.
FREE_IN_CLUSTER = {
    ("available_node_types", "cpu"),
    ("available_node_types", "gpu"),
    ("file_mounts", "~/tgeokd"),
    ("file_mounts", "~/.ray/auth_token"),
}


def test_the_schemas_are_schemas() -> None:
    jsonschema.Draft7Validator.check_schema(ray_schema())
    jsonschema.Draft7Validator.check_schema(rayjob_schema())
    maps = [path[:-1] for path in keys(rayjob_schema()) if path[-1] == "properties"]
    assert len(maps) > 20
    assert [path for path in maps if not _closed(path)] == []


def _closed(path: tuple[str | int, ...]) -> bool:
    holder: Any = rayjob_schema()
    for key in path:
        holder = holder[key]
    return holder.get("additionalProperties") is False


def test_the_cluster_file_is_what_ray_takes() -> None:
    assert cluster_problems(cluster()) == []


def test_own_machines_are_what_ray_takes_too() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = {key: value for key, value in cluster().items() if key not in ("available_node_types", "head_node_type")}
    (told,) = re.findall(r"(?m)^#   provider: (.*)$", CLUSTER.read_text(encoding="utf-8"))
    whole = prepare_config(config | {"provider": yaml.safe_load(told)})
    validate_config(whole)
    assert whole["available_node_types"]["local.cluster.node"]["min_workers"] == 2


def test_rays_own_check_passes_the_cluster_file() -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    validate_config(fillout_defaults(cluster()))
    with pytest.raises(jsonschema.ValidationError, match="max_workerz"):
        validate_config(fillout_defaults({**cluster(), "max_workerz": 2}))


def test_a_misspelt_key_of_the_cluster_file_is_found() -> None:
    config = cluster()
    passed = {path for path in keys(config) if not cluster_problems(misspelt(config, path))}
    assert passed == FREE_IN_CLUSTER


def test_the_rayjob_is_what_kuberay_takes() -> None:
    assert rayjob_problems(rayjob()) == []


def test_a_misspelt_key_of_the_rayjob_is_found() -> None:
    documents = rayjob()
    assert not [path for path in keys(documents) if not rayjob_problems(misspelt(documents, path))]


def _group(key: str, value: object) -> Callable[[list[Any]], None]:
    return lambda documents: pods(documents)[1].__setitem__(key, value)


@pytest.mark.parametrize(
    "change",
    [
        _group("minReplicas", "2"),
        _group("maxReplicas", -1),
        _group("rayStartParams", {"object-store-memory": 4000000000}),
        _group("rayStartParams", {"object-store-mem": "1"}),
        lambda documents: containers(documents)[0]["env"].append({"name": "A", "value": 1}),
        lambda documents: containers(documents)[1]["resources"]["limits"].update(memory="16 GB"),
        lambda documents: containers(documents)[1]["volumeMounts"][0].update(name="other"),
        lambda documents: of_kind(documents, "RayJob").update(apiVersion="ray.io/v1alpha1"),
        lambda documents: of_kind(documents, "RayJob")["spec"].update(backoffLimit=None),
        lambda documents: of_kind(documents, "RayJob")["spec"].update(entrypoint="bash /etc/tgeokd/other.sh"),
        lambda documents: of_kind(documents, "RayJob")["spec"]["rayClusterSpec"]["authOptions"].update(mode="on"),
        lambda documents: of_kind(documents, "RayJob")["spec"]["rayClusterSpec"].pop("headGroupSpec"),
        lambda documents: of_kind(documents, "PersistentVolumeClaim")["metadata"].update(name="another"),
    ],
)
def test_a_wrong_value_of_the_rayjob_is_found(change: Callable[[list[Any]], None]) -> None:
    documents = copy.deepcopy(rayjob())
    change(documents)
    assert rayjob_problems(documents)


def test_all_nodes_see_the_root_at_one_path_and_a_restarted_job_finds_it() -> None:
    documents = rayjob()
    root = {one["name"]: one["value"] for one in containers(documents)[0]["env"]}["TGEOKD_ROOT"]
    assert of_kind(documents, "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(documents):
        (container,) = pod["template"]["spec"]["containers"]
        claims = {one["name"] for one in pod["template"]["spec"]["volumes"] if "persistentVolumeClaim" in one}
        (mounted,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] in claims]
        assert root.startswith(f"{mounted}/")
    spec = of_kind(documents, "RayJob")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert min(spec["ttlSecondsAfterFinished"], spec["backoffLimit"]) > 0
    cpu, gpu = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert 0 < cpu["minReplicas"] <= cpu["replicas"] <= cpu["maxReplicas"]
    assert (gpu["replicas"], gpu["minReplicas"]) == (0, 0)
    assert gpu["maxReplicas"] > 0
