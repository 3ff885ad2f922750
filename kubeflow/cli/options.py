"""The options that the commands for a cluster share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from kubeflow import api
from kubeflow.submit import Package, RunOptions, read_package
from pipeline.errors import UserError

Command = Callable[..., Any]
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)

ACCESS = (
    click.option("--host", metavar="URL", help="Kubeflow Pipelines; not needed inside its cluster."),
    click.option("--namespace", help="Your namespace, where Kubeflow has several users."),
    click.option("--token-file", type=FILE, help="File of a bearer token; read again for each request."),
    click.option(
        "--existing-token", metavar="TOKEN", envvar="KFP_TOKEN", help="A bearer token. [env: KFP_TOKEN]"
    ),
    click.option("--ca-file", type=FILE, help="Certificates that the server's own is checked against."),
)
RUN = (
    click.option("--experiment", help="Group of runs. [default: the pipeline's name]"),
    click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter; repeatable."),
    click.option("--pipeline-root", metavar="URI", help="Folder of the artifacts, e.g. s3://bucket/runs."),
    click.option("--service-account", help="Account of the run's pods. [default: as compiled]"),
    click.option("--no-cache", is_flag=True, help="Run every node, even where nothing changed."),
    click.option(
        "--when-data-changes",
        is_flag=True,
        help="Each run first computes the data's fingerprint in the cluster; known data train nothing.",
    ),
)


def with_options(options: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    """One decorator for several options, in the order in which `--help` shows them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def connect(options: dict[str, Any]) -> api.Api:
    """A connection as the options of ACCESS say."""
    return api.connect(
        api.Access(
            host=options["host"],
            namespace=options["namespace"],
            token_file=options["token_file"],
            token=options["existing_token"],
            ca_file=options["ca_file"],
        )
    )


@contextmanager
def package_of(path: Path, options: dict[str, Any]) -> Iterator[Package]:
    """The compiled file as the options of RUN want it."""
    package = read_package(path)
    if not options["when_data_changes"]:
        yield package
        return
    if options["no_cache"]:
        raise UserError("--when-data-changes works through the cache, and --no-cache leaves it out")
    with TemporaryDirectory() as folder:
        yield package.looking_at_the_data(Path(folder))


def run_options(name: str | None, options: dict[str, Any]) -> RunOptions:
    """How a run is started, as the options of RUN say."""
    return RunOptions(
        experiment=options["experiment"],
        name=name,
        pipeline_root=options["pipeline_root"],
        service_account=options["service_account"],
        cache=False if options["no_cache"] else None,
    )
