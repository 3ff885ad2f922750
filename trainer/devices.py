"""Where a training run computes: the GPUs of this machine, and other workers."""

from __future__ import annotations

import json
import os

import tensorflow as tf

from trainer.workers import TF_CONFIG

_CHIEFS = ("chief", "master")
_ROLES = (*_CHIEFS, "worker")


class MissingGpuError(RuntimeError):
    """Fewer GPUs are visible than the configuration asks for."""


def build_strategy(gpus_wanted: int = 0) -> tf.distribute.Strategy:
    """One replica per GPU of each worker.

    Several workers find each other by the environment variable TF_CONFIG, as everywhere in TensorFlow. Call
    this before anything else of TensorFlow: it is then that the workers join.

    Args:
        gpus_wanted: the least number of GPUs that must be visible here; 0: train on what there is.

    Raises:
        MissingGpuError: better at once than after hours on the CPU.
        ValueError: for a role in TF_CONFIG that has nothing to do here.
    """
    _check_role()
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) < gpus_wanted:
        raise MissingGpuError(
            f"trainer.gpus asks for {gpus_wanted} and TensorFlow sees {len(gpus)}: check the driver "
            "(nvidia-smi), CUDA_VISIBLE_DEVICES and the installation of the `gpu` extra, or set "
            "trainer.gpus=0 to train on the CPU"
        )
    for gpu in gpus:
        # Otherwise TensorFlow takes all of the memory, and whatever else runs on the GPU fails.
        tf.config.experimental.set_memory_growth(gpu, True)
    if worker_count() > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    # The logical devices: a test splits its only CPU into two.
    devices = [device.name for device in tf.config.list_logical_devices("GPU")]
    if not devices:
        devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def worker_count() -> int:
    """Processes that train together."""
    cluster = _tf_config().get("cluster", {})
    return max(1, sum(len(cluster.get(role, ())) for role in _ROLES))


def is_chief() -> bool:
    """Whether this process writes the results: the chief, or worker 0 where there is none.

    `master` is what tf.estimator called a chief that evaluates too.
    """
    config = _tf_config()
    role = config.get("task", {}).get("type", "worker")
    if role in _CHIEFS or "cluster" not in config:
        return role in _ROLES
    has_chief = any(config["cluster"].get(chief) for chief in _CHIEFS)
    return role == "worker" and not has_chief and int(config["task"].get("index", 0)) == 0


def describe(strategy: tf.distribute.Strategy, precision: str) -> str:
    """One line that says on what and in which arithmetic a run computes."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    device = ", ".join(names) or f"CPU, {len(os.sched_getaffinity(0))} cores"
    workers = f", {worker_count()} workers" if worker_count() > 1 else ""
    return f"training on {device}{workers}, {strategy.num_replicas_in_sync} replica(s), in {precision}"


def _check_role() -> None:
    role = _tf_config().get("task", {}).get("type", "worker")
    if role not in _ROLES:
        raise ValueError(
            f"{TF_CONFIG}: a task of type {role!r} has nothing to do here: workers hold the variables and "
            f"evaluate themselves; start tasks of type {', '.join(_ROLES)} alone"
        )


def _tf_config() -> dict:
    return json.loads(os.environ.get(TF_CONFIG) or "{}")
