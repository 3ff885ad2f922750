"""The pods that train together with a step's own: an indexed Job, as long as the step runs.

They are like the step's pod, which is read from Kubernetes: its image, resources, machines, environment.
They lack its volume claims, as most of these can be on one machine only, and its right to ask Kubernetes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from kubeflow import worker
from kubeflow.rendezvous import Rendezvous
from trainer.processes import ProcessError, call_together
from trainer.workers import as_worker

Json = Any
COMMAND = ("python", "-m", "kubeflow.worker")
POLL_S = 2.0
CAUSE_WITHIN_S = 10.0  # after the first pod lost another, until Kubernetes tells why
# What a training says when another one of its workers has gone.
_LOST = ("worker 0 ", ("AbortedError", "CancelledError", "DeadlineExceededError", "UnavailableError"))
_LOG_LINES = 20
_NO_ERROR = re.compile(r"[IW]\d{4} |\d{4}-\d\d-\d\d \S+ [IW] ")
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_OF_POD = (
    "affinity",
    "imagePullSecrets",
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "tolerations",
)
_OF_CONTAINER = ("image", "imagePullPolicy", "resources", "securityContext")
_LOG = logging.getLogger(__name__)


class WorkerPodsError(Exception):
    """A pod failed, or cannot be started: one line."""


def train(step: Callable[[], None], count: int, files: Mapping[str, str], what: str) -> None:
    """Run a step in this pod, as worker 0, and in count - 1 others; one that fails ends all.

    Args:
        step: picklable; called in a process of its own.
        count: pods.
        files: what the others get: see Rendezvous.
        what: the last of these files, as the others have it: kubeflow.worker.STEP.

    Raises:
        WorkerPodsError: one line: which worker failed, and what it said last.
    """
    namespace = _log_in()
    name = os.environ.get("KFP_POD_NAME") or os.environ.get("HOSTNAME", "")
    with _asked(f"read the step's pod {name}"):
        own = _read(client.CoreV1Api().read_namespaced_pod, name, namespace)
    with Rendezvous(own["status"]["podIP"], count - 1, files) as rendezvous:
        made = job(own, count - 1, {worker.RENDEZVOUS: rendezvous.url, worker.STEP: what})
        pods = _Pods(made["metadata"]["name"], namespace, count)
        with pods.running(made):
            told = ""
            while not rendezvous.complete.wait(POLL_S):
                pods.finished()
                if (why := waiting(pods.all())) != told:
                    told = why
                    _LOG.info("%s", told or "all pods run")
            calls: list[Callable[[], None]] = [
                functools.partial(as_worker, step, rendezvous.addresses, 0),
                pods.watch,
            ]
            try:
                call_together(calls, [f"{_LOST[0]}of {count}: ", ""])
            except ProcessError as error:
                raise WorkerPodsError(pods.cause(str(error))) from None


def job(pod: Json, others: int, env: Mapping[str, str]) -> Json:
    """The Job of the other pods.

    Args:
        pod: the step's own, as Kubernetes has it.
        others: how many.
        env: variables that they have more.
    """
    spec, metadata = pod["spec"], pod["metadata"]
    main = next(each for each in spec["containers"] if each["name"] == "main")
    # The launcher's folders and shared memory.
    volumes = [volume for volume in spec.get("volumes", ()) if "emptyDir" in volume]
    names = {volume["name"] for volume in volumes}
    container = {key: main[key] for key in _OF_CONTAINER if key in main} | {
        "name": "worker",
        "command": list(COMMAND),
        "env": [
            *(each for each in main.get("env", ()) if not each["name"].startswith("ARGO_")),
            *({"name": key, "value": value} for key, value in env.items()),
        ],
        "volumeMounts": [mount for mount in main.get("volumeMounts", ()) if mount["name"] in names],
    }
    template = {key: spec[key] for key in _OF_POD if key in spec} | {
        "restartPolicy": "Never",
        # TensorFlow goes on after SIGTERM where several workers train, and there is nothing to save.
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [container],
        "volumes": volumes,
    }
    # Argo takes a pod with its labels for one of its own.
    labels = {key: value for key, value in metadata.get("labels", {}).items() if "argoproj.io/" not in key}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"workers-{metadata['uid']}",
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": others,
            "parallelism": others,
            # One that starts again finds nobody to train with: the step is retried as a whole.
            "backoffLimit": 0,
            # For a step's pod that was gone before it could remove them.
            "ttlSecondsAfterFinished": 3600,
            "template": {
                "metadata": {"labels": labels, "annotations": {"sidecar.istio.io/inject": "false"}},
                "spec": template,
            },
        },
    }


@dataclass(frozen=True)
class _Pods:
    """The other pods."""

    job: str
    namespace: str
    count: int  # of workers, the first included

    @contextlib.contextmanager
    def running(self, made: Json) -> Iterator[None]:
        with _asked(f"start {self.count - 1} other pods"):
            _ask(client.BatchV1Api().create_namespaced_job, self.namespace, made)
        try:
            yield
        finally:
            with contextlib.suppress(ApiException, urllib3.exceptions.HTTPError):
                delete = client.BatchV1Api().delete_namespaced_job
                _ask(delete, self.job, self.namespace, propagation_policy="Background")

    def watch(self) -> None:
        """Return when all have succeeded; in a process of its own."""
        _log_in()
        while not self.finished():
            time.sleep(POLL_S)

    def finished(self) -> bool:
        """Whether all have succeeded; raises WorkerPodsError where one has failed."""
        with _asked("look after the other pods"):
            # Not the subresource `status`, which Kubeflow Pipelines' own account may not read.
            status = _read(client.BatchV1Api().read_namespaced_job, self.job, self.namespace)["status"]
            if status.get("failed"):
                raise WorkerPodsError(self._failure())
        return status.get("succeeded", 0) == self.count - 1

    def cause(self, failure: str) -> str:
        """Where the first pod lost another: why; else the failure itself."""
        ends_at = time.monotonic() + CAUSE_WITHIN_S
        lost = failure.startswith(_LOST[0]) and any(name in failure for name in _LOST[1])
        while lost and time.monotonic() < ends_at:
            try:
                self.finished()
            except WorkerPodsError as error:
                return str(error)
            time.sleep(POLL_S)
        return failure

    def _failure(self) -> str:
        """The pod that failed first, and what it said last."""
        failed = [pod for pod in self.all() if pod["status"]["phase"] == "Failed"]
        if not failed:
            return f"a pod of job {self.job} was removed"
        first = min(failed, key=lambda pod: (_end(pod).get("finishedAt", ""), _index(pod)))
        name, end = first["metadata"]["name"], _end(first)
        said = ""
        with contextlib.suppress(ApiException):  # one that was put off its machine may have none
            log = client.CoreV1Api().read_namespaced_pod_log
            said = _ask(log, name, self.namespace, tail_lines=_LOG_LINES).decode(errors="replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        for line in lines:
            _LOG.error("%s: %s", name, line)
        reason = first["status"].get("reason") or end.get("reason", "")
        why = f"{reason}, exit code {end.get('exitCode', '?')}"
        last = [line for line in lines if not _NO_ERROR.match(line)][-1:]
        return ": ".join([f"worker {_index(first)} of {self.count} (pod {name})", why, *last])

    def all(self) -> list[Json]:
        """The pods as Kubernetes has them."""
        of_job = f"batch.kubernetes.io/job-name={self.job}"
        with _asked("list the other pods"):
            listed = _read(client.CoreV1Api().list_namespaced_pod, self.namespace, label_selector=of_job)
        return sorted(listed["items"], key=_index)


def waiting(pods: Iterable[Json]) -> str:
    """Why pods do not run yet, "" where all do."""
    why = []
    for pod in pods:
        status = pod["status"]
        states = [each["state"].get("waiting", {}) for each in status.get("containerStatuses", ())]
        reasons = [each for each in status.get("conditions", ()) if each["status"] == "False"]
        for each in [*states, *reasons][:1] if status["phase"] == "Pending" else ():
            text = ": ".join(filter(None, (each.get("reason"), each.get("message"))))
            why.append(f"worker {_index(pod)} waits: {text}")
    return "; ".join(why)


def _log_in() -> str:
    """As this pod's account or, where KUBECONFIG is set, as kubectl would; the namespace."""
    try:
        if file := os.environ.get("KUBECONFIG"):
            config.load_kube_config(file)
            namespace = config.list_kube_config_contexts(file)[1]["context"]["namespace"]
        else:
            config.load_incluster_config()
            namespace = _NAMESPACE.read_text().strip()
    except (config.ConfigException, OSError) as error:
        raise WorkerPodsError(f"there is no Kubernetes to start other pods in: {error}") from None
    patient = client.Configuration.get_default_copy()
    # Two minutes: a training shall not end because Kubernetes is being updated.
    patient.retries = urllib3.Retry(8, backoff_factor=1, status_forcelist=(500, 502, 503, 504))
    client.Configuration.set_default(patient)
    return namespace


@contextlib.contextmanager
def _asked(what: str) -> Iterator[None]:
    """Explain what Kubernetes refuses."""
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        raise WorkerPodsError(f"cannot {what}: {error}") from None
    except ApiException as error:
        said = f"HTTP {error.status} {error.reason}"
        with contextlib.suppress(ValueError, TypeError, KeyError):
            said = json.loads(error.body)["message"]
        raise WorkerPodsError(
            f"cannot {what}: {said} (kubeflow/manifests/workers has what the step's service account needs)"
        ) from None


def _ask(call: Callable[..., Any], *arguments: Any, **options: Any) -> bytes:
    """What Kubernetes answers, which may be newer than its client."""
    return call(*arguments, **options, _preload_content=False).data


def _read(call: Callable[..., Any], *names: str, **options: Any) -> Json:
    return json.loads(_ask(call, *names, **options))


def _index(pod: Json) -> int:
    """Of the worker: the first pod of the Job is worker 1."""
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]) + 1


def _end(pod: Json) -> Json:
    states = [each["state"] for each in pod["status"].get("containerStatuses", ())]
    return states[0].get("terminated", {}) if states else {}
