"""What a run came to, and how it is told at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2
from rich.console import Console
from tfx.orchestration.pipeline import Pipeline

from pipeline import local, verdict


@dataclass(frozen=True)
class Summary:
    """The outcome of a run that went through every node."""

    verdict: verdict.Verdict
    pushed: Path | None  # the version folder, None where the model was refused
    seconds: float
    all_cached: bool


def collect(pipeline: Pipeline, nodes: dict[str, local.NodeRun]) -> Summary:
    """Read the outcome of a finished run from its artifacts."""

    def only_output(node: str, key: str) -> metadata_store_pb2.Artifact:
        execution_id = nodes[node].execution_id
        assert execution_id is not None
        (artifact,) = local.output_artifacts(pipeline, execution_id, key)
        return artifact

    judged = verdict.read(only_output("Evaluator", "evaluation").uri)
    pushed = only_output("Pusher", "pushed_model").custom_properties
    return Summary(
        verdict=judged,
        pushed=Path(pushed["pushed_destination"].string_value) if pushed["pushed"].int_value else None,
        seconds=sum(node.seconds for node in nodes.values()),
        all_cached=all(node.state == local.CACHED for node in nodes.values()),
    )


def show(console: Console, summary: Summary, log: Path) -> int:
    """Print the summary; returns the exit code: 0 pushed, 1 refused."""
    judged = summary.verdict
    weakest = judged.weakest_class
    console.print()
    console.print(
        f"accuracy       {judged.accuracy:.4f} on {judged.examples:,} test images\n"
        f"weakest digit  {weakest}, at {judged.class_accuracy[weakest]:.4f}"
    )
    if summary.pushed is None:
        console.print("verdict        [bold red]refused[/]: not pushed")
        for gate in judged.failed:
            console.print(f"               {gate}")
        console.print(f"log            {_short(log)}")
        return 1
    cached = ", everything from the cache" if summary.all_cached else ""
    console.print(
        f"verdict        [bold green]blessed[/] and pushed{cached}\n"
        f"model          {_short(summary.pushed)}\n"
        f"log            {_short(log)}\n"
        f"next           saved_model_cli show --dir {_short(summary.pushed)} --all"
    )
    return 0


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
