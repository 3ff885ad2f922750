"""Retraining on drift: the script of the manifest starts runs, and finds in its pod what it needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeflow import api
from kubeflow.data_changes import NODE
from pipeline import product
from serving.cli import serve
from tests.unit.kubeflow import golden, kfp_server
from tests.unit.kubeflow.conftest import REPOSITORY

FOLDER = REPOSITORY / "kubeflow" / "manifests" / "retrain-on-drift"
SCRIPT = FOLDER / "retrain.sh"


def document(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.mark.slow
def test_drift_starts_a_run_and_no_second_one_until_it_has_cooled_down(tmp_path: Path) -> None:
    """`monitor` ends with the code that is told here; what it does to get there is in its own tests."""
    command = tmp_path / product.NAME
    real = Path(sys.executable).with_name(product.NAME)
    command.write_text(f'#!/bin/sh\n[ "$1" != monitor ] || exit "$FOUND"\nexec {real} "$@"\n')
    command.chmod(0o755)
    requests = tmp_path / "requests"
    requests.mkdir()
    for days in (1, 9):
        log = requests / f"requests-{days}.tfrecord"
        log.touch()
        os.utime(log, (time.time() - days * 86_400,) * 2)

    with kfp_server.running() as server:
        server.multi_user, server.token = True, "of-the-account"

        def look(found: int) -> subprocess.CompletedProcess[str]:
            settings = {
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "FOUND": str(found),
                "MODEL": "/models/mnist",
                "REQUESTS": str(requests),
                "KEEP_DAYS": "7",
                "PIPELINE": str(golden.path("example")),
                "COOL_DOWN": "1d",
                "NAMESPACE": "team-a",
                "KF_PIPELINES_ENDPOINT": server.url,
                "KFP_TOKEN": server.token or "",
            }
            words = ["sh", str(SCRIPT)]
            return subprocess.run(
                words, env=os.environ | settings, capture_output=True, text=True, check=False
            )

        assert [look(found).returncode for found in (0, 2)] == [0, 2]
        assert server.requests == []
        assert [path.name for path in requests.iterdir()] == ["requests-1.tfrecord"]

        first = look(3)
        assert first.returncode == 0, first.stderr
        ((run_id, sent),) = server.runs.items()
        assert first.stdout.startswith(f"run {run_id}\n")
        assert re.fullmatch(r"drift \d{4}-\d\d-\d\dT\d\d:\d\dZ", sent["display_name"])
        assert NODE in sent["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
        assert server.namespaces == ["team-a"]
        again = look(3)
        assert again.returncode == 0
        assert again.stdout.startswith("no run: ")
        assert len(server.runs) == 1


def test_the_script_finds_in_its_pod_what_it_needs() -> None:
    pod = document("cron-job.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume.pop("name"): volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()

    given = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert set(re.findall(r"\$([A-Z_]+)", SCRIPT.read_text())) == given.keys()
    assert given["MODEL"] == f"{mounts['models']}/{product.NAME}"
    assert given["REQUESTS"] == mounts["requests"]
    assert Path(given["PIPELINE"]).parent == Path(mounts["pipeline"])
    assert container["command"] == ["/bin/sh", f"{mounts['script']}/{SCRIPT.name}"]
    (token,) = volumes["token"]["projected"]["sources"]
    assert Path(mounts["token"], token["serviceAccountToken"]["path"]) == api.POD_TOKEN
    page = (REPOSITORY / "docs" / "monitoring.md").read_text()
    assert (
        f"configmap {volumes['pipeline']['configMap']['name']} --from-file={Path(given['PIPELINE']).name}"
        in page
    )


def test_the_server_logs_where_the_script_looks() -> None:
    (server,) = document("server.yaml")["spec"]["template"]["spec"]["containers"]
    flags = dict(flag.split("=", 1) for flag in server["args"])
    assert server["command"] == [product.NAME, "serve"]
    assert flags.keys() <= {option for parameter in serve.params for option in parameter.opts}
    (log,) = server["volumeMounts"]
    assert flags["--log-requests"] == log["mountPath"]
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in (
            document("server.yaml")["spec"]["template"]["spec"],
            document("cron-job.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        )
        for volume in pod["volumes"]
        if volume["name"] == log["name"]
    }
    assert claims == {document("claim.yaml")["metadata"]["name"]}
    base = (REPOSITORY / "kubeflow/manifests/tf-serving/base/deployment.yaml").read_text()
    for ours, theirs in (
        ("--port", "port"),
        ("--rest-port", "rest_api_port"),
        ("--model-name", "model_name"),
    ):
        assert f"--{theirs}={flags[ours]}\n" in base
    assert f"--model_base_path={flags['--model-dir']}\n" in base
