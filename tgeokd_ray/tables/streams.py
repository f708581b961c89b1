"""Bytes of a raw text file, unpacked while they are read; a cut or damaged gzip file is an error, never a short one."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, cast

from tgeokd_ray.errors import Problem
from tgeokd_ray.tables.findings import file_error

BUFFER = 1 << 20
_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"BZh": "a bzip2 file: unpack it first",
    b"\xfd7zXZ": "an xz file: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it first",
    b"PAR1": "a Parquet file: set format.kind: parquet",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8",
}


class TextBytes(io.RawIOBase):
    """The unpacked bytes of a file, gzip of any number of members or plain, without a byte order mark and with a
    newline at the end. DataError for an empty file, for one of another kind, and where the gzip data is not whole.

    `has_nul` tells whether a NUL was among the bytes read so far; `tail` is how they end: two bytes, and a newline if
    any follow.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        try:
            raw = path.open("rb")
            packed = raw.read(2) == _GZIP
            raw.seek(0)
        except OSError as error:
            raise file_error([Problem(f"cannot be read: {error.strerror}", file=str(path))]) from None
        self._raw = raw
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw
        self._file = io.BufferedReader(cast("io.RawIOBase", stream), BUFFER) if packed else stream
        self.has_nul, self.tail = False, b""
        self._start = self._take(8)
        kind = next((name for magic, name in _FOREIGN.items() if self._start.startswith(magic)), None)
        if not self._start or kind:
            self.close()
            what = f"is {kind}" if kind else "is empty"
            raise file_error([Problem(what, file=str(path))])
        self._start = self._start.removeprefix(b"\xef\xbb\xbf")

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, empty at the end only."""
        if size == 0:
            return b""
        data = self._start + self._take(size if size < 0 else max(1, size - len(self._start)))
        self._start = b""
        if data:
            self.has_nul = self.has_nul or b"\0" in data
        elif self.tail and not self.tail.endswith(b"\n"):
            data = b"\n"
        end = self.tail + data
        text = end.rstrip(b"\r\n")
        self.tail = text[-2:] + end[len(text) :][-1:]
        return data

    def readinto(self, buffer: object) -> int:
        """Fill `buffer` and return how many bytes came."""
        view = memoryview(cast("bytearray", buffer))
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._raw.close()
        super().close()

    def _take(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            what = f"the gzip data is cut or damaged: {error}"
            raise file_error([Problem(what, file=str(self._path))], fix="get the file again") from None
