"""The commands of README.md and docs/: each is one that the parser takes, and the cheap ones run.

A fenced block of `bash` is run, line by line, in a folder with this repository's files. A block whose fence
says `bash notest: reason` (or `console`, with the output below each command) is only parsed: options exist,
settings are known, files of the repository are there. Python is compiled, and what it imports is there.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kubeflow import settings as kubeflow_settings
from pipeline.cli.main import PAGES, main
from pipeline.config import PipelineConfig, with_settings
from serving import tensorflow_model_server
from tests.unit.kubeflow import kfp_server

ROOT = Path(__file__).parents[2]
PROGRAM = "mnist"  # as the pages have it; a fork's has another name
PAGES_OF_TEXT = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NOT_RUN = "notest:"
ROOMS = ("bench", "components", "docs", "kubeflow", "pipeline", "serving", "setup", "tests", "trainer")
_FENCE = re.compile(r"^( *)```(.*)$")
_INLINE = re.compile(rf"`((?:{PROGRAM}|make) [^`]*)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: the words behind its fence, and its lines."""

    page: Path
    line: int
    info: str
    lines: tuple[str, ...]

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    def commands(self) -> Iterator[str]:
        """The command lines, continued ones joined; in a `console` those behind a `$`."""
        text = "\n".join(self.lines).replace("\\\n", " ")
        if self.language == "console":
            yield from re.findall(r"^\$ (.*)$", text, re.MULTILINE)
        else:
            # A quoted text that begins with a new line is not looked at.
            yield from re.sub(r"'\n[^']*'", "QUOTED", text).split("\n")

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES_OF_TEXT:
        begin: tuple[int, str, str] | None = None
        lines: list[str] = []
        for number, line in enumerate(page.read_text().splitlines(), 1):
            fence = _FENCE.match(line)
            if begin is None and fence:
                begin, lines = (number, fence[1], fence[2]), []
            elif begin is not None and fence:
                yield Block(page, begin[0], begin[2], tuple(lines))
                begin = None
            elif begin is not None:
                lines.append(line.removeprefix(begin[1]))
        assert begin is None, f"{page}: a block is not closed"


SHELL = [block for block in blocks() if block.language in ("bash", "console")]
RUN = [block for block in SHELL if NOT_RUN not in block.info]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, without variables before it, comments and `…`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set(";&|<>()"):
            words.append(word)
        elif words:
            while re.match(r"^\w+=", words[0]) and len(words) > 1:
                del words[0]
            yield [word for word in words if word != "…"]
            words = []


def parse(words: list[str]) -> click.Context:
    """What click makes of a command line, up to where the command would be called."""
    command: click.Command = main
    context = main.make_context(PROGRAM, words, ignore_unknown_options=False)
    while isinstance(command, click.Group):
        words = [*context._protected_args, *context.args]
        if not words and command.invoke_without_command:
            break
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = command.make_context(name, list(words), parent=context)
    return context


def check_words(words: list[str]) -> None:
    """Fail where a command would be refused before it does anything."""
    program = Path(words[0]).name
    if program == PROGRAM:
        try:
            context = parse(words[1:])
        except click.exceptions.Exit:  # --help
            return
        given = context.params.get("settings") or ()
        if context.info_name == "compile":
            kubeflow_settings.load(None, given)
        else:
            with_settings(PipelineConfig(), given)
    elif program == tensorflow_model_server.PROGRAM:
        tensorflow_model_server._parser().parse_args(words[1:])
    elif program == "make":
        done = subprocess.run(
            ["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    for word in words:
        path = re.sub(r"^.*=", "", word)
        if path.partition("/")[0] in ROOMS and "/" in path and not re.search(r"[<*…]", path):
            assert (ROOT / path).exists(), path


@pytest.fixture
def any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options take files that are not here."""
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, *_: Path(value))


@pytest.mark.usefixtures("any_path")
@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_parser_takes_each_command(block: Block) -> None:
    for line in block.commands():
        for words in simple_commands(line):
            check_words(words)


def test_a_block_says_what_it_is() -> None:
    for block in blocks():
        assert block.info, f"{block}: a fence without a language"
        assert block.language != "sh", f"{block}: commands are `bash` or `console`"
    for block in SHELL:
        reason = block.info.partition(NOT_RUN)[2].strip()
        assert block in RUN or reason, f"{block}: why is it not run?"


@pytest.mark.parametrize(
    # The changelog names what is gone, too.
    "page",
    [page for page in PAGES_OF_TEXT if page.name != "CHANGELOG.md"],
    ids=lambda page: page.name,
)
def test_commands_named_in_the_text_exist(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for inline in _INLINE.findall(text):
        program, *words = inline.split()
        if program == "make":
            check_words([program, *words])
            continue
        command: click.Command = main
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words[0])
            assert found, f"`{inline}`: no such command"
            command, words = found, words[1:]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        for word in words:
            option = word.partition("=")[0]
            assert not option.startswith("--") or option in known | {"--help"}, f"`{inline}`: {option}"


@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "python"], ids=str)
def test_python_compiles_and_what_it_imports_is_there(block: Block) -> None:
    for node in ast.walk(ast.parse("\n".join(block.lines))):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


@pytest.fixture
def replaced(
    tmp_path: Path, mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], str]]:
    """A folder where the commands are at home, and what stands for the names of a reader's own things."""
    (tmp_path / "kubeflow").symlink_to(ROOT / "kubeflow")
    (tmp_path / "var" / "data").mkdir(parents=True)
    (tmp_path / "var" / "data" / "mnist").symlink_to(mnist_dir)
    (tmp_path / "my.toml").write_text((ROOT / "kubeflow" / "configs" / "example.toml").read_text())
    monkeypatch.chdir(tmp_path)
    with kfp_server.running() as server:

        def replace(line: str) -> str:
            run_id = next(iter(server.runs), "no run yet")
            return line.replace("http://localhost:8080", server.url).replace(" RUN ", f" {run_id} ")

        yield replace


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_runs(block: Block, replaced: Callable[[str], str]) -> None:
    for line in block.commands():
        for program, *words in simple_commands(replaced(line)):
            assert program == PROGRAM, f"{block}: {program} is not run; say {NOT_RUN} and why"
            result = CliRunner().invoke(main, words)
            assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mnist run --receipe fast", "--receipe"),
        ("mnist run --set trainer.epoks=3", "trainer.epoks"),
        ("mnist compile --set kubeflow.node.gpuss=1", "gpuss"),
        ("mnist trane", "trane"),
        ("A=1 mnist kubeflow status", "run_id"),
        ("make no-such-target", "no-such-target"),
        ("cd x && kubectl apply -k kubeflow/manifests/gone", "gone"),
        ("tensorflow_model_server --prot=1", "prot"),
    ],
)
def test_the_check_finds_what_is_wrong(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((Exception, SystemExit)) as raised:
        check_words(list(simple_commands(line))[-1])
    assert said in str(raised.value) + capsys.readouterr().err


def test_every_command_is_in_a_document() -> None:
    text = "\n".join(page.read_text() for page in PAGES_OF_TEXT)
    missing = [name for name in PAGES if not re.search(rf"\b{PROGRAM} {name}\b", text)]
    assert not missing
