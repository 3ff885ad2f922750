"""What a benchmark printed is read as names and numbers, and another commit's files lie in a folder."""

from __future__ import annotations

import subprocess

import pytest

from bench import against

PRINTED = """
ImageExampleGen                   1.2 s
mnist run, cold                  39.6 s   49.9 s of CPU, peak 1.42 GB
  they add                          11%     goal: at most 25 %
  Evaluator, images/s             1,200
  Evaluator, images/s             1,300
a line without a number
"""


def test_lines_with_a_name_and_a_number_are_read() -> None:
    assert against.read(PRINTED) == {
        "ImageExampleGen": 1.2,
        "mnist run, cold": 39.6,
        "they add": 11.0,
        "Evaluator, images/s": 1200.0,
        "Evaluator, images/s'": 1300.0,
    }


@pytest.mark.slow
def test_the_files_of_a_commit_are_there_while_it_is_measured() -> None:
    with against.checkout("HEAD") as folder:
        committed = subprocess.run(
            ["git", "show", "HEAD:bench/run.py"], cwd=against.HERE, stdout=subprocess.PIPE, check=True
        )
        assert (folder / "bench/run.py").read_bytes() == committed.stdout
        assert (folder / "var/data").is_symlink()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "turns", "command"),
    [
        ("HEAD~1 --turns 3 bench.imports", 3, "bench.imports"),
        ("HEAD~1 bench.run --pairs 1", 1, "bench.run --pairs 1"),
        ("--turns 2 HEAD~1 bench.run --pairs 1 --stock", 2, "bench.run --pairs 1 --stock"),
    ],
)
def test_options_of_both_programs_are_told_apart(words: str, turns: int, command: str) -> None:
    options, its_own = against.arguments(words.split())
    assert (options.commit, options.turns, its_own) == ("HEAD~1", turns, command.split())
