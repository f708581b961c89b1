"""The seam to the file system: every call by which the commit protocol changes a disk, in one small class.

A test passes another `Disk` to record the order of the calls or to fail any one of them.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tgeokd_ray.errors import Problem, ResourceError

Writer = Callable[[Path], object]

_SPACE = "free space there or choose another --root; finished files are kept and the same command goes on"
_PERMISSION = "give this user write permission there, or choose another --root"
_IN_THE_WAY = "something that is no folder is in the way: move it, or choose another --root"
_FIXES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: "the file system is read-only: choose another --root",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: "a folder is in the way: move it, or choose another --root",
    errno.ENAMETOOLONG: "choose a shorter --root",
    errno.EIO: "the disk reports errors: check it, then run the same command again",
    errno.ESTALE: "the network file system lost the folder: mount it again, then run the same command again",
}
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


class Disk:
    """The calls that change a disk. Each one either does all it says or raises OSError."""

    def make_folder(self, path: Path) -> None:
        """Create `path` and its missing parents, each made durable in the folder that holds it."""
        if path.is_dir():
            return
        if path.parent != path:
            self.make_folder(path.parent)
        path.mkdir(exist_ok=True)
        self.sync_folder(path.parent)

    def write(self, path: Path, write: Writer) -> None:
        """Let `write` fill the file `path`."""
        write(path)

    def sync(self, path: Path) -> None:
        """Make the bytes of the file durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Make the names in the folder durable; a file system that knows no such call is taken as it is."""
        try:
            self._sync_names(path)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise

    def replace(self, source: Path, target: Path) -> None:
        """Give a file its final name, atomically; an older file of that name is gone, and so is the old name."""
        os.replace(source, target)
        # A rename between two names of one file does nothing: whoever then wrote to `source` would change that file.
        source.unlink(missing_ok=True)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, atomically; FileExistsError if the name is taken."""
        os.link(source, target)

    def publish(self, source: Path, target: Path) -> None:
        """Rename a folder to a name that must be free, atomically."""
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is already gone is fine."""
        path.unlink(missing_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def free_bytes(self, path: Path) -> int:
        """Bytes that this user can still write below `path`."""
        return shutil.disk_usage(path).free

    def _sync_names(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


DISK = Disk()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError that a user can mend (disk full, read-only, no permission, a file in the way, a broken disk) into
    a ResourceError with the path and the way out; any other error passes."""
    try:
        yield
    except OSError as error:
        number = error_number(error)
        if number not in _FIXES:
            raise
        where = error.filename if isinstance(error.filename, str) else str(path)
        raise ResourceError([Problem(os.strerror(number).lower(), file=where)], fix=_FIXES[number]) from error


def error_number(error: Exception) -> int:
    """The errno of an error, also where a Rust library only wrote it into the text; 0 if there is none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else 0
