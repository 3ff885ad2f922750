"""What pods get from Kubernetes: resources through the pipeline spec, the rest through a platform spec."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from kubeflow.settings import Affinity, KubeflowConfig, Node

SHARED_MEMORY = "/dev/shm"


def resources(
    node: Node,
) -> pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec:
    """CPU, memory and GPUs of a node; the backend takes the GPU's type verbatim as the resource name."""
    spec = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec(
        resource_cpu_request=node.cpu_request,
        resource_cpu_limit=node.cpu,
        resource_memory_request=node.memory_request,
        resource_memory_limit=node.memory,
    )
    if node.gpus:
        spec.accelerator.type = node.gpu_type
        spec.accelerator.count = node.gpus
    return spec


def retry_policy(node: Node) -> dict[str, Any]:
    """The task's `retryPolicy`, {} where it is not retried.

    The longest duration is always set: without it, or with 0, Argo's limit has passed before the first
    retry, and there is none.
    """
    if not node.retries:
        return {}
    return {
        "maxRetryCount": node.retries,
        "backoffDuration": f"{node.retry_wait_s}s",
        "backoffFactor": node.retry_factor,
        "backoffMaxDuration": f"{node.retry_within_s}s",
    }


def platform_spec(config: KubeflowConfig, executors: dict[str, str]) -> dict[str, Any]:
    """The second document of a compiled file.

    Args:
        config: settings of the pods.
        executors: node id by executor label, for the nodes that have a container.

    Returns:
        A PlatformSpec as JSON; {} where no pod needs anything.
    """
    configs = {label: _executor_config(config, node) for label, node in sorted(executors.items())}
    configs = {label: settings for label, settings in configs.items() if settings}
    kubernetes: dict[str, Any] = {"deploymentSpec": {"executors": configs}} if configs else {}
    ttl = pipeline_spec_pb2.PipelineConfig(
        resource_ttl_on_success=config.ttl_after_success_s,
        resource_ttl_on_failure=config.ttl_after_failure_s,
    )
    if ttl.ListFields():
        kubernetes["pipelineConfig"] = json_format.MessageToDict(ttl)
    return {"platforms": {"kubernetes": kubernetes}} if kubernetes else {}


def _executor_config(config: KubeflowConfig, node_id: str) -> dict[str, Any]:
    node = config.of(node_id)
    message = kubernetes_pb2.KubernetesExecutorConfig(
        image_pull_policy=config.image_pull_policy, active_deadline_seconds=node.deadline_s
    )
    # A namespace that enforces the restricted profile takes no pod without it; the image's user is 10001.
    message.security_context.run_as_non_root = True
    for name in config.image_pull_secrets:
        # Backends before 2.4 read the first, later ones the second.
        secret = message.image_pull_secret.add(secret_name=name)
        secret.secret_name_parameter.runtime_value.constant.string_value = name
    if config.labels or config.annotations:
        message.pod_metadata.labels.update(config.labels)
        message.pod_metadata.annotations.update(config.annotations)
    if node.node_selector:
        message.node_selector.labels.update(node.node_selector)
    # The terms that a pod needs are alternatives, the comparisons inside of one are not.
    needed = [each for each in node.node_affinity if not each.weight]
    if needed:
        message.node_affinity.add(match_expressions=[_comparison(each) for each in needed])
    for each in node.node_affinity:
        if each.weight:
            message.node_affinity.add(match_expressions=[_comparison(each)], weight=each.weight)
    for toleration in node.tolerations:
        message.tolerations.add(**toleration.model_dump())
    for secret in node.secrets:
        entry = message.secret_as_env.add(secret_name=secret.secret, optional=secret.optional)
        entry.secret_name_parameter.runtime_value.constant.string_value = secret.secret
        entry.key_to_env.add(secret_key=secret.key, env_var=secret.env)
    for volume in node.volumes:
        mount = message.pvc_mount.add(constant=volume.claim, mount_path=volume.path)
        mount.pvc_name_parameter.runtime_value.constant.string_value = volume.claim
    if node.shared_memory:
        # There is a message for shared memory too, but no released backend reads it.
        message.empty_dir_mounts.add(
            volume_name="shm", mount_path=SHARED_MEMORY, medium="Memory", size_limit=node.shared_memory
        )
    return json_format.MessageToDict(message)


def _comparison(affinity: Affinity) -> kubernetes_pb2.SelectorRequirement:
    return kubernetes_pb2.SelectorRequirement(
        key=affinity.key, operator=affinity.operator, values=affinity.values
    )
