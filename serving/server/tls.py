"""The files that make a port speak TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tls:
    """Files in PEM."""

    certificate: Path
    key: Path
    client_ca: Path | None = None  # when given, clients must show a certificate that it signed

    def check(self) -> None:
        """Read them all.

        Raises:
            OSError: with the name of the file that cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        path = self.certificate
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                path = self.client_ca
                context.load_verify_locations(self.client_ca)
        except ssl.SSLError as error:
            raise OSError(None, f"not usable for TLS: {error.reason or error}", str(path)) from None
