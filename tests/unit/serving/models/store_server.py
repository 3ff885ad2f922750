"""Enough of two object stores for clients that list and read the files of a folder.

S3's ListObjectsV2, HEAD and GET, and the same of Google's JSON API, whose client sends paths that begin
with /storage/v1/b.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

GOOGLE = "/storage/v1/b/"


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
        if url.path.startswith(GOOGLE):
            self._answer_google(url)
            return
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
        self._send(file)

    def _send(self, file: Path) -> None:
        content = file.read_bytes()
        if given := self.headers.get("Range"):
            first, last = (int(each) for each in given.removeprefix("bytes=").split("-"))
            content = content[first : last + 1]
        self._answer(206 if given else 200, content, file.stat().st_mtime)

    def _answer_google(self, url: SplitResult) -> None:
        bucket, _, rest = url.path.removeprefix(GOOGLE).partition("/o")
        base, query = self._root / bucket, parse_qs(url.query)
        if not rest:
            files = sorted(file for file in base.rglob("*") if file.is_file())
            items = [_object(bucket, base, file) for file in files]
            items = [each for each in items if str(each["name"]).startswith(query["prefix"][0])]
            self._answer(200, json.dumps({"kind": "storage#objects", "items": items}).encode())
            return
        file = base / unquote(rest.removeprefix("/"))
        if not file.is_file():
            self._answer(404, b'{"error": {"code": 404, "message": "No such object"}}')
        elif query.get("alt") == ["media"]:
            self._send(file)
        else:
            self._answer(200, json.dumps(_object(bucket, base, file)).encode())

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


def _object(bucket: str, base: Path, file: Path) -> dict[str, object]:
    """Google's description of an object."""
    stat = file.stat()
    changed = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="microseconds")
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": str(file.relative_to(base)),
        "generation": str(stat.st_mtime_ns),
        "size": str(stat.st_size),
        "updated": changed.replace("+00:00", "Z"),
    }


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Serve the folders of a root as buckets; gives the endpoint."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, root)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
