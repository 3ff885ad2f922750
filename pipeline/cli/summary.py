"""What a person reads at the end of a run."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from components.shared import model_store
from pipeline import product
from pipeline.errors import REJECTED
from pipeline.history import verdict
from pipeline.local.outcome import Outcome


def show_outcome(console: Console, outcome: Outcome, log: Path) -> int:
    """Print the summary of a run that reached its end; returns the exit code: 0 pushed, 1 refused."""
    judged = outcome.verdict
    assert judged is not None
    assert outcome.report is not None
    weakest = judged.weakest_class
    console.print(
        f"\naccuracy       {judged.accuracy.value:.4f} on {judged.accuracy.examples:,} test images\n"
        f"weakest class  {judged.name_of(weakest)}, at {judged.class_accuracy[weakest].value:.4f}"
    )
    if lite := judged.lite:
        console.print(
            f"on devices     {lite.accuracy.value:.4f}, {lite.size_bytes / 1000:,.0f} kB, "
            f"{lite.latency_ms:.2f} ms an image"
        )
    if judged.baseline:
        console.print(
            f"in production  {judged.baseline.accuracy.value:.4f}, version {judged.baseline.version}",
            soft_wrap=True,
        )
    if outcome.pushed is None:
        console.print("verdict        [bold red]refused[/]: not pushed")
        for gate in judged.failed:
            console.print(f"               {verdict.line(gate)}", soft_wrap=True)
        if outcome.not_servable:
            console.print(f"               served: {outcome.not_servable}", markup=False, soft_wrap=True)
        console.print(f"report         {_short(outcome.report)}\nlog            {_short(log)}")
        return REJECTED
    model, served = _short(outcome.pushed), outcome.pushed.parent
    cached = ", everything from the cache" if outcome.all_cached else ""
    newest = model_store.newest(served)
    overtaken = (
        f"               (version {newest.number} is newer, and served)\n"
        if newest and newest.number > int(model.name)
        else ""
    )
    console.print(
        f"verdict        [bold green]blessed[/] and pushed{cached}\n"
        f"model          {model}\n"
        f"{overtaken}"
        f"report         {_short(outcome.report)}\n"
        f"log            {_short(log)}\n"
        f"next           {_short(Path(sys.prefix))}/bin/{product.NAME} serve --model-dir {_short(served)}"
    )
    return 0


def _short(path: Path) -> Path:
    """The path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
