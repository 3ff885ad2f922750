"""`mnist query`: pictures to a model server, and its answers as a table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.bar import Bar
from rich.console import RenderableType
from rich.markup import escape

from components.image_example_gen.sources import idx
from pipeline import product
from pipeline.cli import address
from pipeline.cli.tables import Column, print_table
from pipeline.errors import REJECTED, UserError
from pipeline.runtime.process import LOOPBACK
from serving.client import Client, Metadata, Tls, pictures
from serving.protocol.errors import Code, ServingError
from trainer import features

STDIN = "-"
BAR_WIDTH = 20  # characters
SHADES = " .:-=+*#%@"


@dataclass(frozen=True)
class Picture:
    """A picture before it is asked about.

    Attributes:
        name: for the table.
        grey: uint8 [h, w].
        label: the true class where it is known.
        ready: is from the data set, so it has the model's size already.
    """

    name: str
    grey: NDArray[np.uint8]
    label: int | None = None
    ready: bool = False


@dataclass(frozen=True)
class Result:
    """One answer; the field names are the keys of `--json`."""

    image: str
    label: int | None
    digit: int
    probability: float
    probabilities: list[float]
    version: int
    latency_ms: float


@click.command()
@click.argument("images", nargs=-1, metavar="IMAGE…")
@click.option(
    "--test-index",
    "test_indices",
    multiple=True,
    type=click.IntRange(0),
    metavar="N",
    help="A digit of the test set instead of a file; repeatable.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path("var/data", product.DATASET),
    show_default=True,
    help="Folder of the IDX files that --test-index reads.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The server: name, name:port, or http://name:port, which means REST.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Its port. [default: 8500, with --rest 8501]")
@click.option(
    "--grpc/--rest", "grpc", default=None, help="Which API to use. [default: grpc, but rest on port 8501]"
)
@click.option("--model", default=product.NAME, show_default=True, help="Name of the model.")
@click.option(
    "--version", type=click.IntRange(0), metavar="N", help="Ask this version. [default: the newest]"
)
@click.option("--label", metavar="L", help="Ask the version that has this label.")
@click.option(
    "--center/--no-center",
    "center",
    default=True,
    help="Find the digit, scale and centre it as MNIST's were. [default: center]",
)
@click.option("--show", is_flag=True, help="Draw what the model gets.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array instead of a table.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds for a request, with its repetitions.",
)
@click.option(
    "--ca", type=click.Path(path_type=Path), help="TLS: certificates (PEM) that vouch for the server."
)
@click.option("--cert", type=click.Path(path_type=Path), help="TLS: the client's certificate (PEM).")
@click.option("--key", type=click.Path(path_type=Path), help="TLS: its key (PEM).")
def query(
    images: tuple[str, ...],
    test_indices: tuple[int, ...],
    data_dir: Path,
    host: str,
    port: int | None,
    grpc: bool | None,
    model: str,
    version: int | None,
    label: str | None,
    center: bool,
    show: bool,
    as_json: bool,
    timeout_s: float,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
) -> None:
    """Ask a model server which digits are on pictures.

    IMAGE is a PNG or JPEG file of any size, a folder of them, or - for standard input. The server is
    this program's (`serve`) or any TensorFlow Serving.

    Exit code: 0 answered, 1 some pictures could not be read, 2 bad input or no answer.
    """
    if not images and not test_indices:
        raise UserError("no picture: name files or folders, - for standard input, or --test-index N")
    server = address.parse(host, port, grpc)
    unread: list[str] = []
    with _one_line_errors(server):
        asked = [*_read_files(images, unread), *_read_test_set(data_dir, test_indices)]
        tls = Tls(ca, cert, key) if ca or cert or key or server.tls else None
        with Client(
            server.host,
            server.port,
            "grpc" if server.grpc else "rest",
            model=model,
            version=version,
            label=label,
            timeout_s=timeout_s,
            tls=tls,
        ) as client:
            inputs, results = _ask(client, asked, center, unread) if asked else ([], [])
    for line in unread if results else unread[:-1]:
        click.echo(f"{product.NAME}: {line}", err=True)
    if not results:
        raise UserError(unread[-1])
    if as_json:
        _print_json(results)
    else:
        _print_table(results, inputs if show else [])
    sys.exit(REJECTED if unread else 0)


@contextmanager
def _one_line_errors(server: address.Address) -> Iterator[None]:
    try:
        yield
    except ServingError as error:
        is_here = server.host in LOOPBACK and error.code is Code.UNAVAILABLE
        hint = f"; `{_serve(server)}` starts one" if is_here else ""
        raise UserError(f"{' '.join(error.message.split())}{hint}") from None
    except (pictures.ImageError, ValueError) as error:
        raise UserError(str(error)) from None


def _serve(server: address.Address) -> str:
    """The command that starts a server where this one was asked for, on this machine."""
    option, usual = ("--port", address.GRPC_PORT) if server.grpc else ("--rest-port", address.REST_PORT)
    return f"{product.NAME} serve" + (f" {option} {server.port}" if server.port != usual else "")


def _read_files(names: Sequence[str], unread: list[str]) -> Iterator[Picture]:
    """The pictures; what cannot be read is left out, and why goes into `unread`, a line each."""
    for argument in names:
        for file in _files(argument):
            name = "standard input" if file is None else str(file)
            content = sys.stdin.buffer.read() if file is None else file
            try:
                yield Picture(name, pictures.read(content))
            except pictures.ImageError as error:
                unread.append(f"{name}: {error}")
            except OSError as error:
                if name == argument:
                    raise
                unread.append(f"{name}: {error.strerror}")


def _files(name: str) -> list[Path | None]:
    """The files that an argument means; None is standard input."""
    if name == STDIN:
        return [None]
    path = Path(name)
    if not path.is_dir():
        return [path]
    found = pictures.picture_files(path)
    if not found:
        raise ValueError(f"{path}: no PNG or JPEG file in this folder")
    return list(found)


def _read_test_set(folder: Path, indices: Sequence[int]) -> Iterator[Picture]:
    if not indices:
        return
    files = idx.find_files(folder)
    wanted: dict[int, Picture] = {}
    first = 0
    for images, labels in idx.stream(files.test_images, files.test_labels, 1000, None):
        for index in indices:
            if first <= index < first + len(labels):
                at = index - first
                wanted[index] = Picture(f"test {index}", images[at].copy(), int(labels[at]), ready=True)
        first += len(labels)
    for index in indices:
        if index not in wanted:
            raise ValueError(f"--test-index {index}: {files.test_images} has {first} images, from 0")
        yield wanted[index]


def _ask(
    client: Client, asked: Sequence[Picture], center: bool, unread: list[str]
) -> tuple[list[NDArray], list[Result]]:
    """What the model got, uint8 [H, W] each, and what it said; blank pictures join the unread ones."""
    metadata = client.metadata()
    size = _input_size(metadata, client.target.model)
    inputs, results = [], []
    for picture in asked:
        try:
            image = _fitted(picture, size, center)
        except pictures.ImageError as error:
            unread.append(f"{picture.name}: {error}")
            continue
        answer = client.predict({features.IMAGE: image[np.newaxis]}, features.SIGNATURE_PIXELS)
        probabilities = [float(p) for p in answer.outputs[features.PROBABILITIES][0]]
        best = int(answer.outputs[features.CLASSES][0])
        inputs.append(image)
        results.append(
            Result(
                image=picture.name,
                label=picture.label,
                digit=best,
                probability=probabilities[best],
                probabilities=probabilities,
                version=answer.version or metadata.version,
                latency_ms=answer.latency_s * 1e3,
            )
        )
    return inputs, results


def _input_size(metadata: Metadata, model: str) -> tuple[int, int]:
    """Height and width of the images that the model takes, in pixels."""
    signature = metadata.signatures.get(features.SIGNATURE_PIXELS)
    tensor = signature.inputs.get(features.IMAGE) if signature else None
    if tensor is None or tensor.shape is None or len(tensor.shape) != 3 or None in tensor.shape[1:]:
        raise ValueError(
            f"model {model} is none of this pipeline's: it has no signature "
            f"{features.SIGNATURE_PIXELS!r} with an input {features.IMAGE!r} of [N, height, width]"
        )
    _, height, width = tensor.shape
    assert height is not None
    assert width is not None
    return height, width


def _fitted(picture: Picture, size: tuple[int, int], center: bool) -> NDArray[np.uint8]:
    if center and not picture.ready:
        return pictures.normalise(picture.grey, *size)
    if picture.grey.shape != size:
        found, wanted = (" x ".join(map(str, shape)) for shape in (picture.grey.shape, size))
        remedy = "leave --no-center away" if not picture.ready else "it is of another data set"
        raise ValueError(
            f"{picture.name}: {found} pixels (height x width), but the model takes {wanted}: {remedy}"
        )
    return picture.grey


def _print_json(results: Sequence[Result]) -> None:
    click.echo(json.dumps([asdict(result) for result in results], indent=2))


def _print_table(results: Sequence[Result], thumbnails: Sequence[NDArray[np.uint8]]) -> None:
    for result, pixels in zip(results, thumbnails, strict=False):
        click.echo(f"{result.image}\n{_thumbnail(pixels)}")
    labelled = any(result.label is not None for result in results)
    columns = [
        Column("image", folds=True),
        Column("digit", right=True, style="bold"),
        *([Column("label", right=True)] if labelled else []),
        Column("probability", right=True),
        Column("", spare=2),
        Column("runner-up", right=True),
        Column("ms", right=True, spare=1),
    ]
    rows: list[list[RenderableType]] = [
        [
            escape(result.image),
            str(result.digit),
            *([_label(result)] if labelled else []),
            f"{result.probability:.1%}",
            Bar(1.0, 0.0, result.probability, width=BAR_WIDTH),
            _runner_up(result),
            f"{result.latency_ms:.1f}",
        ]
        for result in results
    ]
    print_table(columns, rows)
    versions = sorted({result.version for result in results})
    click.echo(f"answered by version {', '.join(map(str, versions))}")


def _label(result: Result) -> str:
    if result.label is None:
        return ""
    return str(result.label) if result.label == result.digit else f"[red]{result.label}[/]"


def _runner_up(result: Result) -> str:
    others = [(p, digit) for digit, p in enumerate(result.probabilities) if digit != result.digit]
    if not others:
        return ""
    probability, digit = max(others)
    return f"{digit} ({probability:.1%})"


def _thumbnail(pixels: NDArray[np.uint8]) -> str:
    """Two characters for a pixel, since characters are about twice as high as wide."""
    return "\n".join(
        "".join(SHADES[int(v) * len(SHADES) // 256] * 2 for v in row).rstrip() for row in pixels
    )
