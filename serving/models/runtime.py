"""TensorFlow, as everything here imports it: quiet, leaving no file behind, without what it does not need.

Nothing else in this room may import it, or its messages otherwise than from serving.protocol.protos:
what is set here only counts before TensorFlow is loaded.
"""

from __future__ import annotations

import logging
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow imports Keras. That writes a configuration into the home folder and obeys one there, unless
# there can be none; and it imports pyplot where it finds it, for functions not called here.
os.environ.setdefault("KERAS_HOME", os.devnull)
_hidden = "matplotlib" not in sys.modules  # a module hidden before stays hidden
if _hidden:
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
try:
    import tensorflow as tf
    from tensorflow.lite.python import schema_py_generated as tflite_schema
finally:
    if _hidden:
        del sys.modules["matplotlib"]

logging.getLogger("tensorflow").setLevel(logging.ERROR)

__all__ = ["tf", "tflite_schema"]
