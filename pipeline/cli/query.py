"""`mnist query`: picture files to a model server, and its answers as a table or as JSON."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.bar import Bar
from rich.console import RenderableType
from rich.markup import escape

from components.image_example_gen.sources import idx, idx_pairs
from components.shared import tensorflow_errors
from pipeline import picture_files, product
from pipeline.cli import address
from pipeline.cli.tables import Column, print_table
from pipeline.errors import REJECTED, UserError
from pipeline.runtime.process import LOOPBACK
from serving.client import Answer, Client, Metadata, Tls
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
        inputs: of the signature, one row.
        signature: that takes it: files, or arrays of the data set.
        label: the true class where it is known.
    """

    name: str
    inputs: dict[str, Any]
    signature: str
    label: int | None = None


@dataclass(frozen=True)
class Result:
    """One answer; what `--json` prints.

    Attributes:
        image: name of the picture.
        label: the true class, None where it is not known.
        best: the class.
        names: of all classes, by label.
        probabilities: of all classes.
        version: that answered.
        latency_ms: of the request.
        pixels: what the network got, uint8 [H, W] or [H, W, 3], where that was asked for.
    """

    image: str
    label: int | None
    best: int
    names: Sequence[str]
    probabilities: list[float]
    version: int
    latency_ms: float
    pixels: NDArray[np.uint8] | None = None

    @property
    def probability(self) -> float:
        """Of the class."""
        return self.probabilities[self.best]

    def likeliest(self, count: int) -> list[int]:
        """The classes with the highest probabilities, highest first."""
        order = sorted(range(len(self.probabilities)), key=lambda label: -self.probabilities[label])
        return order[:count]

    def as_json(self, top: int | None) -> dict[str, Any]:
        """For json.dumps."""
        found: dict[str, Any] = {
            "image": self.image,
            "label": self.label,
            "class": self.best,
            "name": self.names[self.best],
            "probability": self.probability,
            "probabilities": self.probabilities,
            "version": self.version,
            "latency_ms": self.latency_ms,
        }
        if top:
            found["top"] = [
                {"class": label, "name": self.names[label], "probability": self.probabilities[label]}
                for label in self.likeliest(top)
            ]
        return found


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
@click.option("--top", type=click.IntRange(1), metavar="K", help="The K likeliest classes of each picture.")
@click.option("--show", is_flag=True, help="Draw what the network gets.")
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
    top: int | None,
    show: bool,
    as_json: bool,
    timeout_s: float,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
) -> None:
    """Ask a model server what is on pictures.

    IMAGE is a picture file of any size, a folder of them, or - for standard input; the model's graph scales
    it. The server is this program's (`serve`) or any TensorFlow Serving.

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
            results = _ask(client, asked, show, unread) if asked else []
    for line in unread if results else unread[:-1]:
        click.echo(f"{product.NAME}: {line}", err=True)
    if not results:
        raise UserError(unread[-1])
    if as_json:
        click.echo(json.dumps([result.as_json(top) for result in results], indent=2))
    else:
        _print_table(results, top)
    sys.exit(REJECTED if unread else 0)


@contextmanager
def _one_line_errors(server: address.Address) -> Iterator[None]:
    try:
        yield
    except ServingError as error:
        is_here = server.host in LOOPBACK and error.code is Code.UNAVAILABLE
        hint = f"; `{_serve(server)}` starts one" if is_here else ""
        raise UserError(f"{' '.join(error.message.split())}{hint}") from None
    except ValueError as error:
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
            try:
                content = sys.stdin.buffer.read() if file is None else file.read_bytes()
            except OSError as error:
                if name == argument:
                    raise
                unread.append(f"{name}: {error.strerror}")
                continue
            inputs = {features.IMAGE_BYTES: np.array([content], object)}
            yield Picture(name, inputs, features.SIGNATURE_IMAGE_BYTES)


def _files(name: str) -> list[Path | None]:
    """The files that an argument means; None is standard input."""
    if name == STDIN:
        return [None]
    path = Path(name)
    if not path.is_dir():
        return [path]
    found = picture_files.in_folder(path)
    if not found:
        raise ValueError(f"{path}: no {picture_files.KINDS} file in this folder")
    return list(found)


def _read_test_set(folder: Path, indices: Sequence[int]) -> Iterator[Picture]:
    if not indices:
        return
    files = idx.find_files(folder)
    wanted: dict[int, Picture] = {}
    first = 0
    for images, labels in idx_pairs.stream(files.test_images, files.test_labels, 1000, None):
        for index in indices:
            if first <= index < first + len(labels):
                at = index - first
                inputs = {features.IMAGE: images[at : at + 1].copy()}
                wanted[index] = Picture(f"test {index}", inputs, features.SIGNATURE_PIXELS, int(labels[at]))
        first += len(labels)
    for index in indices:
        if index not in wanted:
            raise ValueError(f"--test-index {index}: {files.test_images} has {first} images, from 0")
        yield wanted[index]


def _ask(client: Client, asked: Sequence[Picture], show: bool, unread: list[str]) -> list[Result]:
    """What the model said; pictures that it cannot read join the unread ones."""
    metadata = client.metadata()
    _check_model(metadata, client.target.model)
    results: list[Result] = []
    names: Sequence[str] = ()
    for picture in asked:
        try:
            answer = client.predict(picture.inputs, picture.signature)
            if show or not names:
                names, pixels = _decoded(client, metadata, picture, answer)
        except ServingError as error:
            # Of a picture that the graph cannot read, or of a digit that is not there.
            if (
                error.code is not Code.INVALID_ARGUMENT
                or picture.signature != features.SIGNATURE_IMAGE_BYTES
            ):
                raise
            unread.append(f"{picture.name}: {tensorflow_errors.reason(error.message)}")
            continue
        results.append(
            Result(
                image=picture.name,
                label=picture.label,
                best=int(answer.outputs[features.CLASSES][0]),
                names=names,
                probabilities=[float(p) for p in answer.outputs[features.PROBABILITIES][0]],
                version=answer.version or metadata.version,
                latency_ms=answer.latency_s * 1e3,
                pixels=pixels if show else None,
            )
        )
    return results


def _decoded(
    client: Client, metadata: Metadata, picture: Picture, answer: Answer
) -> tuple[Sequence[str], NDArray[np.uint8] | None]:
    """The names of the classes, and what the network gets; numbers where the model is older."""
    numbers = [str(label) for label in range(answer.outputs[features.PROBABILITIES].shape[1])]
    if features.SIGNATURE_DECODE not in metadata.signatures:
        return numbers, None
    given = picture.inputs.get(features.IMAGE)
    file = picture.inputs[features.IMAGE_BYTES] if given is None else np.array([_png(given[0])], object)
    said = client.predict({features.IMAGE_BYTES: file}, features.SIGNATURE_DECODE).outputs
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in said[features.NAMES][0]]
    pixels: NDArray[np.uint8] = said[features.IMAGE][0].astype(np.uint8)
    return names, pixels


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _check_model(metadata: Metadata, model: str) -> None:
    for signature, name in (
        (features.SIGNATURE_IMAGE_BYTES, features.IMAGE_BYTES),
        (features.SIGNATURE_PIXELS, features.IMAGE),
    ):
        found = metadata.signatures.get(signature)
        if found is None or name not in found.inputs:
            raise ValueError(
                f"model {model} is none of this pipeline's: it has no signature {signature!r} with an "
                f"input {name!r}"
            )


def _print_table(results: Sequence[Result], top: int | None) -> None:
    for result in results:
        if result.pixels is not None:
            click.echo(f"{result.image}\n{_thumbnail(result.pixels)}")
    labelled = any(result.label is not None for result in results)
    columns = [
        Column("image", folds=True),
        Column("class", right=True, style="bold"),
        *([Column("label", right=True)] if labelled else []),
        Column("probability", right=True),
        Column("", spare=2),
        *([] if top else [Column("runner-up", right=True)]),
        Column("ms", right=True, spare=1),
    ]
    rows: list[list[RenderableType]] = []
    for result in results:
        for rank, label in enumerate(result.likeliest(top or 1)):
            probability = result.probabilities[label]
            rows.append(
                [
                    "" if rank else escape(result.image),
                    escape(result.names[label]),
                    *([_label(result)] if labelled else []),
                    f"{probability:.1%}",
                    Bar(1.0, 0.0, probability, width=BAR_WIDTH),
                    *([] if top else [_runner_up(result)]),
                    "" if rank else f"{result.latency_ms:.1f}",
                ]
            )
    print_table(columns, rows)
    versions = sorted({result.version for result in results})
    click.echo(f"answered by version {', '.join(map(str, versions))}")


def _label(result: Result) -> str:
    if result.label is None:
        return ""
    name = escape(result.names[result.label])
    return name if result.label == result.best else f"[red]{name}[/]"


def _runner_up(result: Result) -> str:
    others = result.likeliest(2)[1:]
    return "".join(f"{escape(result.names[at])} ({result.probabilities[at]:.1%})" for at in others)


def _thumbnail(pixels: NDArray[np.uint8]) -> str:
    """Two characters for a pixel, since characters are about twice as high as wide; of colours the mean."""
    pixels = pixels.mean(axis=2).astype(np.uint8) if pixels.ndim == 3 else pixels
    return "\n".join(
        "".join(SHADES[int(v) * len(SHADES) // 256] * 2 for v in row).rstrip() for row in pixels
    )
