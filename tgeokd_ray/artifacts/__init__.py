"""Artifacts: folders that are absent or whole, with a manifest that names their parents.

Only the standard library is imported here, so that a chain that is re-used as a whole answers at once.
"""

from tgeokd_ray.artifacts.commit import Staging, staging
from tgeokd_ray.artifacts.digest import canonical, digest, file_digests, file_sha256
from tgeokd_ray.artifacts.disk import DISK, Disk
from tgeokd_ray.artifacts.files import write_file
from tgeokd_ray.artifacts.json_files import read_json, write_json
from tgeokd_ray.artifacts.manifest import Artifact, FileEntry, Manifest, Parent, inputs_digest
from tgeokd_ray.artifacts.names import check_name
from tgeokd_ray.artifacts.objects import ObjectStore, open_store
from tgeokd_ray.artifacts.owner import held
from tgeokd_ray.artifacts.pointers import Stored, find_stored, parents_first, pointers, with_digest
from tgeokd_ray.artifacts.store import (
    find,
    find_content,
    latest,
    list_artifacts,
    open_artifact,
    replaced,
    siblings,
    version_folders,
)
from tgeokd_ray.artifacts.tensors import load_tensors, save_tensors
from tgeokd_ray.artifacts.transfer import collect_store, fetch, pull, push
from tgeokd_ray.artifacts.upkeep import BASE, Ancestor, collect, lineage, raw_names, require_parent, verify

__all__ = [
    "BASE",
    "DISK",
    "Ancestor",
    "Artifact",
    "Disk",
    "FileEntry",
    "Manifest",
    "ObjectStore",
    "Parent",
    "Staging",
    "Stored",
    "canonical",
    "check_name",
    "collect",
    "collect_store",
    "digest",
    "fetch",
    "file_digests",
    "file_sha256",
    "find",
    "find_content",
    "find_stored",
    "held",
    "inputs_digest",
    "latest",
    "lineage",
    "list_artifacts",
    "load_tensors",
    "open_artifact",
    "open_store",
    "parents_first",
    "pointers",
    "pull",
    "push",
    "raw_names",
    "read_json",
    "replaced",
    "require_parent",
    "save_tensors",
    "siblings",
    "staging",
    "verify",
    "version_folders",
    "with_digest",
    "write_file",
    "write_json",
]
