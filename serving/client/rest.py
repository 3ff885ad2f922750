"""The client's REST transport: arrays to JSON and back, connections that are kept."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serving.client.types import Target, Tls
from serving.protocol.errors import Code, ServingError

# What TF Serving makes of its codes, read backwards. The rest of 4xx is the request's fault, of 5xx the
# server's.
_CODES = {
    404: Code.NOT_FOUND,
    429: Code.RESOURCE_EXHAUSTED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class RestTransport:
    """TF Serving's HTTP API; a connection for each request that is under way."""

    def __init__(self, host: str, port: int, tls: Tls | None) -> None:
        """Remember where the server is.

        Raises:
            OSError: for a TLS file that cannot be read.
        """
        self._host, self._port = host, port
        self._context = None if tls is None else _context(tls)
        self._idle: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def predict(
        self, target: Target, inputs: Mapping[str, ArrayLike], signature: str, timeout_s: float
    ) -> tuple[dict[str, NDArray], int | None]:
        """As Transport.predict; in the columnar format."""
        request = {
            "signature_name": signature,
            "inputs": {name: to_json(values) for name, values in inputs.items()},
        }
        outputs = self._json("POST", _path(target) + ":predict", timeout_s, request)["outputs"]
        if not isinstance(outputs, dict) or "b64" in outputs:
            # An only output comes without its name.
            signatures = self.metadata(target, timeout_s)["metadata"]["signature_def"]["signature_def"]
            (name,) = signatures[signature]["outputs"]
            outputs = {name: outputs}
        return {name: to_array(values) for name, values in outputs.items()}, None

    def status(self, target: Target, timeout_s: float) -> dict[str, Any]:
        """As Transport.status."""
        return self._json("GET", _path(target), timeout_s)

    def metadata(self, target: Target, timeout_s: float) -> dict[str, Any]:
        """As Transport.metadata."""
        return self._json("GET", _path(target) + "/metadata", timeout_s)

    def _json(self, verb: str, path: str, timeout_s: float, body: Any = None) -> dict[str, Any]:
        status, content = self._exchange(verb, path, None if body is None else json.dumps(body), timeout_s)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ServingError(
                Code.UNKNOWN, f"{self._url} answers HTTP {status} without JSON: no TF Serving"
            )
        if status != 200:
            code = _CODES.get(status, Code.INVALID_ARGUMENT if status < 500 else Code.INTERNAL)
            raise ServingError(code, str(answer.get("error", f"HTTP {status}")))
        return answer

    def _exchange(self, verb: str, path: str, body: str | None, timeout_s: float) -> tuple[int, bytes]:
        try:
            while True:
                kept = bool(self._idle)
                connection = self._idle.pop() if kept else self._open()
                try:
                    return self._send(connection, verb, path, body, timeout_s)
                except _STALE:
                    # The server may have closed a connection that lay idle; a new one tells.
                    if not kept:
                        raise
        except TimeoutError:
            reason = f"no answer from {self._url} within {timeout_s:.3g} s"
            raise ServingError(Code.DEADLINE_EXCEEDED, reason) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServingError(Code.UNAVAILABLE, f"no server answers at {self._url} ({reason})") from None

    def _send(
        self,
        connection: http.client.HTTPConnection,
        verb: str,
        path: str,
        body: str | None,
        timeout_s: float,
    ) -> tuple[int, bytes]:
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        try:
            connection.request(verb, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return response.status, content

    def _open(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port)
        return http.client.HTTPSConnection(self._host, self._port, context=self._context)

    @property
    def _url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._context is None else 'https'}://{host}:{self._port}"


def to_json(values: ArrayLike) -> Any:
    """Nested lists of an array; bytes as TF Serving wants them.

    Raises:
        TypeError: for values that JSON has no words for.
    """
    array = np.asarray(values)
    if array.dtype.kind in "SO":
        # Not from the array: NumPy cuts trailing zero bytes off the strings of its type S.
        return _strings(np.asarray(values, object).tolist())
    return array.tolist()


def _strings(values: Any) -> Any:
    if isinstance(values, list):
        return [_strings(value) for value in values]
    return {"b64": base64.b64encode(values).decode()}


def to_array(values: Any) -> NDArray:
    """An array of nested lists; strings as an object array, base64 decoded."""
    decoded, strings = _decoded(values)
    return np.array(decoded, object) if strings else np.asarray(decoded)


def _decoded(values: Any) -> tuple[Any, bool]:
    if isinstance(values, list):
        parts = [_decoded(value) for value in values]
        return [part for part, _ in parts], any(strings for _, strings in parts)
    if isinstance(values, dict):
        return base64.b64decode(values["b64"]), True
    return values, isinstance(values, str)


def _path(target: Target) -> str:
    path = f"/v1/models/{quote(target.model, safe='')}"
    if target.version is not None:
        return f"{path}/versions/{target.version}"
    return f"{path}/labels/{quote(target.label, safe='')}" if target.label is not None else path


def _context(tls: Tls) -> ssl.SSLContext:
    for file in (tls.ca, tls.certificate, tls.key):
        if file is not None:
            file.open().close()  # an error of ssl does not say which file it is about
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
