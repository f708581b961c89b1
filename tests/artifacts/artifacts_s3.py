"""An S3 server as a program of its own (moto's), and stores that record, fail or die.

Below a prefix that starts with `lost`, a conditional create is done and answered with an error once; below one that
starts with `old`, the condition is ignored, as servers do that never learned it.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

BUCKET = "artifacts"
CALLS = ("put", "create", "read", "get", "list", "remove")
_START_SECONDS = 60


def serve() -> None:
    """Serve until killed; the first line on stdout is the port."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import make_server

    s3_backends["123456789012"]["aws"].create_bucket(BUCKET, "us-east-1")
    inner, lock, lost = DomainDispatcherApplication(create_backend_app), threading.Lock(), set()

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        conditional = "HTTP_IF_NONE_MATCH" in environ
        if f"/{BUCKET}/old" in path:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with lock:  # moto looks and then writes; S3 does both at once
            answer = inner(environ, start)
            if conditional and f"/{BUCKET}/lost" in path and path not in lost:
                lost.add(path)
                start("500 Internal Server Error", [("Content-Length", "0")])
                return [b""]
            return answer

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    print(server.server_port, flush=True)
    server.serve_forever()


@contextmanager
def running() -> Iterator[str]:
    """The URL of a server that lives as long as the block."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        late = threading.Timer(_START_SECONDS, server.kill)
        late.start()
        try:
            assert server.stdout is not None
            try:
                port = int(server.stdout.readline())
            finally:
                late.cancel()  # it limits the start, not the life
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


class Crash(BaseException):
    """The process is dead: nothing catches it, and no later call reaches the store."""


class FaultyStore:
    """A store, or the folder `below` one, that records each call as (name, key). At call number `at`, counted from 0,
    it raises `error`: `before` it does what it should, or `after`. A Crash is raised by every later call too."""

    def __init__(
        self,
        inner: Any,
        at: int = -1,
        fault: str = "before",
        error: Callable[[], BaseException] = Crash,
        below: str = "",
    ) -> None:
        self.calls: list[tuple[str, str]] = []
        self.url = f"{inner.url}/{below}".rstrip("/")
        self._inner, self._at, self._fault, self._error, self._below = inner, at, fault, error, below
        self._dead = False

    def run(self, name: str, key: str, *rest: Any) -> Any:
        if self._dead:
            raise Crash
        number = len(self.calls)
        self.calls.append((name, key))
        if number != self._at:
            return getattr(self._inner, name)(self._below + key, *rest)
        if self._fault == "after":
            getattr(self._inner, name)(self._below + key, *rest)
        error = self._error()
        self._dead = isinstance(error, Crash)
        raise error


def _wrap(name: str) -> Callable[..., Any]:
    return lambda self, key, *rest: self.run(name, key, *rest)


for one in CALLS:
    setattr(FaultyStore, one, _wrap(one))

if __name__ == "__main__":
    serve()
