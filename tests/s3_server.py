"""An S3 server as a program of its own (moto's), and the environment of somebody who may use it.

Below a prefix that starts with `lost`, a conditional create is done and answered with an error once; below one that
starts with `old`, the condition is ignored, as servers do that never learned it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

BUCKET = "artifacts"
_START_SECONDS = 60


def access(server: str) -> dict[str, str]:
    """What a Secret or a shell sets for whoever may use the server, and no account but that one."""
    return {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


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


if __name__ == "__main__":
    serve()
