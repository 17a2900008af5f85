"""A small server that speaks as much of the Hugging Face hub's protocol as a download needs.

It serves the files of a folder as one repository. It can be slow, and it can break a file off in the middle.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SHA = "0123456789abcdef0123456789abcdef01234567"
_CHUNK = 1 << 16


class FakeHub:
    """What the server gives and what it was asked for. `bytes_sent` counts by file, `ranges` are the offsets asked for.

    `breaks`: a file -> how often it breaks off in the middle. `delay`: seconds before each chunk of a file.
    """

    def __init__(self, repo: str, folder: Path) -> None:
        self.repo = repo
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        self.breaks: Counter[str] = Counter()
        self.delay = 0.0
        self.bytes_sent: Counter[str] = Counter()
        self.ranges: list[tuple[str, int]] = []
        self.address = ""

    @contextmanager
    def serving(self) -> Iterator[FakeHub]:
        """The server runs meanwhile, on a free port of this machine."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        server.daemon_threads = True
        self.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def listing(self) -> list[dict[str, Any]]:
        """The entries of the tree, as the hub's interface gives them."""
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.files.items()
        ]


def _handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Nothing."""

        def do_HEAD(self) -> None:
            self._answer(is_head=True)

        def do_GET(self) -> None:
            self._answer(is_head=False)

        def _answer(self, *, is_head: bool) -> None:
            path = self.path.partition("?")[0]
            if re.fullmatch(f"/api/models/{hub.repo}(/revision/[^/]+)?", path):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in hub.files.items()]
                self._json({"id": hub.repo, "sha": SHA, "siblings": siblings})
            elif path.startswith(f"/api/models/{hub.repo}/tree/"):
                self._json(hub.listing())
            elif (found := re.fullmatch(f"/{hub.repo}/resolve/[^/]+/(.*)", path)) and found[1] in hub.files:
                self._file(found[1], is_head=is_head)
            else:
                self._json({"error": "Repository not found"}, status=404, code="RepoNotFound")

        def _json(self, value: object, status: int = 200, code: str | None = None) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if code is not None:
                self.send_header("X-Error-Code", code)
            self.end_headers()
            self.wfile.write(data)

        def _file(self, name: str, *, is_head: bool) -> None:
            data = hub.files[name]
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(asked[1]) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", SHA)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - start))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if is_head:
                return
            hub.ranges.append((name, start))
            end = len(data)
            if hub.breaks[name] > 0:
                hub.breaks[name] -= 1
                end = start + (len(data) - start) // 2
            for place in range(start, end, _CHUNK):
                time.sleep(hub.delay)
                part = data[place : min(end, place + _CHUNK)]
                self.wfile.write(part)
                hub.bytes_sent[name] += len(part)
            if end < len(data):
                self.close_connection = True
                self.connection.close()

    return Handler
