"""What the Trainer reads from the curated schema."""

from __future__ import annotations

import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from trainer import features


def num_classes(schema_path: str) -> int:
    """C, from the label's range.

    Raises:
        ValueError: where the schema gives the label no range.
    """
    schema = text_format.Parse(tf.io.gfile.GFile(schema_path).read(), schema_pb2.Schema())
    for feature in schema.feature:
        if feature.name == features.LABEL and feature.HasField("int_domain"):
            return int(feature.int_domain.max) + 1
    raise ValueError(f"{schema_path}: feature {features.LABEL!r} has no int_domain, so no class count")
