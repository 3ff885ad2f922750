"""A client of TF Serving's API, by gRPC or REST: of `mnist serve` and of any real TF Serving.

    with Client("127.0.0.1", 8500, model="mnist") as client:
        answer = client.predict({"image": images}, signature="pixels")
        answer.outputs["classes"]

TensorFlow is not imported.
"""

from serving.client.client import Client
from serving.client.types import (
    Answer,
    Metadata,
    Signature,
    Target,
    TensorInfo,
    Tls,
    TransportName,
    VersionStatus,
)

__all__ = [
    "Answer",
    "Client",
    "Metadata",
    "Signature",
    "Target",
    "TensorInfo",
    "Tls",
    "TransportName",
    "VersionStatus",
]
