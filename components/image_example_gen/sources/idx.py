"""IDX files: the format of MNIST and of the data sets that follow it.

A file is a header and then uint8 values in row-major order, to the last byte. The header: two zero
bytes, a byte for the type (0x08 is uint8), a byte for the rank, then one big-endian uint32 per
dimension (http://yann.lecun.com/exdb/mnist). Images have rank 3 (count, height, width) or 4, with channels,
labels rank 1. QMNIST's labels are int32 of rank 2, whose first column counts.

Files are streamed, gzipped or not. Each fault is an IdxError with the file, the byte offset and the
reason; offsets count decompressed bytes, except for faults of the gzip stream itself.
"""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources.base import SourceError

BUFFER_BYTES = 1 << 24
"""No array that is read is larger, whatever a header claims; one image must fit into it."""

_CHUNK_BYTES = 1 << 20  # of content that is decompressed at a time
_GZIP_CHUNK_BYTES = 1 << 16  # of compressed bytes at a time
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way to say: a gzip header and a CRC around the data
_UINT8, _INT32 = 0x08, 0x0C
_DTYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}

UInt8 = NDArray[np.uint8]


class IdxError(SourceError):
    """A file is not what it should be.

    Attributes:
        path: the file, or the folder where a file is missing.
        offset: where in it, in bytes; None where that says nothing.
        reason: what is wrong.
    """

    def __init__(self, path: Path, offset: int | None, reason: str) -> None:
        where = "" if offset is None else f"offset {offset}: "
        super().__init__(path, where + reason)
        self.offset, self.reason = offset, reason

    def __reduce__(self) -> tuple[type[IdxError], tuple[Path, int | None, str]]:
        # Beam's runners hand exceptions from process to process.
        return IdxError, (self.path, self.offset, self.reason)


@dataclass(frozen=True)
class IdxDataset:
    """Where the four files of a data set are."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path


def find_files(folder: Path | str) -> IdxDataset:
    """Find the four files in a folder.

    Each may be named `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, with `.gz` or without;
    a file without `.gz` goes first.

    Raises:
        IdxError: where the folder or a file is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise IdxError(folder, None, "there is no such folder")
    return IdxDataset(
        train_images=_find(folder, "train-images", "idx3-ubyte"),
        train_labels=_find(folder, "train-labels", "idx1-ubyte"),
        test_images=_find(folder, "t10k-images", "idx3-ubyte"),
        test_labels=_find(folder, "t10k-labels", "idx1-ubyte"),
    )


def _find(folder: Path, stem: str, kind: str) -> Path:
    names = [f"{stem}{separator}{kind}{suffix}" for suffix in ("", ".gz") for separator in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise IdxError(folder, None, f"{names[0]} is missing (looked for {', '.join(names)})")


class IdxReader:
    """One open IDX file, read from its start to its end; a context manager.

    Attributes:
        path: the file.
        shape: the dimensions that the header announces; none is zero.
        sha256: hash of all content read so far, header included; None unless it was asked for.
    """

    def __init__(
        self, path: Path | str, rank: int, *ranks: int, hashed: bool = False, labels: bool = False
    ) -> None:
        """Open the file and check its header.

        Args:
            path: an IDX file, gzipped or not, which its first two bytes tell.
            rank: how many dimensions it must have.
            *ranks: other numbers of dimensions that it may have.
            labels: whether its values may be int32 too.
            hashed: compute `sha256` while reading.

        Raises:
            IdxError: wrong magic, type or rank; zero or absurd dimensions; a size that is not the
                header's (of gzipped files that is known at their end).
        """
        self.path = Path(path)
        self.sha256 = hashlib.sha256() if hashed else None
        self._source = _Source(self.path)
        self._content_offset = 0
        try:
            self.dtype, self.shape = self._read_header((rank, *ranks), labels)
            self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
            self._left = self.shape[0]
            self._check_size(self.data_offset + self.shape[0] * self._row_bytes)
        except BaseException:
            self._source.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    @property
    def data_offset(self) -> int:
        """Where the values begin: the length of the header, in bytes."""
        return 4 + 4 * len(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of an example."""
        return self._row_bytes

    @property
    def is_gzipped(self) -> bool:
        """Whether the file can only be read from its start."""
        return self._source.size is None

    def read(self, batch: int) -> UInt8:
        """The next examples, [n, *shape[1:]] of `dtype`, which is uint8 for images.

        n is `batch` or what fits into BUFFER_BYTES, less at the end, and 0 after it.

        Raises:
            IdxError: for a truncated file or broken gzip; after the last example for surplus bytes.
        """
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        count = min(batch, BUFFER_BYTES // self._row_bytes, self._left)
        values = np.empty((count, *self.shape[1:]), self.dtype)
        if count:
            self._fill(values.reshape(-1).view(np.uint8).data)
            self._left -= count
            if not self._left:
                self._check_end()
        return values

    def skip(self, count: int) -> None:
        """Go past the next examples of a file that is not gzipped, without reading them.

        Raises:
            ValueError: where the file is gzipped, or hashed, or has no more than `count` examples left.
        """
        if self.is_gzipped or self.sha256 is not None or count >= self._left:
            raise ValueError(f"{self.path}: cannot go past {count} examples")
        self._source.skip(count * self._row_bytes)
        self._content_offset += count * self._row_bytes
        self._left -= count

    def _read_header(self, ranks: tuple[int, ...], labels: bool) -> tuple[np.dtype, tuple[int, ...]]:
        magic = self._header_bytes(4)
        if magic[:2] != b"\0\0":
            self._fail(0, f"wrong magic number {magic.hex(' ')}: an IDX file begins with two zero bytes")
        if magic[2] != _UINT8 and not (labels and magic[2] == _INT32):
            name = _DTYPES.get(magic[2], "unknown")
            self._fail(2, f"wrong dtype byte 0x{magic[2]:02x} ({name}): it must be 0x08 (uint8)")
        rank = magic[3]
        if rank not in ranks or (rank == 2 and magic[2] == _UINT8):
            self._fail(3, f"wrong rank {rank}: {_kind(ranks[0])} have rank {ranks[0]}")
        shape = tuple(int(n) for n in np.frombuffer(self._header_bytes(4 * rank), ">u4"))
        for axis, (size, name) in enumerate(
            zip(shape, ("examples", "height", "width", "channels"), strict=False)
        ):
            if not size:
                self._fail(4 + 4 * axis, f"zero {name}")
        if math.prod(shape[1:]) > BUFFER_BYTES:
            size_text = "x".join(map(str, shape[1:]))
            self._fail(8, f"absurd image size {size_text}: more than {BUFFER_BYTES} bytes an image")
        return np.dtype(np.uint8 if magic[2] == _UINT8 else ">i4"), shape

    def _header_bytes(self, count: int) -> bytes:
        values = bytearray(count)
        self._fill(memoryview(values), "header")
        return bytes(values)

    def _fill(self, target: memoryview, what: str = "data") -> None:
        done = self._source.read_into(target)
        if self.sha256 is not None:
            self.sha256.update(target[:done])
        self._content_offset += done
        if done < len(target):
            self._fail(self._content_offset, f"truncated: the {what} ends here")

    def _check_size(self, expected: int) -> None:
        size = self._source.size
        if size is None or size == expected:
            return
        if size < expected:
            self._fail(size, f"truncated: the file ends here, {expected} bytes announced")
        self._fail(expected, f"surplus bytes: {size - expected} after the last example")

    def _check_end(self) -> None:
        if self._source.read_into(memoryview(bytearray(1))):
            self._fail(self._content_offset, "surplus bytes after the last example")

    def _fail(self, offset: int, reason: str) -> NoReturn:
        suffix = " (of the decompressed content)" if self._source.size is None else ""
        raise IdxError(self.path, offset, reason + suffix)


class _Source:
    """The bytes of a file, decompressed where the file is gzipped.

    Attributes:
        size: bytes of content; None for gzipped files, which tell it only at their end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._decompressor = None
        magic = self._file.peek(2)[:2]
        if magic == _GZIP_MAGIC:
            self.size: int | None = None
            self._decompressor = zlib.decompressobj(_GZIP_WINDOW)
            self._compressed = b""
        else:
            self.size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()

    def skip(self, count: int) -> None:
        """Go past bytes of a file that is not gzipped."""
        self._file.seek(count, os.SEEK_CUR)

    def read_into(self, target: memoryview) -> int:
        """Fill `target`; returns how many bytes it got, fewer only at the end of the content."""
        done = 0
        while done < len(target):
            if self._decompressor is None:
                got = self._file.readinto(target[done:])
            else:
                piece = self._decompress(min(len(target) - done, _CHUNK_BYTES))
                target[done : done + len(piece)] = piece
                got = len(piece)
            if not got:
                break
            done += got
        return done

    def _decompress(self, most: int) -> bytes:
        """Up to `most` bytes of content; none only at the clean end of the gzip stream."""
        while True:
            assert self._decompressor is not None
            if self._decompressor.eof:
                if not self._begin_member():
                    return b""
                continue
            if not self._compressed:
                self._compressed = self._file.read(_GZIP_CHUNK_BYTES)
                if not self._compressed:
                    raise IdxError(self._path, self._file.tell(), "truncated gzip: the stream has no end")
            try:
                piece = self._decompressor.decompress(self._compressed, most)
            except zlib.error as error:
                offset = self._file.tell() - len(self._compressed)
                raise IdxError(self._path, offset, f"broken gzip after this: {error}") from None
            self._compressed = self._decompressor.unconsumed_tail
            if piece:
                return piece

    def _begin_member(self) -> bool:
        """Whether another gzip member follows the finished one, as the format allows."""
        assert self._decompressor is not None
        self._compressed = self._decompressor.unused_data
        if len(self._compressed) < len(_GZIP_MAGIC):
            self._compressed += self._file.read(_GZIP_CHUNK_BYTES)
        while self._compressed and not self._compressed.strip(b"\0"):  # tapes are filled up with zeros
            self._compressed = self._file.read(_GZIP_CHUNK_BYTES)
        if not self._compressed:
            return False
        if not self._compressed.startswith(_GZIP_MAGIC):
            offset = self._file.tell() - len(self._compressed)
            raise IdxError(self._path, offset, "trailing garbage after the end of the gzip stream")
        self._decompressor = zlib.decompressobj(_GZIP_WINDOW)
        return True


def read_images(path: Path | str, batch: int) -> Iterator[UInt8]:
    """Stream images, uint8 [n, H, W] with n ≤ `batch` and no more than BUFFER_BYTES at a time.

    Raises:
        IdxError: for every fault of the file; the last ones after the last batch.
    """
    yield from _read(path, 3, batch)


def read_labels(path: Path | str, batch: int) -> Iterator[UInt8]:
    """Stream labels, uint8 [n] with n ≤ `batch`.

    Raises:
        IdxError: as read_images.
    """
    yield from _read(path, 1, batch)


def _read(path: Path | str, rank: int, batch: int) -> Iterator[UInt8]:
    with IdxReader(path, rank) as reader:
        while len(values := reader.read(batch)):
            yield values


def _kind(rank: int) -> str:
    return "images" if rank == 3 else "labels"
