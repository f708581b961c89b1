"""The seam to object stores: the few calls that the protocol needs, on S3 through s3fs or on a mounted folder.

Keys are `kind/name/v000001.json` and `kind/name/data-<32 hexadecimal digits>/FILE`, below the prefix in the URL.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from tgeokd_ray.artifacts.disk import DISK, explained
from tgeokd_ray.artifacts.json_files import LIMIT
from tgeokd_ray.errors import ConfigError, IntegrityError, Problem, ResourceError

_INSTALL = "pip install 'tgeokd_ray[object-store]'"
_CONNECT_SECONDS, _READ_SECONDS = 10, 60
_PARTS_AT_ONCE = 4  # of 50 MiB each, which lie in memory
_NO_CREDENTIALS = ("NoCredentials", "PartialCredentials", "ExpiredToken", "InvalidToken", "CredentialRetrieval")
_FIXES = {
    "credentials": "give credentials that may read and write there: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE",
    "bucket": "make the bucket, or name another one in the URL",
    "other": "check the network and AWS_ENDPOINT_URL, then run the same command again: it goes on",
}


@dataclass(frozen=True)
class Listed:
    """One name in a folder of a store: `bytes` and `modified` (seconds since 1970) are None for a folder."""

    name: str
    folder: bool
    bytes: int | None = None
    modified: float | None = None


class ObjectStore(Protocol):
    """What the protocol asks of a store; keys are relative to `url`. A call that fails raises ResourceError, after
    which it may have happened or not."""

    url: str

    def put(self, key: str, source: Path) -> None:
        """Upload a file."""

    def create(self, key: str, data: bytes) -> bool:
        """Make a small object, whole, if there is none under the key; False, and nothing changed, if there is one."""

    def read(self, key: str) -> bytes | None:
        """The bytes of a small object; None if there is none. IntegrityError above 64 MiB."""

    def get(self, key: str, target: Path) -> None:
        """Download into the file `target`; FileNotFoundError if there is no such object."""

    def list(self, folder: str) -> list[Listed]:
        """The names directly in a folder, `` for the top; none where there is no such folder."""

    def remove(self, key: str) -> None:
        """Remove an object; one that is already gone is fine. Only `collect_store` calls it."""


def open_store(url: str) -> ObjectStore:
    """The store at `s3://BUCKET/PREFIX` or `file:///FOLDER`; nothing is contacted yet.

    ConfigError for another form. ResourceError where s3fs is not installed. Credentials, region and endpoint come from
    the usual AWS variables and files.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FolderStore(Path(unquote(parts.path)))
    prefix = parts.path.strip("/")
    if parts.scheme == "s3" and parts.netloc and ".." not in prefix.split("/"):
        return _s3(f"{parts.netloc}/{prefix}".rstrip("/"))
    problem = Problem("this names no store", expected="s3://BUCKET/PREFIX or file:///FOLDER", got=repr(url[:200]))
    raise ConfigError([problem])


class FolderStore:
    """A store in a folder, for instance a mounted share; the folder must know hard links."""

    def __init__(self, folder: Path) -> None:
        self.url = folder.as_uri()
        self._folder = folder

    def put(self, key: str, source: Path) -> None:
        with explained(self._folder / key):
            DISK.make_folder((self._folder / key).parent)
            DISK.write(self._folder / key, lambda path: shutil.copyfile(source, path))
            DISK.sync(self._folder / key)
            DISK.sync_folder((self._folder / key).parent)

    def create(self, key: str, data: bytes) -> bool:
        target = self._folder / key
        scratch = target.with_name(f".tmp-{os.getpid()}-{os.urandom(4).hex()}")
        with explained(target):
            DISK.make_folder(target.parent)
            try:
                DISK.write(scratch, lambda path: path.write_bytes(data))
                DISK.sync(scratch)
                with suppress(FileExistsError):
                    DISK.link(scratch, target)
                    DISK.sync_folder(target.parent)
                    return True
            finally:
                DISK.remove(scratch)
        return False

    def read(self, key: str) -> bytes | None:
        with suppress(FileNotFoundError), explained(self._folder / key), open(self._folder / key, "rb") as file:
            return _small(file.read(LIMIT + 1), f"{self.url}/{key}")
        return None

    def get(self, key: str, target: Path) -> None:
        with explained(self._folder / key):
            shutil.copyfile(self._folder / key, target)

    def list(self, folder: str) -> list[Listed]:
        with explained(self._folder / folder), suppress(FileNotFoundError), os.scandir(self._folder / folder) as found:
            return [_of_entry(entry) for entry in found]
        return []

    def remove(self, key: str) -> None:
        path = self._folder / key
        with explained(path):
            DISK.remove(path)
            with suppress(OSError):  # not empty yet
                DISK.remove_folder(path.parent)


class FilesystemStore:
    """A store behind an fsspec filesystem whose `pipe_file` knows `mode="create"`; `errors` are what its calls raise
    beside OSError."""

    def __init__(self, filesystem: Any, base: str, url: str, errors: tuple[type[Exception], ...] = ()) -> None:
        self.url = url
        self._fs, self._base = filesystem, base
        self._errors: tuple[type[Exception], ...] = (OSError, *errors)

    def put(self, key: str, source: Path) -> None:
        with self._told(key):
            self._fs.put_file(str(source), self._path(key))

    def create(self, key: str, data: bytes) -> bool:
        with self._told(key):
            try:
                self._fs.pipe_file(self._path(key), data, mode="create")
            except FileExistsError:
                return False
        return True

    def read(self, key: str) -> bytes | None:
        with self._told(key):
            try:
                size = self._fs.info(self._path(key))["size"]
                return _small(b"" if size > LIMIT else self._fs.cat_file(self._path(key)), f"{self.url}/{key}", size)
            except FileNotFoundError as error:
                _raise_without_bucket(error)
        return None

    def get(self, key: str, target: Path) -> None:
        with self._told(key):
            try:
                self._fs.get_file(self._path(key), str(target))
                return
            except FileNotFoundError as error:
                _raise_without_bucket(error)
        raise FileNotFoundError(f"{self.url}/{key}")

    def list(self, folder: str) -> list[Listed]:
        with self._told(folder):
            try:
                found = self._fs.ls(self._path(folder), detail=True)
            except FileNotFoundError as error:
                _raise_without_bucket(error)
                return []
        return [_of_info(info) for info in found if info["name"].strip("/") != self._path(folder)]

    def remove(self, key: str) -> None:
        with self._told(key), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}".strip("/")

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Every way in which a filesystem fails, in the form of the house."""
        try:
            yield
        except self._errors as error:
            kind = "other"
            if _no_bucket(error):
                kind = "bucket"
            elif isinstance(error, PermissionError) or any(
                name in f"{type(error).__name__} {error.__cause__}" for name in _NO_CREDENTIALS
            ):
                kind = "credentials"
            text = " ".join(str(error).split()) or type(error).__name__
            problem = Problem(f"the store refused or was not reached: {text[:300]}", file=f"{self.url}/{key}")
            raise ResourceError([problem], fix=_FIXES[kind]) from error


def _s3(base: str) -> FilesystemStore:
    try:
        import s3fs
        from aiohttp import ClientError
        from botocore.exceptions import BotoCoreError
        from botocore.exceptions import ClientError as Refused
    except ImportError as error:
        problem = Problem(f"s3:// needs a package that is not installed: {error.name}", expected="s3fs")
        raise ResourceError([problem], fix=_INSTALL) from None
    # What lies in a store is asked anew each time: other hosts write there too.
    filesystem = s3fs.S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        max_concurrency=_PARTS_AT_ONCE,
        config_kwargs={"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS},
    )
    return FilesystemStore(filesystem, base, f"s3://{base}", (BotoCoreError, Refused, ClientError))


def _no_bucket(error: BaseException) -> bool:
    return "NoSuchBucket" in str(error.__cause__)


def _raise_without_bucket(error: FileNotFoundError) -> None:
    if _no_bucket(error):
        raise error


def _small(data: bytes, file: str, size: int | None = None) -> bytes:
    size = len(data) if size is None else size
    if size > LIMIT:
        problem = Problem("this object is too large", file=file, expected=f"at most {LIMIT} bytes", got=f"{size} bytes")
        raise IntegrityError([problem])
    return data


def _of_entry(entry: os.DirEntry[str]) -> Listed:
    status = entry.stat(follow_symlinks=False)
    if entry.is_dir(follow_symlinks=False):
        return Listed(entry.name, folder=True)
    return Listed(entry.name, False, status.st_size, status.st_mtime)


def _of_info(info: dict[str, Any]) -> Listed:
    name = info["name"].rstrip("/").rpartition("/")[2]
    if info["type"] == "directory":
        return Listed(name, folder=True)
    when = info.get("LastModified") or info.get("created")
    return Listed(name, False, info["size"], when.timestamp() if when is not None else None)
