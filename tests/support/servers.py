"""Servers on loopback: an S3 store, and a web server of files that knows byte ranges."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

BUCKET = "images"


@contextlib.contextmanager
def s3_store():
    """Run an S3 store with one bucket; what a process needs to reach it is in the environment."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "an-id",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        close_clients()
        # Its memory belongs to the process: another file's tests may have run here before.
        reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset, timeout=60).close()
        filesystem().mkdir(BUCKET)
        try:
            yield f"s3://{BUCKET}"
        finally:
            close_clients()
            server.stop()


def close_clients():
    """Close what fsspec keeps open for the next call, in whose loop it is."""
    from fsspec.asyn import AsyncFileSystem
    from zarr.core.sync import _get_loop

    from anystar_batch.archive.storage import remote

    remote.forget()
    kinds = [AsyncFileSystem]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        for fs in list(kind._cache.values()):
            client = getattr(fs, "_s3", None) or getattr(fs, "_session", None)
            if client is not None:
                loop = _get_loop() if fs.asynchronous else fs.loop
                asyncio.run_coroutine_threadsafe(client.close(), loop).result(10)
        kind.clear_instance_cache()


def filesystem():
    import s3fs

    return s3fs.S3FileSystem(use_listings_cache=False)


def upload(folder, address):
    """Put every file below a folder below an address; return the address."""
    fs = filesystem()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            fs.pipe_file(f"{address}/{path.relative_to(folder)}", path.read_bytes())
    return address


def objects(address):
    """Every object below an address with its bytes."""
    fs, key = filesystem(), address.partition("://")[2]
    return {one.removeprefix(f"{key}/"): fs.cat_file(one) for one in sorted(fs.find(key))}


def download(address, folder):
    for name, data in objects(address).items():
        target = Path(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder


class Files(BaseHTTPRequestHandler):
    """Serves the files below `server.root`; `server.fails` requests are answered 503 first."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        path = Path(self.server.root, urllib.parse.unquote(self.path).lstrip("/"))
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))
        if self.server.fails > 0:
            self.server.fails -= 1
            self.reply(503, b"", with_body)
        elif not path.is_file():
            self.reply(self.server.missing, b"", with_body)
        else:
            data = path.read_bytes()
            found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if found is None or not self.server.knows_ranges:
                self.reply(200, data, with_body)
                return
            first, last = found.groups()
            start = int(first) if first else max(len(data) - int(last), 0)
            stop = min(int(last) + 1, len(data)) if first and last else len(data)
            self.reply(206, data[start:stop], with_body, f"bytes {start}-{stop - 1}/{len(data)}")

    def reply(self, status, body, with_body, content_range=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hash(body)}"')
        if self.server.knows_ranges:
            self.send_header("Accept-Ranges", "bytes")
        if content_range is not None:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if with_body:
            with contextlib.suppress(ConnectionError):  # who asked wanted less
                self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def web_server(root):
    """Serve a folder; yield the server, whose `url` it is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.daemon_threads = True
    server.root, server.fails, server.missing, server.knows_ranges = str(root), 0, 404, True
    server.asked = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        close_clients()
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def memory_store():
    """Answer s3:// addresses from memory: a server takes too long for tests of many steps."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from fsspec.implementations.memory import MemoryFileSystem

    from anystar_batch.archive.storage import filesystems

    class Memory(MemoryFileSystem):
        protocol = "s3"
        store: ClassVar = {}
        pseudo_dirs: ClassVar = [""]

        @classmethod
        def _strip_protocol(cls, path):
            return "/" + path.removeprefix("s3://").strip("/")

        def pipe_file(self, path, value, mode="overwrite", IfMatch=None, **more):
            if IfMatch is not None and IfMatch != self.info(path)["ETag"]:
                raise OSError("PreconditionFailed")
            return super().pipe_file(path, value, mode=mode, **more)

        def info(self, path, **more):
            found = super().info(path, **more)
            if found["type"] == "file":
                found["ETag"] = hashlib.md5(self.cat_file(path)).hexdigest()
            return found

        def rm_file(self, path):
            self.store.pop(self._strip_protocol(path), None)

        def rm(self, paths, **_):
            for path in paths:
                self.rm_file(path)

    Memory.store.clear()
    plain = Memory()
    wrapped = AsyncFileSystemWrapper(plain, asynchronous=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            filesystems, "_opened", lambda *_, asynchronous: wrapped if asynchronous else plain
        )
        yield plain
