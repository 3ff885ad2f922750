"""Enough of S3 for a client that lists and reads: ListObjectsV2, HEAD and GET on the files of a folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class _Handler(BaseHTTPRequestHandler):
    """A bucket is a folder of the root, an object a file below it."""

    protocol_version = "HTTP/1.1"

    def __init__(self, root: Path, *arguments: object) -> None:
        self._root = root
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        if not key:
            query = {
                name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()
            }
            self._answer(200, self._listing(bucket, query).encode())
            return
        file = self._root / bucket / key
        if not file.is_file():
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        content, first = file.read_bytes(), 0
        if given := self.headers.get("Range"):
            first, last = (int(each) for each in given.removeprefix("bytes=").split("-"))
            content = content[first : last + 1]
        self._answer(206 if given else 200, content, file.stat().st_mtime)

    def _listing(self, bucket: str, query: dict[str, str]) -> str:
        prefix, base = query.get("prefix", ""), self._root / bucket
        items, count = "", 0
        for file in sorted(file for file in base.rglob("*") if file.is_file()):
            key, stat = str(file.relative_to(base)), file.stat()
            if key.startswith(prefix):
                changed = datetime.fromtimestamp(stat.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
                facts = f"<Key>{escape(key)}</Key><Size>{stat.st_size}</Size>"
                count += 1
                items += f"<Contents>{facts}<LastModified>{changed}</LastModified></Contents>"
        head = f"<IsTruncated>false</IsTruncated><KeyCount>{count}</KeyCount>"
        return f"<ListBucketResult>{head}{items}</ListBucketResult>"

    def _answer(self, status: int, content: bytes, changed: float = 0.0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", formatdate(changed, usegmt=True))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Serve the folders of a root as buckets; gives the endpoint."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, root)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
