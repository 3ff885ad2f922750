"""`mnist compile`: the pipeline as one file for Kubeflow."""

from __future__ import annotations

import os
from pathlib import Path

import click

from components.shared import files
from kubeflow import settings as kubeflow_settings
from kubeflow.settings import KubeflowConfig
from pipeline import product, resolve
from pipeline.config import PipelineConfig
from pipeline.nodes import NodeId
from pipeline.runtime import environment, logs


@click.command("compile")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path(f"{product.NAME}.yaml"),
    show_default=True,
    help="The file to write.",
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="Settings in TOML, see kubeflow/configs/example.toml.",
)
@click.option("--image", help="Image of every node. [default: kubeflow.image of the settings]")
@click.option("--gpu-image", help="Image of the nodes that have GPUs.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="A copy of the data: its fingerprint, image size and classes. [default: <root>/data/<dataset>]",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. kubeflow.node.cpu=4."
)
def compile_command(
    output: Path,
    file: Path | None,
    image: str | None,
    gpu_image: str | None,
    data_dir: Path | None,
    settings: tuple[str, ...],
) -> None:
    """Compile the pipeline for open-source Kubeflow Pipelines.

    Exit code: 0 written, 2 the settings or the definition do not suit Kubeflow.
    """
    named = {"kubeflow.image": image, "kubeflow.gpu_image": gpu_image}
    config, kubeflow = kubeflow_settings.load(
        file, [f"{key}={value}" for key, value in named.items() if value] + list(settings)
    )
    config = resolve.for_a_cluster(config, data_dir, kubeflow.of(NodeId.TRAINER).workers)
    text = compiled_text(config, kubeflow)
    files.write_text(output, text)
    click.echo(f"compiled into {output}")
    if config.data.fingerprint:
        click.echo(f"fingerprint of the data: {config.data.fingerprint}")


def compiled_text(config: PipelineConfig, kubeflow: KubeflowConfig) -> str:
    """The text of the compiled file."""
    # TensorFlow speaks to the terminal when it is imported; there is nothing of use in it.
    with logs.redirected(Path(os.devnull)), environment.heavy_imports():
        from kubeflow.compile import compile_pipeline

        return compile_pipeline(config, kubeflow).to_yaml()
