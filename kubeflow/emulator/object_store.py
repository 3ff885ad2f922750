"""A folder as the object store behind minio://, s3:// and gs://."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kubeflow.settings import SCHEMES


class StoreError(Exception):
    """The launcher cannot read or write this in the object store."""


class ObjectStore:
    """Objects below a folder: `<scheme>/<bucket>/<key>`. As in a real one, there are no empty folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, uri: str) -> Path:
        """Where an object lies.

        Raises:
            StoreError: where the URI is in no object store.
        """
        scheme, separator, rest = uri.partition("://")
        if not separator or scheme not in SCHEMES or not rest.strip("/"):
            raise StoreError(f"failed to parse bucket config: unrecognized pipeline root format: {uri!r}")
        return self._folder / scheme / rest.rstrip("/")

    def put(self, source: Path, uri: str) -> None:
        """Copy a file, or the files of a folder, to a URI."""
        if source.is_dir():
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                _copy(file, self.path(f"{uri}/{file.relative_to(source)}"))
        else:
            _copy(source, self.path(uri))

    def get(self, uri: str, target: Path) -> None:
        """Copy every object whose key begins with that of the URI; none is no error."""
        prefix = self.path(uri)
        if not prefix.parent.is_dir():
            return
        for folder, _, names in os.walk(prefix.parent):
            for name in names:
                file = Path(folder) / name
                if str(file).startswith(str(prefix)):
                    _copy(file, Path(os.path.normpath(target / os.path.relpath(file, prefix))))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
