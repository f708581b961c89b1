"""Object stores for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from artifacts_stores import FaultyStore
from s3_server import BUCKET, access

from tgeokd_ray.artifacts import digest, open_store


def settings(patch: pytest.MonkeyPatch, server: str) -> None:
    """The environment of somebody who may use the server, and no accounts but that one."""
    for name, value in access(server).items():
        patch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        patch.delenv(name, raising=False)


@pytest.fixture
def aws(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs as somebody who may use the server."""
    settings(monkeypatch, server)


@pytest.fixture(scope="session")
def bucket(server: str) -> Any:
    """The whole bucket, through one client, which has read its settings and keeps them."""
    with pytest.MonkeyPatch.context() as patch:
        settings(patch, server)
        store = open_store(f"s3://{BUCKET}")
        store.list("")
        return store


@pytest.fixture
def s3(aws: None, bucket: Any, tmp_path: Path) -> Callable[..., Any]:
    """`s3(name)` is a store of this test alone; with `anew` through a client of its own, as from another host."""
    unique = digest(str(tmp_path))[:12]

    def opened(name: str = "store", anew: bool = False) -> Any:
        below = f"{name}-{unique}/deep"
        return open_store(f"s3://{BUCKET}/{below}") if anew else FaultyStore(bucket, below=f"{below}/")

    return opened


@pytest.fixture(params=["s3", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An empty store of either kind."""
    if request.param == "folder":
        return open_store((tmp_path / "a store").as_uri())
    return request.getfixturevalue("s3")()
