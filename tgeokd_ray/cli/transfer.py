"""`tgeokd push` and `tgeokd pull`: copies between a root and an object store, parents first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tgeokd_ray import artifacts
from tgeokd_ray.artifacts import Artifact, Manifest, ObjectStore, Parent, Stored
from tgeokd_ray.cli.lookup import named, root_folder
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.report.terminal import TerminalProgress


def push(root: str | None, labels: Sequence[str], url: str, parents: bool, again: bool) -> None:
    """Copy artifacts into a store; prints how each is called there. All names are looked up before anything is sent."""
    store, folder = artifacts.open_store(url), root_folder(root)
    chosen = [named(folder, label) for label in labels]
    here = _under(folder)
    wanted = [one for last in chosen for one in [*(artifacts.parents_first(last, here) if parents else []), last]]
    with TerminalProgress() as progress:
        for artifact in {one.label: one for one in wanted}.values():
            stored = artifacts.push(artifact, store, again=again, progress=progress)
            print(f"{artifact.label} -> {store.url}/{stored.label}  {artifact.digest[:12]}", flush=True)
    _note_absent((one.manifest for one in wanted), _inside(store), store.url)


def pull(root: str | None, labels: Sequence[str], url: str, parents: bool) -> None:
    """Copy artifacts from a store under the root; prints how each is called there. ConfigError for a name that the
    store lacks, before anything is copied."""
    store, folder = artifacts.open_store(url), root_folder(root)
    chosen = [artifacts.find_stored(store, *_parts(label)) for label in labels]
    there = _inside(store)
    wanted = [one for last in chosen for one in [*(artifacts.parents_first(last, there) if parents else []), last]]
    with TerminalProgress() as progress:
        for stored in {one.label: one for one in wanted}.values():
            made = artifacts.fetch(store, stored, folder, progress)
            print(f"{store.url}/{stored.label} -> {made.label}  {made.digest[:12]}", flush=True)
    _note_absent((one.manifest for one in wanted), _under(folder), str(folder))


def _under(root: Path) -> Callable[[Parent], Artifact | None]:
    present = {one.digest: one for one in artifacts.list_artifacts(root)}
    return lambda parent: present.get(parent.digest)


def _inside(store: ObjectStore) -> Callable[[Parent], Stored | None]:
    return lambda parent: artifacts.with_digest(store, f"{parent.kind}/{parent.name}", parent.digest)


def _parts(label: str) -> tuple[str, ...]:
    parts = tuple(label.strip("/").split("/"))
    if len(parts) not in (2, 3):
        problem = Problem("this names no artifact", expected="KIND/NAME or KIND/NAME/v000001", got=repr(label[:200]))
        raise ConfigError([problem], fix="tgeokd list URL names those in a store")
    return parts


def _note_absent(manifests: Iterable[Manifest], find: Callable[[Parent], object | None], where: str) -> None:
    """A copy is whole without what it was made from; whoever needs the parents is told which are not there."""
    parents = {one.digest: (role, one) for manifest in manifests for role, one in sorted(manifest.parents.items())}
    for role, parent in parents.values():
        if find(parent) is None:
            what = f"its {role} {parent.label} with digest {parent.digest[:12]}... is not in {where}"
            print(f"note: {what} (--parents copies what is there)", file=sys.stderr)
