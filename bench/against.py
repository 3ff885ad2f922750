"""Any benchmark on this checkout and on that of another commit, in turns: what a change cost.

    python -m bench.against COMMIT bench.run --pairs 1
    python -m bench.against HEAD~1 --turns 3 bench.imports

Both use this environment. Each line that a benchmark prints is a name and a number; the table has its
median here, there, and the median of the ratios of each turn: a machine that gets slower slows both.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent.parent
LINE = re.compile(r"^\s*(?P<name>\S.*?)\s{2,}(?P<number>[\d,]+(?:\.\d+)?)(?P<percent>%)?(?:\s|$)")


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The files of a commit in a folder of their own, with the data of this one."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "code")
        archive = subprocess.run(["git", "archive", commit], cwd=HERE, stdout=subprocess.PIPE, check=True)
        folder.mkdir()
        subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
        (folder / "var").mkdir()
        (folder / "var/data").symlink_to(HERE / "var/data")
        yield folder


def numbers(code: Path, command: list[str]) -> dict[str, float]:
    """What a benchmark of a checkout prints, by the names of its lines."""
    # Before the environment, whose own entry leads here.
    environment = os.environ | {"PYTHONPATH": str(code)}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=code,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return read(done.stdout)


def read(output: str) -> dict[str, float]:
    """The first number of each line that has a name and a number."""
    found: dict[str, float] = {}
    for line in output.splitlines():
        if match := LINE.match(line):
            name = match["name"]
            # Two tables may have lines of the same name.
            while name in found:
                name += "'"
            found[name] = float(match["number"].replace(",", ""))
    return found


def arguments(words: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """This program's options, before or after the names, and the benchmark's command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("commit")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("benchmark", help="a module of bench; its options follow")
    options, its_own = parser.parse_known_args(words)
    return options, [options.benchmark, *its_own]


def main() -> None:
    """Measure and print."""
    options, command = arguments()
    here: list[dict[str, float]] = []
    there: list[dict[str, float]] = []
    with checkout(options.commit) as folder:
        for turn in range(options.turns):
            # Who goes first changes: what comes after a long load may be slower.
            for side, code in ((here, HERE), (there, folder))[:: -1 if turn % 2 else 1]:
                side.append(numbers(code, command))
    print(f"{'':32}{'here':>12}{options.commit[:11]:>12}{'ratio':>8}")
    for name in here[0]:
        pairs = [(a[name], b[name]) for a, b in zip(here, there, strict=True) if name in a and name in b]
        if not pairs:
            print(f"{name:32}{statistics.median(turn[name] for turn in here):12.2f}{'-':>12}{'-':>8}")
            continue
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [a / b for a, b in pairs if b]
        ratio = f"{statistics.median(ratios):8.2f}" if ratios else f"{'-':>8}"
        print(f"{name:32}{ours:12.2f}{theirs:12.2f}{ratio}")


if __name__ == "__main__":
    main()
