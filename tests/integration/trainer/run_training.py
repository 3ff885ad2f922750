"""run_fn in a process of its own: python -m tests.integration.trainer.run_training ARGUMENTS.json [CPUS]"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from trainer.train import run_fn

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, force=True)
    arguments = json.loads(Path(sys.argv[1]).read_text())
    if len(sys.argv) > 2:
        # Logical devices must be declared before TensorFlow starts.
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[2])
        tf.config.set_logical_device_configuration(cpu, logical)
    run_fn(FnArgs(**arguments))
