"""An InferenceService of KServe with a canary, seen and changed through kubectl.

kubectl brings the address and the credentials of the cluster, and its API server reaches the pods' metrics.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from kubeflow.rollout import METRICS_PATH, MetricsError, Traffic, read
from pipeline.errors import RefusedError, UserError

METRICS_PORT = 8080  # of KServe's TensorFlow runtime: REST
_PERCENT = "/spec/predictor/canaryTrafficPercent"
_TIMEOUT_S = 60


class KubectlError(RefusedError):
    """kubectl did not do it; the text is what it said."""


@dataclass(frozen=True)
class InferenceService:
    """One InferenceService.

    Attributes:
        name: of the service; with KServe's defaults, of the model too.
        namespace: of it; None: kubectl's own.
    """

    name: str
    namespace: str | None = None

    def revisions(self) -> tuple[str, str]:
        """The revision of the canary, and the one before it.

        Raises:
            UserError: where there is no canary.
            KubectlError: where kubectl cannot say.
        """
        status = json.loads(self._kubectl("get", "inferenceservice", self.name, "-o", "json"))
        percent = status["spec"]["predictor"].get("canaryTrafficPercent")
        predictor = status.get("status", {}).get("components", {}).get("predictor", {})
        traffic: list[dict[str, Any]] = predictor.get("traffic", [])
        canary = [each["revisionName"] for each in traffic if each.get("latestRevision")]
        others = [each["revisionName"] for each in traffic if not each.get("latestRevision")]
        if percent is None or len(canary) != 1 or len(others) != 1:
            raise UserError(
                f"inferenceservice {self.name} has no canary: its requests go to "
                f"{', '.join(canary + others) or 'nothing yet'}; set canaryTrafficPercent together with "
                "the new storageUri, in KServe's Knative mode"
            )
        return canary[0], others[0]

    def traffic(self, revision: str) -> dict[str, Traffic]:
        """What each running pod of a revision has answered, by the pod's name.

        Raises:
            KubectlError: where a pod shows no metrics.
        """
        pods = self._kubectl(
            *("get", "pods", "-l", f"serving.knative.dev/revision={revision}"),
            *("--field-selector", "status.phase=Running", "-o", "json"),
        )
        found = {}
        for pod in json.loads(pods)["items"]:
            name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
            path = f"/api/v1/namespaces/{namespace}/pods/{name}:{METRICS_PORT}/proxy/{METRICS_PATH}"
            try:
                found[name] = read(self._kubectl("get", "--raw", path), self.name)
            except MetricsError as error:
                raise KubectlError(
                    f"pod {name}: {error}; does it run with --monitoring_config_file?"
                ) from None
        return found

    def promote(self) -> None:
        """Send all requests to the canary."""
        self._patch([{"op": "remove", "path": _PERCENT}])

    def roll_back(self) -> None:
        """Send all requests to the revision before the canary."""
        self._patch([{"op": "replace", "path": _PERCENT, "value": 0}])

    def _patch(self, operations: list[dict[str, Any]]) -> None:
        self._kubectl(
            *("patch", "inferenceservice", self.name, "--type", "json", "-p", json.dumps(operations))
        )

    def _kubectl(self, *arguments: str) -> str:
        namespace = ("-n", self.namespace) if self.namespace else ()
        try:
            done = subprocess.run(
                ["kubectl", *namespace, *arguments],
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
        except FileNotFoundError:
            raise UserError("kubectl is not here, which this command works through; install it") from None
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl {arguments[0]}: no answer in {_TIMEOUT_S} s") from None
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise KubectlError(f"kubectl {' '.join(arguments[:3])}: {said}")
        return done.stdout
