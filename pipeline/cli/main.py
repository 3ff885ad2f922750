"""The command line: a page a command, imported when it is called.

`--help` needs no page: the line about each command stands here with its place.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import click

from pipeline import product
from pipeline.errors import BAD_INPUT
from pipeline.runtime import environment, gpus, process


class Page(NamedTuple):
    """Where a command is, as `module:name`, the first sentence of its help, whether it computes on GPUs."""

    place: str
    help: str
    uses_gpus: bool = False


PAGES = {
    "batch": Page(
        "pipeline.cli.batch:batch",
        "Ask the pushed model about many pictures, one JSON line each, in their order.",
        uses_gpus=True,
    ),
    "compile": Page(
        "kubeflow.cli.compile:compile_command",
        "Compile the pipeline for open-source Kubeflow Pipelines.",
    ),
    "data": Page("pipeline.cli.data:data", "Data sets: fetch, make and check."),
    "kubeflow": Page("kubeflow.cli.kubeflow:kubeflow", "Runs of a compiled pipeline."),
    "monitor": Page(
        "pipeline.cli.monitor:monitor", "Compare logged requests with what the model was trained on."
    ),
    "query": Page("pipeline.cli.query:query", "Ask a model server what is on pictures."),
    "report": Page("pipeline.cli.report:report", "Find the report of a run and print its path."),
    "rollback": Page(
        "pipeline.cli.rollback:rollback",
        "Make an earlier pushed version the newest again; without VERSION, the one before the newest.",
    ),
    "rollout": Page(
        "kubeflow.cli.rollout:rollout", "Watch a canary of KServe, then send all requests to it, or none."
    ),
    "run": Page("pipeline.cli.run:run", "Run the whole pipeline on this machine, up to a pushed model."),
    "runs": Page("pipeline.cli.runs:runs", "List past runs; `show` looks at one, `diff` at two."),
    "schedule": Page("kubeflow.cli.schedule:schedule", "Run a compiled pipeline again and again."),
    "serve": Page(
        "serving.cli:serve",
        "Serve models with TF Serving's REST and gRPC APIs, until Ctrl-C.",
        uses_gpus=True,
    ),
    "submit": Page("kubeflow.cli.submit:submit", "Start a run of a compiled pipeline (`compile`)."),
    "tune": Page(
        "pipeline.cli.tune:tune",
        "Search for a better recipe, by accuracy on the validation split, with TFX's Tuner.",
    ),
}


class Pages(click.Group):
    """Commands by name, as click's "Lazily Loading Subcommands" has it; a user's error is one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names, in the order of `--help`."""
        return sorted(PAGES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the page of a command."""
        if cmd_name not in PAGES:
            return None
        module, _, name = PAGES[cmd_name].place.partition(":")
        if gpus.present() and not PAGES[cmd_name].uses_gpus:
            gpus.hide()  # from all but the Trainer's process
        with environment.heavy_imports(), process.silent_errors():
            command: click.Command = getattr(importlib.import_module(module), name)
            if tensorflow := sys.modules.get("tensorflow"):
                tensorflow.config.list_physical_devices()  # complains about CUDA where there is no GPU
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, PAGES[name].help) for name in sorted(PAGES)])

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Begin, in a process that is ready for it: without `args`, they are those of the process."""
        if args is None:
            process.prepare()
        try:
            return super().main(args, **extra)
        except process.OutputError as error:
            _say(error)
            sys.exit(error.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        """Call a command; what a person can put right is one line, anything else is a fault of ours."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (BrokenPipeError, process.OutputError):
            raise  # click ends quietly where the reader of its output has gone
        except OSError as error:
            message, code = f"{error.filename or 'system'}: {error.strerror or error}", BAD_INPUT
        except Exception as error:
            if not hasattr(error, "exit_code"):
                raise
            message, code = str(error), error.exit_code
        _say(message)
        return ctx.exit(code)


def _say(message: object) -> None:
    with suppress(OSError):  # nobody may be there to read it
        click.echo(f"{product.NAME}: {message}", err=True)


@click.group(
    cls=Pages,
    help=product.SUMMARY,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        # The server knows no other room, and so not the product's name.
        "default_map": {
            "serve": {
                "model_dir": f"var/serving/{product.NAME}",
                "data_dir": f"var/data/{product.DATASET}",
            }
        },
    },
)
@click.version_option(product.VERSION, prog_name=product.NAME)
def main() -> None:
    """Call a command."""
