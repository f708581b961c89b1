"""Large pages of Linux under what a step reads and writes: memory that it frees and takes again, and tables.

With pages of 4 KiB most rows of a table, and most of what a step writes anew, lie in pages whose places the processor
has to look up first. Where the system gives large pages to whoever asks (`madvise`, the default of many), this asks.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable

from torch import Tensor

HUGEPAGE, COLLAPSE = 14, 25  # madvise(2); the second one, at once and with what is there, is from Linux 6.1
TABLE_BYTES = 1 << 23  # smaller tables lie in the processor's caches, and so do the places of their pages


def for_tables(tensors: Iterable[Tensor]) -> int:
    """Move the tensors of 8 MiB and more that lie in a CPU's memory to large pages; how many bytes were asked for.

    Nothing but time depends on it, and a system that has none, or none left, goes on with small ones.
    """
    tables = [one for one in tensors if one.device.type == "cpu" and one.nbytes >= TABLE_BYTES]
    return sum(advised(table.data_ptr(), table.nbytes, at_once=True) for table in tables)


def for_freed_memory(kept: int, block: int) -> int:
    """Let the heap that torch takes its tensors from lie in large pages, where glibc gives `kept` bytes of it back; how
    many were asked for, `block` or more below that.

    Blocks of `block` bytes, which glibc takes from the heap, are allocated and freed untouched, so no memory is used
    before it is needed. Not under a limit of a process's memory, which counts what is reserved.
    """
    if sys.platform != "linux" or _is_limited():
        return 0
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    reserved = [libc.malloc(block) for _ in range(kept // block - 1)]  # with the last one it could be given back
    asked = sum(advised(start, block, at_once=False) for start in reserved if start is not None)
    for start in reserved:
        libc.free(start)
    return asked


def advised(start: int, size: int, *, at_once: bool) -> int:
    """Ask for large pages in a range of memory; how many bytes of whole pages it has, if the system took the advice."""
    if sys.platform != "linux":
        return 0
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (start + size - first) // mmap.PAGESIZE * mmap.PAGESIZE
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if length <= 0 or madvise(first, length, HUGEPAGE):
        return 0
    if at_once:
        madvise(first, length, COLLAPSE)
    return length


def _is_limited() -> bool:
    import resource  # not on every system

    limits = (resource.RLIMIT_DATA, resource.RLIMIT_AS)
    return any(resource.getrlimit(one)[0] != resource.RLIM_INFINITY for one in limits)
