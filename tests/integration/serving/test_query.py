"""`mnist query` as a person types it, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.image_example_gen.sources import idx
from tests.integration.serving.model_server import Served

pytest_plugins = ("tests.integration.serving.mnist_server",)

Query = Callable[..., subprocess.CompletedProcess[bytes]]
MNIST = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]


@pytest.fixture(params=["--grpc", "--rest"])
def query(request: pytest.FixtureRequest, served: Served, mnist_dir: Path) -> Query:
    """Runs the command by one of the two APIs."""
    port = served.server.grpc_port if request.param == "--grpc" else served.server.rest_port

    def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [*MNIST, "query", request.param, "--port", str(port), "--data-dir", str(mnist_dir)]
        return subprocess.run([*command, *arguments], input=stdin, capture_output=True, check=False)

    return run


@pytest.fixture(scope="module")
def digits(mnist_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first 20 test digits, and their labels."""
    images = next(idx.read_images(mnist_dir / "t10k-images-idx3-ubyte", 20))
    return images, next(idx.read_labels(mnist_dir / "t10k-labels-idx1-ubyte", 20))


@pytest.fixture
def pictures(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    """A folder: a photo-like JPEG of the 7, an inverted PNG of the 2, and something else."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    seven, two = (np.kron(image, np.ones((9, 9), np.uint8)) for image in digits[0][:2])
    Image.fromarray(np.pad(seven, ((40, 90), (200, 10)))).convert("RGB").save(folder / "a.JPG", "JPEG")
    Image.fromarray(255 - two).save(folder / "b.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def failure(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line of a command that failed."""
    text = done.stderr.decode()
    assert done.returncode == 2, text
    assert text.count("\n") == 1, text
    assert text.startswith("mnist: ")
    assert done.stdout == b""
    return text


def test_a_folder_as_json(query: Query, pictures: Path, served: Served) -> None:
    done = query("--json", str(pictures))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [Path(result["image"]).name for result in results] == ["a.JPG", "b.png"]
    assert [result["class"] for result in results] == [7, 2]
    for result in results:
        assert result["label"] is None
        assert result["version"] == served.version
        assert sum(result["probabilities"]) == pytest.approx(1, abs=1e-4)
        assert (
            max(result["probabilities"])
            == result["probability"]
            == result["probabilities"][result["class"]]
        )
        assert result["latency_ms"] > 0


def test_digits_of_the_test_set_come_with_their_labels(
    query: Query, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    arguments = [part for index in (3, 0, 12) for part in ("--test-index", str(index))]
    results = json.loads(query("--json", *arguments).stdout)
    assert [result["image"] for result in results] == ["test 3", "test 0", "test 12"]
    assert [result["label"] for result in results] == digits[1][[3, 0, 12]].tolist()
    assert [result["class"] for result in results] == digits[1][[3, 0, 12]].tolist()


def test_standard_input_and_the_table(query: Query, pictures: Path) -> None:
    done = query("-", "--show", "--test-index", "0", stdin=(pictures / "b.png").read_bytes())
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    drawing, table = text.split("image  ", 1)
    assert drawing.startswith("standard input\n")
    assert "@@" in drawing
    rows = table.splitlines()
    assert rows[1].split()[:3] == ["standard", "input", "2"]
    assert rows[2].split()[:4] == ["test", "0", "7", "7"]
    assert "█" in rows[1]
    assert "%" in rows[1]
    assert text.rstrip().splitlines()[-1].startswith("answered by version ")


def test_the_likeliest_classes_have_their_names(
    query: Query, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    Image.fromarray(digits[0][0]).save(tmp_path / "seven.png")
    (result,) = json.loads(query("--top", "3", "--json", str(tmp_path / "seven.png")).stdout)
    assert (result["class"], result["name"]) == (7, "7")
    assert result["top"][0]["name"] == "7"
    shares = [each["probability"] for each in result["top"]]
    assert shares == sorted(result["probabilities"], reverse=True)[:3]
    rows = query("--top", "3", str(tmp_path / "seven.png")).stdout.decode().splitlines()
    assert len(rows) == 5
    assert rows[0].split() == ["image", "class", "probability", "ms"]


def test_what_is_shown_is_what_the_network_gets(
    query: Query, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """The test set's own picture, and the same one as a photo."""
    Image.fromarray(255 - np.kron(digits[0][0], np.ones((9, 9), np.uint8))).save(tmp_path / "photo.png")
    drawn = query("--show", "--test-index", "0", str(tmp_path / "photo.png")).stdout.decode()
    photo, own = drawn.split("image  ")[0].split("test 0\n")
    lines = own.splitlines()
    assert len(lines) == 28
    same = sum(one == other for one, other in zip(photo.splitlines()[1:], lines, strict=True))
    assert same >= 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no picture"),
        (["missing.png"], "missing.png: No such file"),
        (["{pictures}/notes.txt"], "notes.txt: Unknown image file format"),
        (["{empty}"], "no PNG, JPEG, WEBP, BMP or GIF file in this folder"),
        (["{blank}"], "blank.png: blank"),
        (["-"], "standard input: Input is empty"),
        (["--test-index", "10000"], "has 10000 images"),
        (["--test-index", "0", "--data-dir", "nowhere"], "nowhere: there is no such folder"),
        (["--test-index", "0", "--model", "nobody"], "Servable not found for request: Latest(nobody)"),
        (["--test-index", "0", "--version", "3"], "Specific(mnist, 3)"),
        (["--test-index", "0", "--label", "canary"], "Unrecognized servable version label: canary"),
        (["--test-index", "0", "--label", "canary", "--version", "3"], "a version or a label, not both"),
        (["--test-index", "0", "--ca", "missing.pem"], "missing.pem: No such file"),
    ],
)
def test_mistakes_are_one_line(
    query: Query, pictures: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "empty").mkdir()
    Image.new("L", (40, 40), 90).save(tmp_path / "blank.png")
    places = {"pictures": pictures, "empty": tmp_path / "empty", "blank": tmp_path / "blank.png"}
    assert says in failure(query(*(argument.format(**places) for argument in arguments)))


def test_pictures_that_cannot_be_read_are_named_and_the_others_answered(
    query: Query, pictures: Path
) -> None:
    """Hidden files, as macOS leaves them beside pictures, are none."""
    Image.new("L", (40, 40), 90).save(pictures / "aa-blank.png")
    (pictures / "broken.png").write_bytes((pictures / "b.png").read_bytes()[:60])
    (pictures / "folder.png").mkdir()
    (pictures / "._b.png").write_bytes(b"no picture")

    done = query("--json", str(pictures))

    assert done.returncode == 1
    assert [result["class"] for result in json.loads(done.stdout)] == [7, 2]
    folder, blank, broken = done.stderr.decode().splitlines()
    assert folder == f"mnist: {pictures}/folder.png: Is a directory"
    assert blank == f"mnist: {pictures}/aa-blank.png: blank: no digit to be seen"
    assert broken.startswith(f"mnist: {pictures}/broken.png: ")
    assert "PNG" in broken


@pytest.mark.parametrize("host", ["localhost:{rest}", "http://localhost:{rest}", "127.0.0.1:{grpc}"])
def test_an_address_may_have_its_port(host: str, served: Served, pictures: Path) -> None:
    ports = {"rest": served.server.rest_port, "grpc": served.server.grpc_port}
    api = ["--rest"] if host == "localhost:{rest}" else []  # its port is none that is known
    command = [*MNIST, "query", *api, "--host", host.format(**ports), str(pictures / "b.png"), "--json"]
    done = subprocess.run(
        command, env=os.environ | {"http_proxy": "http://127.0.0.1:9"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [result["class"] for result in json.loads(done.stdout)] == [2]


def test_nobody_listening_is_one_line_and_soon() -> None:
    began_at = time.monotonic()
    command = [*MNIST, "query", "--port", "1", "--test-index", "0", "--data-dir", "var/data/mnist"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert "no server answers at 127.0.0.1:1 by gRPC" in failure(done)
    assert time.monotonic() - began_at < 5


def test_help_loads_nothing_heavy() -> None:
    script = """
import sys
from click.testing import CliRunner
from pipeline.cli.main import main
result = CliRunner().invoke(main, ["query", "--help"])
assert result.exit_code == 0, result.output
heavy = {"tensorflow", "tfx", "apache_beam", "ml_metadata"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)
