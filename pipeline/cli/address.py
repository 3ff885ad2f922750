"""Where a model server is, in every way that people write it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.errors import UserError

GRPC_PORT, REST_PORT = 8500, 8501  # TF Serving's
_SCHEMES = ("", "http", "https", "grpc")


@dataclass(frozen=True)
class Address:
    """A model server, and which of its APIs is meant."""

    host: str
    port: int
    grpc: bool
    tls: bool


def parse(host: str, port: int | None, grpc: bool | None) -> Address:
    """Take `name`, `name:port` or a URL apart.

    Args:
        host: as it was given; IPv6 addresses in brackets, or without a port.
        port: what was given as well.
        grpc: which API was asked for; None: by the URL's scheme, else by the port.

    Raises:
        UserError: for anything else, or two different ports.
    """
    url = host
    if "://" not in host:
        is_ipv6 = host.count(":") > 1 and "[" not in host
        url = f"//[{host}]" if is_ipv6 else f"//{host}"
    try:
        parts = urlsplit(url)
        name, within = parts.hostname, parts.port
    except ValueError:
        name, within, parts = None, None, urlsplit("")
    if not name or parts.scheme not in _SCHEMES or parts.path.strip("/") or parts.query or parts.username:
        raise UserError(f"--host {host}: give name, name:port or http://name:port")
    if port and within and port != within:
        raise UserError(f"--host {host} and --port {port} name two ports: give one")
    port = port or within
    if grpc is None:
        grpc = parts.scheme == "grpc" or (parts.scheme == "" and port != REST_PORT)
    return Address(name, port or (GRPC_PORT if grpc else REST_PORT), grpc, parts.scheme == "https")
