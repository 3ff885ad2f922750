"""Which arithmetic the training step uses on this machine."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
import tensorflow as tf

FLOAT32 = "float32"
BFLOAT16 = "mixed_bfloat16"
FLOAT16 = "mixed_float16"

_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@functools.cache
def resolve_precision(precision: str) -> str:
    """Turn `auto` into what suits this machine; other values pass.

    bfloat16 on CPUs that multiply it natively and on GPUs of compute capability 8 or more, float16 on those
    of 7.x, float32 elsewhere: there the conversions cost more than the arithmetic saves.

    Args:
        precision: `auto`, or the name of a Keras dtype policy.

    Returns:
        The name of a Keras dtype policy.
    """
    if precision != "auto":
        return precision
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return BFLOAT16 if _BFLOAT16_FLAGS & _cpu_flags() else FLOAT32
    # The weakest of several GPUs decides: they all run the same step.
    weakest = min(_compute_capability(gpu) for gpu in gpus)
    if weakest >= (8, 0):
        return BFLOAT16
    return FLOAT16 if weakest >= (7, 0) else FLOAT32


def precision_of(network: keras.Model | None) -> str:
    """The dtype policy in which a network's layers compute, however it was built; None: float32."""
    policies = {layer.dtype_policy.name for layer in network.layers if layer.weights} if network else set()
    return next((name for name in (FLOAT16, BFLOAT16) if name in policies), FLOAT32)


def _compute_capability(gpu: tf.config.PhysicalDevice) -> tuple[int, int]:
    return tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))


def _cpu_flags() -> frozenset[str]:
    if not _CPU_INFO.exists():
        return frozenset()
    for line in _CPU_INFO.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
