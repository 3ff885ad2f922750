"""The compiled pipeline on a real Kubeflow Pipelines: `make test-cluster`, see docs/kind.md.

MNIST_KFP_HOST and MNIST_IMAGE say where and with which image. The bucket is reached with MNIST_S3_ENDPOINT,
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, by default those of Kubeflow's own store behind a port-forward;
of an emulator it is `file://` and the folder `objects/minio` of its store.
MNIST_SECOND_BUCKET adds the check of another bucket, MNIST_SERVING (name:port, gRPC) those of the model
that is served from the claim `mnist-models`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import pytest
from pyarrow.fs import FileSystem, LocalFileSystem, S3FileSystem, copy_files

from tests.integration.kubeflow import cluster as checks
from tests.integration.kubeflow.cluster import Cluster
from tests.unit.kubeflow.conftest import REPOSITORY

HOST, IMAGE = os.environ.get("MNIST_KFP_HOST", ""), os.environ.get("MNIST_IMAGE", "")
ENDPOINT = os.environ.get("MNIST_S3_ENDPOINT", "http://localhost:9000")
BUCKET = os.environ.get("MNIST_BUCKET", "mlpipeline")
SECOND = os.environ.get("MNIST_SECOND_BUCKET", "")
SERVING = os.environ.get("MNIST_SERVING", "")
DATA = "data/test-cluster"

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not HOST or not IMAGE, reason="MNIST_KFP_HOST and MNIST_IMAGE are not set"),
]


def upload(folder: Path, bucket: str) -> str:
    """Copy a folder into a bucket, which is made where it is missing; returns its URI."""
    scheme, _, address = ENDPOINT.partition("://")
    store: FileSystem
    if scheme == "file":  # the folder behind an emulator
        store, root = LocalFileSystem(), f"{address.rstrip('/')}/"
    else:
        root = ""
        store = S3FileSystem(
            access_key=os.environ.get("AWS_ACCESS_KEY_ID", "minio"),
            secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY", "minio123"),
            endpoint_override=address,
            scheme=scheme,
            region="us-east-1",
            allow_bucket_creation=True,
        )
    store.create_dir(f"{root}{bucket}/{DATA}")
    copy_files(
        str(folder),
        f"{root}{bucket}/{DATA}",
        source_filesystem=LocalFileSystem(),
        destination_filesystem=store,
    )
    return f"minio://{bucket}/{DATA}"


@pytest.fixture(scope="module")
def cluster(tiny_mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    uri = upload(tiny_mnist_dir, BUCKET)
    package = tmp_path_factory.mktemp("cluster") / "mnist.yaml"
    settings = {
        "data.uri": uri,
        "kubeflow.pipeline_root": f"minio://{BUCKET}/v2/artifacts/test-cluster",
        "kubeflow.image_pull_policy": "IfNotPresent",
        "gates.calibration_error": 1,
        "gates.accuracy_drop": 1,
        "gates.class_accuracy_drop": 1,
    }
    # With a server, the model goes to the claim that it reads; without, into its artifact.
    example = ("--config", REPOSITORY / "kubeflow" / "configs" / "example.toml") if SERVING else ()
    done = checks.mnist(
        *("compile", "-o", package, *example, "--image", IMAGE, "--data-dir", tiny_mnist_dir),
        *(part for name, value in settings.items() for part in ("--set", f"{name}={value}")),
    )
    assert done.returncode == 0, done.stderr
    return Cluster(HOST, package, looking=checks.LOOKING if SERVING else frozenset())


def test_a_cluster_does_all_of_it(
    cluster: Cluster, tiny_mnist_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every check, in an order in which each finds what it needs, and a table of them at the end."""
    todo: dict[str, Callable[[], str]] = {
        "every node runs": partial(checks.every_node_runs, cluster),
        "again: from the cache": partial(checks.everything_comes_from_the_cache, cluster),
        "a schedule, the same data": partial(checks.a_schedule_trains_nothing_again, cluster),
        "a gate refuses": partial(checks.a_gate_refuses, cluster),
        "a wrong fingerprint": partial(checks.a_wrong_fingerprint_fails, cluster),
    }
    if SERVING:
        todo["A, B, A"] = partial(checks.a_b_a, cluster, partial(checks.served_version, SERVING, "mnist"))
        todo["the served model answers"] = partial(
            checks.the_served_model_answers, SERVING, "mnist", tiny_mnist_dir, 0.2
        )
    if SECOND:
        todo["another bucket"] = lambda: checks.another_bucket(
            cluster, upload(tiny_mnist_dir, SECOND), f"minio://{SECOND}/artifacts"
        )
    rows, failed = [], []
    for name, check in todo.items():
        begin = time.monotonic()
        try:
            said = check()
        except AssertionError as error:
            said = f"FAILED: {str(error).partition(chr(10))[0]}"
            failed.append(f"{name}: {error}")
        rows.append(f"{name:<28}{time.monotonic() - begin:7.0f} s  {said}")
        with capsys.disabled():
            click.echo(f"\n{rows[-1]}", nl=False)
    with capsys.disabled():
        click.echo(f"\n\n{HOST}, {IMAGE}\n" + "\n".join(rows))
    assert not failed, "\n".join(failed)
