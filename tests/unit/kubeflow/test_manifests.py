"""The manifests of the servers: held against the Kubernetes and KServe types, and against each other."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client as kubernetes

from kubeflow import settings as kubeflow_settings
from kubeflow.rollout import METRICS_PATH
from pipeline import product
from tests.unit.kubeflow import openapi
from tests.unit.kubeflow import pods as kubernetes_pods
from tests.unit.kubeflow.conftest import REPOSITORY

MANIFESTS = REPOSITORY / "kubeflow" / "manifests"
OVERLAYS = (
    "model-volume",
    "flink",
    "monitoring",
    "retrain-on-drift",
    "workers",
    "tf-serving/base",
    "tf-serving/overlays/pvc",
    "tf-serving/overlays/s3",
    "kserve/base",
    "kserve/overlays/pvc",
    "kserve/overlays/s3",
    "kserve/overlays/s3-canary",
)
COMPLETE = tuple(name for name in OVERLAYS if not name.endswith("base"))
RUN_AS = 10001  # the user of the image's Pusher, who owns what is on the volume
Json = Any


class _Model:
    """What the checker needs of a generated class."""

    required: tuple[str, ...] = ()

    def __init__(self, **fields: Any) -> None:
        if missing := [name for name in self.required if name not in fields]:
            raise ValueError(f"missing: {', '.join(missing)}")


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def _resource(name: str, types: dict[str, str], *required: str, base: Any = None) -> Any:
    """A model of a CRD; where it embeds a Kubernetes type, with that type's fields."""
    own = types | (base.openapi_types if base else {})
    return type(
        name,
        (_Model,),
        {
            "openapi_types": own,
            "attribute_map": {key: _camel(key) for key in own} | (base.attribute_map if base else {}),
            "required": required,
        },
    )


_TOP = {"api_version": "str", "kind": "str", "metadata": "V1ObjectMeta"}
# KServe 0.15's CRD as far as predictors with a model go; no package in the lock file ships it.
KSERVE = {
    model.__name__: model
    for model in (
        _resource("InferenceService", _TOP | {"spec": "InferenceServiceSpec"}, "spec"),
        _resource("InferenceServiceSpec", {"predictor": "PredictorSpec"}, "predictor"),
        _resource(
            "PredictorSpec",
            {
                "model": "ModelSpec",
                "min_replicas": "int",
                "max_replicas": "int",
                "scale_target": "int",
                "scale_metric": "str",
                "container_concurrency": "int",
                "timeout": "int",
                "canary_traffic_percent": "int",
                "labels": "dict(str, str)",
                "annotations": "dict(str, str)",
                "deployment_strategy": "V1DeploymentStrategy",
            },
            base=kubernetes.V1PodSpec,
        ),
        _resource(
            "ModelSpec",
            {
                "model_format": "ModelFormat",
                "protocol_version": "str",
                "runtime": "str",
                "runtime_version": "str",
                "storage_uri": "str",
            },
            "model_format",
            base=kubernetes.V1Container,
        ),
        _resource("ModelFormat", {"name": "str", "version": "str"}, "name"),
    )
}
# As far as they are used here, of the Prometheus operator's CRDs.
MONITORING = {
    model.__name__: model
    for model in (
        _resource("ServiceMonitor", _TOP | {"spec": "ServiceMonitorSpec"}, "spec"),
        _resource(
            "ServiceMonitorSpec",
            {"selector": "V1LabelSelector", "endpoints": "list[Endpoint]"},
            "selector",
            "endpoints",
        ),
        _resource("Endpoint", {"port": "str", "path": "str", "interval": "str"}),
        _resource("PrometheusRule", _TOP | {"spec": "PrometheusRuleSpec"}, "spec"),
        _resource("PrometheusRuleSpec", {"groups": "list[RuleGroup]"}),
        _resource("RuleGroup", {"name": "str", "rules": "list[Rule]"}, "name"),
        _resource(
            "Rule",
            dict.fromkeys(("record", "alert", "expr"), "str")
            | {"for": "str"}
            | dict.fromkeys(("labels", "annotations"), "dict(str, str)"),
            "expr",
        ),
    )
}
MODELS = {**vars(kubernetes), **KSERVE, **MONITORING}
KINDS = {
    ("apps/v1", "Deployment"): "V1Deployment",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
    ("batch/v1", "CronJob"): "V1CronJob",
    ("batch/v1", "Job"): "V1Job",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "PersistentVolumeClaim"): "V1PersistentVolumeClaim",
    ("v1", "Service"): "V1Service",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "PrometheusRule",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "ServiceMonitor",
    ("serving.kserve.io/v1beta1", "InferenceService"): "InferenceService",
}


def kind_of(document: Json) -> str:
    return KINDS[document["apiVersion"], document["kind"]]


def load(path: Path) -> list[Json]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def kustomizations() -> list[Path]:
    return sorted(MANIFESTS.rglob("kustomization.yaml"))


def kustomize_command() -> list[str]:
    """How kustomize is called here: by itself or inside kubectl; [] where it is missing."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else []


@pytest.fixture(scope="module")
def composed() -> dict[str, list[Json]]:
    """What kustomize makes of each folder."""
    command = kustomize_command()
    if not command:
        pytest.skip("neither kustomize nor kubectl is here")
    made = {}
    for name in OVERLAYS:
        done = subprocess.run(
            [*command, str(MANIFESTS / name)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        made[name] = [document for document in yaml.safe_load_all(done.stdout) if document]
    return made


def find(documents: list[Json], kind: str) -> Json:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pods(documents: list[Json]) -> Iterator[Json]:
    """The pod spec of each document that has one."""
    for document in documents:
        if document["kind"] in ("Deployment", "Job"):
            yield document["spec"]["template"]["spec"]
        if document["kind"] == "CronJob":
            yield document["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_every_file_is_used_and_every_used_file_exists() -> None:
    used = set()
    for path in kustomizations():
        kustomization = load(path)[0]
        names = [
            *kustomization.get("resources", ()),
            *(patch["path"] for patch in kustomization.get("patches", ())),
            *(
                file.rpartition("=")[2]
                for maps in kustomization.get("configMapGenerator", ())
                for file in maps.get("files", ())
            ),
        ]
        for name in names:
            target = (path.parent / name).resolve()
            assert target.exists(), f"{path}: {name}"
            used.add(target / "kustomization.yaml" if target.is_dir() else target)
    unused = {path for path in MANIFESTS.rglob("*") if path.is_file()} - used
    assert {str(path.parent.relative_to(MANIFESTS)) for path in unused} == set(COMPLETE) - {
        "model-volume",
        "kserve/overlays/s3",
        "tf-serving/overlays/pvc",
    }
    assert {path.name for path in unused} == {"kustomization.yaml"}


def test_patches_change_what_the_base_has() -> None:
    for path in kustomizations():
        kustomization = load(path)[0]
        known = {
            (document["kind"], document["metadata"]["name"])
            for name in kustomization.get("resources", ())
            for file in (
                [path.parent / name] if name.endswith(".yaml") else (path.parent / name).glob("*.yaml")
            )
            if file.name != "kustomization.yaml"
            for document in load(file)
        }
        for patch in kustomization.get("patches", ()):
            (document,) = load(path.parent / patch["path"])
            assert (document["kind"], document["metadata"]["name"]) in known


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=str(path.relative_to(MANIFESTS)))
        for path in sorted(MANIFESTS.rglob("*.yaml"))
        if path.name != "kustomization.yaml"
    ],
)
def test_each_file_fits_its_type(path: Path) -> None:
    patches = {patch["path"] for patch in load(path.parent / "kustomization.yaml")[0].get("patches", ())}
    for document in load(path):
        openapi.check(document, kind_of(document), MODELS, document["kind"], partial=path.name in patches)


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
def test_each_composition_fits_its_types(composed: dict[str, list[Json]], name: str) -> None:
    assert composed[name]
    for document in composed[name]:
        openapi.check(document, kind_of(document), MODELS, document["kind"])
        if kind_of(document) in vars(kubernetes):  # of CRDs, the validator has no schema
            kubernetes_pods.check(document)
        assert "namespace" not in document["metadata"], "it is for the namespace that one applies it to"


def misspelt(document: Json, path: tuple[str | int, ...], value: Json) -> Json:
    changed = copy.deepcopy(document)
    target = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("file", "path", "value", "says"),
    [
        ("tf-serving/base/deployment.yaml", ("spec", "replica"), 2, "spec.replica: unknown"),
        (
            "tf-serving/base/deployment.yaml",
            ("spec", "template", "spec", "containers", 0, "readinesProbe"),
            {},
            "readinesProbe: unknown to V1Container",
        ),
        (
            "tf-serving/base/deployment.yaml",
            ("spec", "template", "spec", "containers", 0, "resources", "limits", "cpu"),
            4,
            "limits.cpu: no string",
        ),
        (
            "tf-serving/base/deployment.yaml",
            ("spec", "template", "spec", "securityContext", "runAsNonRoot"),
            "yes",
            "runAsNonRoot: no boolean",
        ),
        ("tf-serving/base/deployment.yaml", ("spec",), {"template": {}}, "selector"),
        ("tf-serving/base/autoscaler.yaml", ("spec", "maxReplicas"), "8", "maxReplicas: no integer"),
        ("tf-serving/base/service.yaml", ("spec", "ports"), {}, "ports: no list"),
        ("kserve/base/inference-service.yaml", ("spec", "predictor", "minReplica"), 1, "unknown"),
        (
            "kserve/base/inference-service.yaml",
            ("spec", "predictor", "model", "storageURI"),
            "s3://",
            "storageURI: unknown to ModelSpec",
        ),
        ("kserve/base/inference-service.yaml", ("spec", "predictor", "model"), {}, "missing: model_format"),
    ],
)
def test_the_checker_refuses_what_a_cluster_would(
    file: str, path: tuple[str | int, ...], value: Json, says: str
) -> None:
    (document,) = load(MANIFESTS / file)
    with pytest.raises(openapi.SchemaError, match=re.escape(says)):
        openapi.check(misspelt(document, path, value), kind_of(document), MODELS, document["kind"])


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPLETE)
def test_pods_have_no_rights_and_bounded_resources(composed: dict[str, list[Json]], name: str) -> None:
    for pod in pods(composed[name]):
        assert kubernetes_pods.breaches(pod) == []
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == RUN_AS
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert re.search(r":\d+\.\d+\.\d+(-java\d+)?$", container["image"]), "an exact version"
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][bound].keys()
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@pytest.mark.parametrize("name", ["tf-serving/overlays/pvc", "tf-serving/overlays/s3"])
def test_the_parts_of_tf_serving_find_each_other(composed: dict[str, list[Json]], name: str) -> None:
    documents = composed[name]
    deployment, service = find(documents, "Deployment"), find(documents, "Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        find(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    autoscaler = find(documents, "HorizontalPodAutoscaler")["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]

    pod = deployment["spec"]["template"]["spec"]
    serving = next(container for container in pod["containers"] if container["name"] == "serving")
    ports = {port["name"]: port["containerPort"] for port in serving["ports"]}
    assert f"--port={ports['grpc']}" in serving["args"]
    assert f"--rest_api_port={ports['http']}" in serving["args"]
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    for probe in ("startupProbe", "readinessProbe"):
        assert serving[probe]["httpGet"] == {"path": f"/v1/models/{product.NAME}", "port": "http"}
    for rule in find(documents, "NetworkPolicy")["spec"]["ingress"]:
        assert {port["port"] for port in rule["ports"]} <= ports.keys()

    maps = {
        document["metadata"]["name"]: document for document in documents if document["kind"] == "ConfigMap"
    }
    for volume in pod["volumes"]:
        if "configMap" in volume:
            assert volume["configMap"]["name"] in maps
    for container in pod["containers"]:
        for source in container.get("envFrom", ()):
            assert source["configMapRef"]["name"] in maps
    (settings,) = [volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "settings"]
    for flag in ("batching_parameters_file", "monitoring_config_file"):
        (file,) = [arg.partition("=")[2] for arg in serving["args"] if arg.startswith(f"--{flag}=")]
        assert Path(file).name in maps[settings]["data"]


def test_the_volume_is_the_one_that_the_pusher_writes_to(composed: dict[str, list[Json]]) -> None:
    config = tomllib.loads((REPOSITORY / "kubeflow" / "configs" / "example.toml").read_text())
    (volume,) = config["kubeflow"]["nodes"]["Pusher"]["volumes"]
    assert config["push"]["destination"] == volume["path"]
    claim = find(composed["model-volume"], "PersistentVolumeClaim")["metadata"]["name"]
    assert volume["claim"] == claim
    for name in ("model-volume", "tf-serving/overlays/pvc"):
        for pod in pods(composed[name]):
            claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
            assert [entry["claimName"] for entry in claims] == [claim]
    predictor = find(composed["kserve/overlays/pvc"], "InferenceService")["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == f"pvc://{claim}/{product.NAME}"


def test_both_servers_are_the_release_that_the_client_speaks(composed: dict[str, list[Json]]) -> None:
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    (version,) = [p["version"] for p in lock["package"] if p["name"] == "tensorflow-serving-api"]
    model = find(composed["kserve/overlays/s3"], "InferenceService")["spec"]["predictor"]["model"]
    pod = find(composed["tf-serving/overlays/pvc"], "Deployment")["spec"]["template"]["spec"]

    assert model["runtimeVersion"] == version
    assert pod["containers"][0]["image"] == f"tensorflow/serving:{version}"


def test_flinks_parts_and_the_compiled_pipeline_find_each_other(composed: dict[str, list[Json]]) -> None:
    documents = composed["flink"]
    deployments = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Deployment"}
    services = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Service"}
    part = find(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for name, deployment in deployments.items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert part.items() <= labels.items()
        if name in services:
            assert services[name]["spec"]["selector"].items() <= labels.items()
            (container,) = deployment["spec"]["template"]["spec"]["containers"]
            open_ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            for port in services[name]["spec"]["ports"]:
                assert open_ports[port["targetPort"]] == port["port"]

    def host_port(service: str, port: str) -> str:
        ports = {p["name"]: p["port"] for p in services[service]["spec"]["ports"]}
        return f"{service}:{ports[port]}"

    settings = yaml.safe_load(find(documents, "ConfigMap")["data"]["config.yaml"])
    for port, key in (("rpc", "jobmanager.rpc"), ("rest", "rest")):
        assert (
            host_port("flink-job-manager", port)
            == f"{settings[key + '.address']}:{settings[key + '.port']}"
        )
    config, kubeflow = kubeflow_settings.load(REPOSITORY / "kubeflow" / "configs" / "flink.toml")
    flink = config.beam.flink
    assert flink.master == host_port("flink-job-manager", "rest")
    assert flink.job_endpoint == host_port("beam-job-server", "job")
    assert flink.artifact_endpoint == host_port("beam-job-server", "artifact")
    task_managers = deployments["flink-task-manager"]["spec"]
    slots = settings["taskmanager.numberOfTaskSlots"]
    assert (task_managers["replicas"] - 1) * slots >= flink.parallelism

    server = deployments["beam-job-server"]["spec"]["template"]["spec"]["containers"][0]
    assert f"--flink-master=http://{flink.master}" in server["args"]
    _, workers = task_managers["template"]["spec"]["containers"]
    port = workers["ports"][0]["containerPort"]
    assert f"--service_port={port}" in workers["command"]
    assert flink.worker_pool == f"localhost:{port}"
    assert workers["image"] == kubeflow.image
    (shared,) = [mount for mount in workers["volumeMounts"] if mount["name"] == "artifacts"]
    for node in ("ImageExampleGen", "StatisticsGen", "Transform", "Evaluator"):
        (volume,) = kubeflow.of(node).volumes
        assert volume.claim == find(documents, "PersistentVolumeClaim")["metadata"]["name"]
        assert volume.path == shared["mountPath"]


class Store:
    """A folder that rclone takes for a bucket, and the script that fetches from it."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target = folder / "bucket", folder / "models"
        self.source.mkdir()

    def upload(self, version: str, *files: str) -> None:
        (self.source / version / "variables").mkdir(parents=True, exist_ok=True)
        for file in files:
            (self.source / version / file).write_text(f"{version} {file}")

    def run(self, rounds: int) -> subprocess.CompletedProcess[str]:
        script = MANIFESTS / "tf-serving/overlays/s3/fetch-models.sh"
        settings = {"SOURCE": self.source, "TARGET": self.target, "KEEP": 2, "POLL_S": 0, "ROUNDS": rounds}
        return subprocess.run(
            ["sh", str(script)],
            env=os.environ | {key: str(value) for key, value in settings.items()},
            capture_output=True,
            text=True,
            check=True,
        )

    def fetch(self, rounds: int) -> list[str]:
        """The versions that are there after some rounds."""
        assert self.run(rounds).stderr == ""
        return sorted(path.name for path in self.target.iterdir())


WHOLE = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    if not shutil.which("rclone"):
        pytest.skip("rclone is not here")
    return Store(tmp_path)


def test_versions_are_fetched_whole_and_old_ones_go(store: Store) -> None:
    for version in ("1", "9", "10"):
        store.upload(version, *WHOLE)
    store.upload("latest", *WHOLE)  # no version

    assert store.fetch(rounds=1) == []  # it may still be on its way up
    assert store.fetch(rounds=2) == ["10", "9"]
    assert {str(p.relative_to(store.target / "10")) for p in (store.target / "10").rglob("*.*")} == set(
        WHOLE
    )
    store.upload("11", *WHOLE)
    assert store.fetch(rounds=2) == ["10", "11"]


def test_a_half_uploaded_version_is_left_alone(store: Store) -> None:
    store.upload("1", *WHOLE)
    store.upload("2", "variables/variables.index")
    store.upload("3")

    assert store.fetch(rounds=3) == ["1"]
    store.upload("2", *WHOLE)
    assert store.fetch(rounds=2) == ["1", "2"]


def test_a_store_that_is_away_takes_nothing_away(store: Store) -> None:
    store.upload("1", *WHOLE)
    assert store.fetch(rounds=2) == ["1"]
    shutil.rmtree(store.source)

    assert "not found" in store.run(rounds=2).stderr
    assert (store.target / "1" / "saved_model.pb").exists()


def test_a_canary_is_another_address_and_a_share(composed: dict[str, list[Json]]) -> None:
    before, canary = (
        find(composed[f"kserve/overlays/{name}"], "InferenceService")["spec"]["predictor"]
        for name in ("s3", "s3-canary")
    )

    assert 0 < canary.pop("canaryTrafficPercent") < 100
    assert canary["model"].pop("storageUri") != before["model"].pop("storageUri")
    assert canary == before


def test_kserve_shows_the_metrics_that_a_rollout_goes_by(composed: dict[str, list[Json]]) -> None:
    predictor = find(composed["kserve/overlays/s3"], "InferenceService")["spec"]["predictor"]
    (flag,) = predictor["model"]["args"]
    (mount,) = predictor["model"]["volumeMounts"]
    (volume,) = predictor["volumes"]
    settings = find(composed["kserve/overlays/s3"], "ConfigMap")

    assert Path(flag.partition("=")[2]).parent == Path(mount["mountPath"])
    assert mount["name"] == volume["name"]
    assert volume["configMap"]["name"] == settings["metadata"]["name"]
    assert METRICS_PATH in settings["data"][Path(flag).name]
