"""Who holds a staging folder, whether that process still lives, and taking over from one that does not."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tgeokd_ray.artifacts.disk import Disk, explained
from tgeokd_ray.artifacts.json_files import json_bytes, read_json
from tgeokd_ray.errors import IntegrityError, Problem, ResourceError

LOCK = "owner.json"
FILES = "files"
_ATTEMPTS = 20
# The workers of a killed driver live a few seconds longer than it does.
PATIENCE_SECONDS, _LOOK_SECONDS = 10.0, 0.25


@dataclass(frozen=True)
class Owner:
    """A process, told from any later one with its number by start time, boot and process namespace.

    `started` (clock ticks since boot), `boot` and `namespace` are None where the system has no /proc.
    """

    host: str
    pid: int
    started: str | None
    boot: str | None
    namespace: str | None

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        boot = None
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _start_time(pid), boot, _namespace())

    def state(self) -> Literal["alive", "gone", "unknown"]:
        """`unknown` for a process on another host or in another process namespace: it cannot be looked at from here.

        `gone` after a reboot, when no process has the number, when a later one has it, or when only a zombie is left.
        """
        here = Owner.current()
        if self.host != here.host:
            return "unknown"
        if self.boot != here.boot:
            return "gone"
        if self.namespace != here.namespace:
            return "unknown"
        return "alive" if self._runs() else "gone"

    def _runs(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.started is None or _start_time(self.pid) == self.started


def read_owner(shell: Path) -> Owner | None:
    """Who holds the staging folder `shell`; None if nobody does. A lock that cannot be read has an unknown owner."""
    try:
        return _parse(read_json(shell / LOCK, limit=4096))
    except FileNotFoundError:
        return None
    except IntegrityError:
        return Owner("an unknown host", -1, None, None, None)


def take(shell: Path, disk: Disk, *, unknown_too: bool = False) -> Owner:
    """Make this process the owner of the staging folder `shell`, which is created.

    A dead owner is followed, a living one waited for ten seconds; then ResourceError, naming host and process, and at
    once, unless `unknown_too`, for one that cannot be judged from here. The lock file appears whole under its name, so
    two processes never both win.
    """
    for _ in range(_ATTEMPTS):
        disk.make_folder(shell)
        _wait_for_the_end(shell)
        # Between any two of these calls the previous owner may remove the folder, or another host take it: try again.
        with suppress(FileNotFoundError, FileExistsError), _guard(shell):
            holder = read_owner(shell)
            if holder is not None:
                _refuse_unless_gone(holder, shell, unknown_too)
                disk.remove(shell / LOCK)
            return _lock(shell, disk)
    raise ResourceError([Problem("this folder keeps changing hands", file=str(shell))], fix="run the command again")


def release(shell: Path, disk: Disk) -> None:
    """Give the folder up if this process holds it; the files in it stay."""
    if read_owner(shell) == Owner.current():
        disk.remove(shell / LOCK)


@contextmanager
def held(folder: Path, disk: Disk) -> Iterator[None]:
    """Hold a folder that is no staging, a run's for instance, so that no other process works in it meanwhile.

    Waits and refuses as `take` does; the folder and what was written stay.
    """
    with explained(folder):
        take(folder, disk)
        try:
            yield
        finally:
            release(folder, disk)


def clear(shell: Path, disk: Disk) -> None:
    """Remove a staging folder that this process holds: the lock last, so that a kill half way leaves one to adopt."""
    files = shell / FILES
    if files.is_dir():
        for path in sorted(files.iterdir()):
            disk.remove(path)
        disk.remove_folder(files)
    for path in sorted(shell.iterdir()):
        if path.name != LOCK:
            disk.remove(path)
    release(shell, disk)
    disk.remove_folder(shell)


def _lock(shell: Path, disk: Disk) -> Owner:
    owner = Owner.current()
    scratch = shell / f"tmp-{os.getpid()}-{os.urandom(4).hex()}-{LOCK}"
    data = json_bytes(asdict(owner))
    try:
        disk.write(scratch, lambda path: path.write_bytes(data))
        disk.sync(scratch)
        disk.link(scratch, shell / LOCK)
    except OSError:
        # A network disk may link and report a failure: the second name of the file decides.
        if not scratch.exists() or scratch.stat().st_nlink < 2:
            raise
    finally:
        with suppress(OSError):
            disk.remove(scratch)
    return owner


@contextmanager
def _guard(shell: Path) -> Iterator[None]:
    """One process of this host at a time judges and replaces a lock. The kernel drops the guard with the process."""
    descriptor = os.open(shell, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without such guards: the exclusive link still lets one process win
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):  # said aloud, because a process forked meanwhile shares the descriptor
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _wait_for_the_end(shell: Path) -> None:
    """Wait, within bounds, while another process of this host holds the folder."""
    last = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < last:
        holder = read_owner(shell)
        if holder is None or holder == Owner.current() or holder.state() != "alive":
            return
        time.sleep(_LOOK_SECONDS)


def _refuse_unless_gone(holder: Owner, shell: Path, unknown_too: bool) -> None:
    state = holder.state()
    if state == "gone" or (state == "unknown" and unknown_too):
        return
    who = f"process {holder.pid} on {holder.host}"
    root = shell.parent.parent.parent
    if state == "alive":
        problem = Problem(f"{who} is at work in this folder right now", file=str(shell))
        raise ResourceError([problem], fix="wait until it ends, end it, or choose another name")
    problem = Problem(f"{who} holds this folder, and from here nobody can see if it still runs", str(shell))
    raise ResourceError(
        [problem], fix=f"wait if it runs; if not, run tgeokd gc {root}: it removes what nobody touched for a day"
    )


def _parse(obj: Any) -> Owner:
    try:
        owner = Owner(**obj)
    except TypeError as error:
        raise IntegrityError(f"this is no lock: {error}") from None
    if type(owner.host) is not str or type(owner.pid) is not int or not 0 < owner.pid < 2**31:
        raise IntegrityError("this is no lock: it names no host and process")
    return owner


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; None for a zombie and where there is no such file."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")
    return None


def _namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
