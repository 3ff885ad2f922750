"""`mnist`: the command line. Each command is a page in pipeline/commands: parse, call, report."""

from __future__ import annotations

import click

from pipeline.cli.batch import batch
from pipeline.cli.data import data
from pipeline.cli.monitor import monitor
from pipeline.cli.query import query
from pipeline.cli.report import report
from pipeline.cli.rollback import rollback
from pipeline.cli.run import run
from pipeline.cli.runs import runs
from pipeline.cli.tune import tune
from pipeline.commands.compile import compile_command
from pipeline.commands.kubeflow import kubeflow
from pipeline.commands.submit import schedule, submit
from serving.command import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """MNIST from IDX files to a served model: one TFX pipeline, here or on Kubeflow."""


main.add_command(batch)
main.add_command(compile_command)
main.add_command(data)
main.add_command(kubeflow)
main.add_command(monitor)
main.add_command(query)
main.add_command(report)
main.add_command(rollback)
main.add_command(run)
main.add_command(runs)
main.add_command(schedule)
main.add_command(serve)
main.add_command(submit)
main.add_command(tune)
