"""Models in an object store, s3:// or gs://: the versions that are wanted are copied to this machine.

Copied, since loading reads a model's files several times and in pieces; and looked at as often as a folder
is. The stores' clients are pyarrow's, with credentials from where their makers' own tools take them. Where
an S3 that is not Amazon's is, TensorFlow's variables say, as to TF Serving: S3_ENDPOINT, S3_USE_HTTPS,
AWS_REGION.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from serving.models.folders import MODEL_FILES, VERSION

if TYPE_CHECKING:
    from pyarrow import fs

SCHEMES = ("s3", "gs")
NO = ("0", "false")
RETRY = timedelta(seconds=10)  # of Google's client, which would go on for 15 minutes


@dataclass(frozen=True)
class StoreFolder:
    """A model's folder of version folders, in an object store."""

    uri: str

    def __str__(self) -> str:
        """The URI."""
        return self.uri


def place(base_path: str) -> Path | StoreFolder:
    """Where a base path leads: a folder of this machine, or one in an object store.

    Raises:
        ValueError: for a URI of another scheme.
    """
    scheme, separator, rest = base_path.partition("://")
    if not separator:
        return Path(base_path)
    if scheme not in SCHEMES or not rest.strip("/"):
        known = ", ".join(f"{each}://BUCKET/FOLDER" for each in SCHEMES)
        raise ValueError(f"{base_path}: a base path is a folder, or one of {known}")
    return StoreFolder(base_path.rstrip("/"))


class Mirror:
    """The wanted versions of a model in an object store, in a folder of this machine."""

    def __init__(self, source: StoreFolder) -> None:
        """Nothing is copied yet.

        Raises:
            OSError: when the store's client cannot be set up.
        """
        self._store, self._base = _open(source)
        self._scratch = tempfile.TemporaryDirectory(prefix="model-")
        self.folder = Path(self._scratch.name)
        self._stamps: dict[int, frozenset] = {}  # of what was copied

    def close(self) -> None:
        """Remove the copies."""
        self._scratch.cleanup()

    def update(self, choose: Callable[[Collection[int]], set[int]], serving: Collection[int]) -> None:
        """Copy what is wanted and new, and remove what is not there any more.

        Args:
            choose: tells which of the versions there are wanted.
            serving: the versions that answer: they are not copied again, and stay while they are there.

        Raises:
            OSError: when the store cannot be read; what was copied before stays.
        """
        found = self._versions()
        if not found:  # a store has no empty folders: what looks like one may be a folder that is away
            return
        wanted = choose(found)
        for number in wanted:
            stamp = frozenset((each.path, each.size, each.mtime_ns) for each in found[number])
            if number not in serving and self._stamps.get(number) != stamp:
                self._copy(number, found[number])
                self._stamps[number] = stamp
        for number in [each for each in self._stamps if each not in wanted]:
            if number not in found or number not in serving:
                shutil.rmtree(self.folder / str(number), ignore_errors=True)
                del self._stamps[number]

    def _versions(self) -> dict[int, list[fs.FileInfo]]:
        """The objects of each version that has a model's file."""
        from pyarrow import fs

        found: dict[int, list[fs.FileInfo]] = {}
        for each in self._store.get_file_info(
            fs.FileSelector(self._base, allow_not_found=True, recursive=True)
        ):
            name, _, rest = each.path.removeprefix(f"{self._base}/").partition("/")
            if each.type is fs.FileType.File and rest and VERSION.fullmatch(name):
                found.setdefault(int(name), []).append(each)
        return {
            number: files
            for number, files in found.items()
            if any(
                file.path.removeprefix(f"{self._base}/").partition("/")[2] in MODEL_FILES for file in files
            )
        }

    def _copy(self, number: int, files: list[fs.FileInfo]) -> None:
        """Whole or not at all: a version appears under its number when it is complete."""
        from pyarrow import fs

        draft, target = self.folder / "draft" / str(number), self.folder / str(number)
        shutil.rmtree(draft, ignore_errors=True)
        source = "/".join([self._base, files[0].path.removeprefix(f"{self._base}/").partition("/")[0]])
        for each in files:  # Google's store has no folders for copy_files to make
            (draft / each.path.removeprefix(f"{source}/")).parent.mkdir(parents=True, exist_ok=True)
        fs.copy_files(
            source, str(draft), source_filesystem=self._store, destination_filesystem=fs.LocalFileSystem()
        )
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)


def _open(source: StoreFolder) -> tuple[fs.FileSystem, str]:
    """A store's client, and the folder in it."""
    from pyarrow import fs  # half a second that only these models need

    scheme, _, path = source.uri.partition("://")
    if scheme == "gs":
        at_scheme, _, emulator = os.environ.get("CLOUD_STORAGE_EMULATOR_ENDPOINT", "").partition("://")
        if emulator:
            return fs.GcsFileSystem(
                anonymous=True, scheme=at_scheme, endpoint_override=emulator, retry_time_limit=RETRY
            ), path
        return fs.GcsFileSystem(retry_time_limit=RETRY), path
    endpoint = os.environ.get("S3_ENDPOINT")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not endpoint and not region and "AWS_ENDPOINT_URL" not in os.environ:
        region = fs.resolve_s3_region(path.partition("/")[0])
    is_plain = os.environ.get("S3_USE_HTTPS", "1").lower() in NO
    return fs.S3FileSystem(
        region=region,
        endpoint_override=endpoint.partition("://")[2] or endpoint if endpoint else None,
        scheme="http" if is_plain or (endpoint or "").startswith("http://") else "https",
    ), path
