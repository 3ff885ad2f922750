"""The pods that a backend makes of a compiled file, and what a namespace may ask of pods.

`of` does what KFP 2.16's driver and compiler do with the settings of a step, as the recorded Workflows show
it; the launcher's own containers and volumes are left out.
"""

from __future__ import annotations

from typing import Any

import kubernetes_validate

from kubeflow.spec import File

Json = Any
KUBERNETES = "1.34"
# What KFP 2.16 itself puts into each container.
_RIGHTS = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_RESOURCES = {
    ("requests", "cpu"): "resourceCpuRequest",
    ("requests", "memory"): "resourceMemoryRequest",
    ("limits", "cpu"): "resourceCpuLimit",
    ("limits", "memory"): "resourceMemoryLimit",
}
# Of the restricted profile: https://kubernetes.io/docs/concepts/security/pod-security-standards/
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def of(file: File, task: str) -> Json:
    """The pod of a task, complete enough for Kubernetes to take it."""
    container, settings = file.executor(task)["container"], file.pod(task)
    given = container.get("resources", {})
    resources: Json = {}
    for (kind, name), field in _RESOURCES.items():
        if field in given:
            resources.setdefault(kind, {})[name] = given[field]
    if accelerator := given.get("accelerator"):
        resources.setdefault("limits", {})[accelerator["type"]] = accelerator["count"]
    volumes = [
        {"name": mount["constant"], "persistentVolumeClaim": {"claimName": mount["constant"]}}
        for mount in settings.get("pvcMount", ())
    ]
    mounts = [
        {"name": mount["constant"], "mountPath": mount["mountPath"]}
        for mount in settings.get("pvcMount", ())
    ]
    for mount in settings.get("emptyDirMounts", ()):
        directory = {key: mount[key] for key in ("medium", "sizeLimit") if key in mount}
        volumes.append({"name": mount["volumeName"], "emptyDir": directory})
        mounts.append({"name": mount["volumeName"], "mountPath": mount["mountPath"]})
    secrets = [
        {
            "name": key["envVar"],
            "valueFrom": {
                "secretKeyRef": {
                    "name": secret["secretName"],
                    "key": key["secretKey"],
                    "optional": secret.get("optional", False),
                }
            },
        }
        for secret in settings.get("secretAsEnv", ())
        for key in secret["keyToEnv"]
    ]
    spec: Json = {
        "restartPolicy": "Never",
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "main",
                "image": container["image"],
                "command": container["command"],
                "args": container["args"],
                "env": [*container.get("env", ()), *secrets],
                "resources": resources,
                "securityContext": _RIGHTS | settings.get("securityContext", {}),
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if policy := settings.get("imagePullPolicy"):
        spec["containers"][0]["imagePullPolicy"] = policy
    if seconds := settings.get("activeDeadlineSeconds"):
        spec["activeDeadlineSeconds"] = int(seconds)
    if labels := settings.get("nodeSelector", {}).get("labels"):
        spec["nodeSelector"] = labels
    if tolerations := settings.get("tolerations"):
        spec["tolerations"] = tolerations
    if pull := settings.get("imagePullSecret"):
        spec["imagePullSecrets"] = [{"name": secret["secretName"]} for secret in pull]
    if affinity := _affinity(settings.get("nodeAffinity", ())):
        spec["affinity"] = {"nodeAffinity": affinity}
    metadata = {"name": task.lower(), **settings.get("podMetadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _affinity(terms: Json) -> Json:
    made: Json = {}
    needed = [{"matchExpressions": t["matchExpressions"]} for t in terms if "weight" not in t]
    preferred = [
        {"weight": t["weight"], "preference": {"matchExpressions": t["matchExpressions"]}}
        for t in terms
        if "weight" in t
    ]
    if needed:
        made["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": needed}
    if preferred:
        made["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return made


def check(document: Json) -> None:
    """Hold a resource of Kubernetes' own against its schema.

    Raises:
        kubernetes_validate.ValidationError: for what its API server would refuse.
    """
    assert kubernetes_validate.validate(document, KUBERNETES, strict=True) == KUBERNETES


def breaches(spec: Json) -> list[str]:
    """What a namespace with the restricted profile would refuse of a pod's spec."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    whole = spec.get("securityContext", {})
    for volume in spec.get("volumes", ()):
        found += [f"volume {volume['name']}: {key}" for key in volume.keys() - _VOLUMES - {"name"}]
    for container in [*spec["containers"], *spec.get("initContainers", ())]:
        context, name = container.get("securityContext", {}), container["name"]
        effective = whole | context
        if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
            found.append(f"{name}: runAsNonRoot")
        if effective.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append(f"{name}: seccompProfile")
        if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name}: allowPrivilegeEscalation")
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {
            "NET_BIND_SERVICE"
        }:
            found.append(f"{name}: capabilities")
        if any("hostPort" in port for port in container.get("ports", ())):
            found.append(f"{name}: hostPort")
    return found
