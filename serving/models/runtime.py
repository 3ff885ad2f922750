"""TensorFlow, as everything here imports it: quiet, leaving no file behind, without what it does not need.

Nothing else in this room may import it, or its messages otherwise than from serving.protocol.protos:
what is set here only counts before TensorFlow is loaded.
"""

from __future__ import annotations

import logging
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The Keras inside TensorFlow writes a configuration into the home folder, and obeys one there, unless there
# can be none.
os.environ.setdefault("KERAS_HOME", os.devnull)
# At its end the import of TensorFlow imports Keras, or the older one that TF_USE_LEGACY_KERAS asks for, and
# that imports pyplot; the oldest one, inside TensorFlow, imports h5py and SciPy where it finds them. All of
# that is half of the modules and of the seconds and 190 MB, for functions that nothing here calls. It is
# hidden meanwhile.
_UNUSED = ("keras.src.optimizers", "tf_keras.src.optimizers", "matplotlib", "h5py", "scipy")
_hidden = [name for name in _UNUSED if name not in sys.modules]  # a module hidden before stays hidden
sys.modules |= dict.fromkeys(_hidden)  # type: ignore[arg-type]
try:
    import tensorflow as tf
    from tensorflow.lite.python import schema_py_generated as tflite_schema
finally:
    for _name in _hidden:
        del sys.modules[_name]

logging.getLogger("tensorflow").setLevel(logging.ERROR)

__all__ = ["tf", "tflite_schema"]
