"""The IDX reader: what it reads, what it refuses and how it says so, how much memory it takes."""

from __future__ import annotations

import gzip
import pickle
import re
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from components.image_example_gen.sources import idx, idx_pairs
from components.image_example_gen.sources.base import DataSet, Options
from components.image_example_gen.sources.idx_folder import IdxFolder
from tests.conftest import idx_bytes

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
HEIGHT, WIDTH = 3, 4

Content = dict[str, bytes]

images_of_any_size = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9))


def write(folder: Path, content: Content) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def inspect(folder: Path, num_classes: int = 0) -> DataSet:
    """What a run reads before its first node."""
    return IdxFolder(folder, Options(num_classes=num_classes)).inspect()


def good() -> Content:
    """Six training and two test images of 3 x 4 pixels, in the classes 0, 1, 2."""
    pixels = np.arange(6 * HEIGHT * WIDTH, dtype=np.uint8).reshape(6, HEIGHT, WIDTH)
    return {
        TRAIN_IMAGES: idx_bytes(pixels),
        TRAIN_LABELS: idx_bytes(np.array([0, 1, 2, 0, 1, 2], np.uint8)),
        TEST_IMAGES: idx_bytes(pixels[:2]),
        TEST_LABELS: idx_bytes(np.array([2, 0], np.uint8)),
    }


@pytest.mark.slow
@given(images=images_of_any_size, batch=st.integers(1, 12), compress=st.booleans())
def test_images_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, images: np.ndarray, batch: int, compress: bool
) -> None:
    # The name never says what is inside.
    path = tmp_path_factory.getbasetemp() / "round-trip-images"
    content = idx_bytes(images)
    path.write_bytes(gzip.compress(content) if compress else content)
    batches = list(idx.read_images(path, batch))
    assert all(0 < len(b) <= batch and b.dtype == np.uint8 for b in batches)
    np.testing.assert_array_equal(np.concatenate(batches), images)


@pytest.mark.slow
@given(data=st.data(), images=images_of_any_size, batch=st.integers(1, 12))
def test_images_and_labels_stream_in_step(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, images: np.ndarray, batch: int
) -> None:
    labels = data.draw(hnp.arrays(np.uint8, len(images)))
    folder = tmp_path_factory.getbasetemp()
    paths = folder / "round-trip-images", folder / "round-trip-labels"
    paths[0].write_bytes(idx_bytes(images))
    paths[1].write_bytes(idx_bytes(labels))
    pairs = list(idx_pairs.stream(*paths, batch, 256))
    np.testing.assert_array_equal(np.concatenate([pair[0] for pair in pairs]), images)
    np.testing.assert_array_equal(np.concatenate([pair[1] for pair in pairs]), labels)
    first = data.draw(st.integers(0, len(images) - 1))
    stop = data.draw(st.integers(first + 1, len(images)))
    part = list(idx_pairs.stream(*paths, batch, 256, range(first, stop)))
    np.testing.assert_array_equal(np.concatenate([pair[0] for pair in part]), images[first:stop])
    np.testing.assert_array_equal(np.concatenate([pair[1] for pair in part]), labels[first:stop])


@pytest.mark.slow
@settings(max_examples=200)
@given(garbage=st.binary(max_size=64), at=st.integers(0, 90), compress=st.booleans())
def test_garbage_anywhere_is_an_idx_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, at: int, compress: bool
) -> None:
    content = good()[TRAIN_IMAGES]
    content = gzip.compress(content, mtime=0) if compress else content
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(content[:at] + garbage + content[at:])
    caught = None
    try:
        for batch in idx.read_images(path, 2):
            assert batch.dtype == np.uint8
    except idx.IdxError as error:
        caught = error
    if caught is not None:
        assert caught.path == path
        assert caught.offset is not None
        assert caught.offset >= 0
        # Of a gzipped file it may be an offset in the decompressed content, whose size garbage changes.
        assert compress or caught.offset <= len(content) + len(garbage)


def test_facts_of_a_folder(tmp_path: Path) -> None:
    facts = inspect(write(tmp_path, good()))
    assert (facts.least, facts.largest) == ((HEIGHT, WIDTH), (HEIGHT, WIDTH))
    assert (facts.num_classes, facts.channels) == (3, 1)
    assert facts.examples == {"train": 6, "test": 2}
    assert re.fullmatch("[0-9a-f]{64}", facts.fingerprint)
    assert inspect(tmp_path, 7).num_classes == 7


def test_facts_of_mnist(mnist_dir: Path) -> None:
    facts = inspect(mnist_dir)
    assert (facts.least, facts.largest, facts.num_classes) == ((28, 28), (28, 28), 10)
    assert facts.examples == {"train": 60_000, "test": 10_000}


def test_the_fingerprint_is_of_the_contents_alone(tmp_path: Path) -> None:
    plain = inspect(write(tmp_path / "plain", good()))
    zipped = {f"{name}.gz": gzip.compress(data) for name, data in good().items()}
    assert inspect(write(tmp_path / "zipped", zipped)) == plain
    changed = bytearray(good()[TEST_IMAGES])
    changed[-1] ^= 1
    other = inspect(write(tmp_path / "changed", good() | {TEST_IMAGES: bytes(changed)}))
    assert other.fingerprint != plain.fingerprint


@pytest.mark.parametrize("name", [TRAIN_IMAGES, "train-images.idx3-ubyte", "train-images.idx3-ubyte.gz"])
def test_names_that_mirrors_use(tmp_path: Path, name: str) -> None:
    content = good()
    content[name] = content.pop(TRAIN_IMAGES)
    assert idx.find_files(write(tmp_path, content)).train_images == tmp_path / name


def test_the_plain_file_goes_before_the_gzipped_one(tmp_path: Path) -> None:
    write(tmp_path, good() | {f"{TRAIN_IMAGES}.gz": b"not even gzip"})
    assert idx.find_files(tmp_path).train_images == tmp_path / TRAIN_IMAGES
    inspect(tmp_path)


def test_gzip_members_in_a_row_are_one_file(tmp_path: Path) -> None:
    content = good()[TRAIN_IMAGES]
    path = tmp_path / "two-members"
    path.write_bytes(gzip.compress(content[:30]) + gzip.compress(b"") + gzip.compress(content[30:]))
    assert sum(map(len, idx.read_images(path, 4))) == 6


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(idx.IdxError, match="there is no such folder") as caught:
        idx.find_files(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)
    for name in good():
        content = good()
        del content[name]
        shutil.rmtree(tmp_path)
        with pytest.raises(idx.IdxError, match=f"{name} is missing .*{name}.gz"):
            idx.find_files(write(tmp_path, content))


def test_errors_cross_process_borders() -> None:
    error = idx.IdxError(Path("file"), 7, "reason")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.path, copy.offset, copy.reason) == (str(error), Path("file"), 7, "reason")


def _patched(name: str, offset: int, value: bytes) -> Callable[[], Content]:
    def make() -> Content:
        data = bytearray(good()[name])
        data[offset : offset + len(value)] = value
        return {name: bytes(data)}

    return make


def _cut(name: str, size: int) -> Callable[[], Content]:
    return lambda: {name: good()[name][:size]}


def _longer(name: str, more: bytes) -> Callable[[], Content]:
    return lambda: {name: good()[name] + more}


def _zipped(name: str, change: Callable[[bytes], bytes], inner: bytes = b"") -> Callable[[], Content]:
    return lambda: {name: change(gzip.compress(good()[name] + inner, mtime=0))}


def _header(name: str, *dims: int, data: bytes = b"") -> Callable[[], Content]:
    return lambda: {name: bytes((0, 0, 8, len(dims))) + struct.pack(f">{len(dims)}I", *dims) + data}


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 0xFF,)) + data[at + 1 :]


IMAGES_SIZE = 16 + 6 * HEIGHT * WIDTH
LABELS_SIZE = 8 + 6
ZIPPED_SIZE = len(gzip.compress(good()[TRAIN_IMAGES], mtime=0))

# What the corrupted file is, how it came about, the offset and the reason that must be given.
CORRUPT: dict[str, tuple[str, Callable[[], Content], int, str]] = {
    "empty file": (TRAIN_IMAGES, lambda: {TRAIN_IMAGES: b""}, 0, "truncated: the header"),
    "one byte": (TRAIN_IMAGES, _cut(TRAIN_IMAGES, 1), 1, "truncated: the header"),
    "magic alone": (TRAIN_LABELS, _cut(TRAIN_LABELS, 4), 4, "truncated: the header"),
    "dimensions cut": (TEST_IMAGES, _cut(TEST_IMAGES, 13), 13, "truncated: the header"),
    "first byte": (TRAIN_IMAGES, _patched(TRAIN_IMAGES, 0, b"\x01"), 0, "wrong magic"),
    "second byte": (TEST_LABELS, _patched(TEST_LABELS, 1, b"\x01"), 0, "wrong magic"),
    "a PNG": (TRAIN_IMAGES, _patched(TRAIN_IMAGES, 0, b"\x89PNG"), 0, "wrong magic number 89 50 4e 47"),
    "a web page": (TRAIN_LABELS, lambda: {TRAIN_LABELS: b"<!DOCTYPE html>"}, 0, "wrong magic"),
    "little-endian": (TRAIN_IMAGES, _patched(TRAIN_IMAGES, 0, b"\x03\x08\0\0"), 0, "wrong magic"),
    "int32": (TRAIN_IMAGES, _patched(TRAIN_IMAGES, 2, b"\x0c"), 2, r"wrong dtype byte 0x0c \(int32\)"),
    "float32": (TRAIN_LABELS, _patched(TRAIN_LABELS, 2, b"\x0d"), 2, r"wrong dtype byte 0x0d \(float32\)"),
    "no such dtype": (
        TEST_IMAGES,
        _patched(TEST_IMAGES, 2, b"\x07"),
        2,
        r"wrong dtype byte 0x07 \(unknown",
    ),
    "images of rank 2": (TRAIN_IMAGES, _header(TRAIN_IMAGES, 6, 12, data=bytes(72)), 3, "wrong rank 2"),
    "images of rank 5": (TRAIN_IMAGES, _patched(TRAIN_IMAGES, 3, b"\x05"), 3, "wrong rank 5"),
    "labels of rank 3": (TRAIN_LABELS, lambda: {TRAIN_LABELS: good()[TRAIN_IMAGES]}, 3, "wrong rank 3"),
    "rank 0": (TEST_LABELS, _header(TEST_LABELS), 3, "wrong rank 0"),
    "no images": (TEST_IMAGES, _header(TEST_IMAGES, 0, HEIGHT, WIDTH), 4, "zero examples"),
    "no labels": (TRAIN_LABELS, _header(TRAIN_LABELS, 0), 4, "zero examples"),
    "no height": (TRAIN_IMAGES, _header(TRAIN_IMAGES, 6, 0, WIDTH), 8, "zero height"),
    "no width": (TRAIN_IMAGES, _header(TRAIN_IMAGES, 6, HEIGHT, 0), 12, "zero width"),
    "2^96 bytes": (TRAIN_IMAGES, _header(TRAIN_IMAGES, *[2**32 - 1] * 3), 8, "absurd image size"),
    "2^32 images": (TRAIN_IMAGES, _header(TRAIN_IMAGES, 2**32 - 1, 1, 1), 16, "truncated"),
    "2^32 images, zipped": (
        TRAIN_LABELS,
        lambda: {TRAIN_IMAGES: gzip.compress(_header(TRAIN_IMAGES, 2**32 - 1, 9, 9)()[TRAIN_IMAGES])},
        4,
        "6 labels, but .* 4294967295 images",
    ),
    "last pixel missing": (TRAIN_IMAGES, _cut(TRAIN_IMAGES, IMAGES_SIZE - 1), IMAGES_SIZE - 1, "truncated"),
    "last label missing": (TRAIN_LABELS, _cut(TRAIN_LABELS, LABELS_SIZE - 1), LABELS_SIZE - 1, "truncated"),
    "a byte too many": (TRAIN_IMAGES, _longer(TRAIN_IMAGES, b"\0"), IMAGES_SIZE, "surplus bytes: 1 after"),
    "labels too many": (
        TRAIN_LABELS,
        _longer(TRAIN_LABELS, b"\1\2"),
        LABELS_SIZE,
        "surplus bytes: 2 after",
    ),
    "gzip magic, then nothing": (TRAIN_IMAGES, lambda: {TRAIN_IMAGES: b"\x1f\x8b"}, 2, "truncated gzip"),
    "gzip magic, then garbage": (
        TRAIN_IMAGES,
        lambda: {TRAIN_IMAGES: b"\x1f\x8b" + b"x" * 99},
        0,
        "broken gzip",
    ),
    "gzip cut in the middle": (
        TRAIN_IMAGES,
        _zipped(TRAIN_IMAGES, lambda data: data[: ZIPPED_SIZE // 2]),
        ZIPPED_SIZE // 2,
        "truncated gzip",
    ),
    "gzip without its end": (
        TRAIN_IMAGES,
        _zipped(TRAIN_IMAGES, lambda data: data[:-3]),
        ZIPPED_SIZE - 3,
        "truncated gzip",
    ),
    "garbage after gzip": (
        TRAIN_IMAGES,
        _zipped(TRAIN_IMAGES, lambda data: data + b"garbage"),
        ZIPPED_SIZE,
        "trailing garbage",
    ),
    "surplus bytes in gzip": (
        TRAIN_IMAGES,
        _zipped(TRAIN_IMAGES, bytes, inner=b"\0"),
        IMAGES_SIZE,
        "surplus bytes after the last example .*decompressed",
    ),
    "truncated data in gzip": (
        TRAIN_IMAGES,
        lambda: {TRAIN_IMAGES: gzip.compress(good()[TRAIN_IMAGES][:50])},
        50,
        "truncated: the data ends here .*decompressed",
    ),
    "fewer labels than images": (
        TRAIN_LABELS,
        _header(TRAIN_LABELS, 5, data=bytes(5)),
        4,
        f"5 labels, but {TRAIN_IMAGES} has 6 images",
    ),
    "more labels than images": (TEST_LABELS, _header(TEST_LABELS, 3, data=bytes(3)), 4, "3 labels, but"),
    "test label out of range": (TEST_LABELS, _patched(TEST_LABELS, 9, b"\x03"), 9, r"label 3 .* 0…2"),
    "training label far off": (
        TRAIN_LABELS,
        _patched(TRAIN_LABELS, 11, b"\xc8"),
        11,
        "label 200 is probably wrong: no training example of 3…199",
    ),
    "a class without examples": (
        TRAIN_LABELS,
        _header(TRAIN_LABELS, 6, data=b"\0\2\4\0\2\4"),
        10,
        "label 4 is probably wrong: no training example of 1, 3",
    ),
    "test images of another size": (
        TEST_IMAGES,
        _header(TEST_IMAGES, 2, 4, 4, data=bytes(32)),
        8,
        "images of 4x4, but those for training are 3x4",
    ),
}


@pytest.mark.parametrize("kind", CORRUPT)
def test_a_corrupt_file_is_refused_with_name_offset_and_reason(tmp_path: Path, kind: str) -> None:
    name, make, offset, reason = CORRUPT[kind]
    folder = write(tmp_path, good() | make())
    with pytest.raises(idx.IdxError, match=reason) as caught:
        inspect(folder)
    assert str(caught.value) == f"{folder / name}: offset {offset}: {caught.value.reason}"
    assert (caught.value.path, caught.value.offset) == (folder / name, offset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("from_end", "reason"), [(8, "incorrect data check"), (4, "incorrect length check")]
)
def test_gzip_s_own_checksums_are_checked(tmp_path: Path, from_end: int, reason: str) -> None:
    zipped = gzip.compress(good()[TRAIN_IMAGES], mtime=0)
    position = len(zipped) - from_end
    folder = write(tmp_path, good() | {TRAIN_IMAGES: _flip(zipped, position)})
    with pytest.raises(idx.IdxError, match=f"broken gzip after this: .*{reason}") as caught:
        inspect(folder)
    assert caught.value.path == folder / TRAIN_IMAGES
    # zlib does not say where in a piece it stumbled: the offset is where that piece begins.
    assert caught.value.offset is not None
    assert caught.value.offset <= position


def test_a_label_above_the_given_classes_is_refused_where_it_stands(tmp_path: Path) -> None:
    folder = write(tmp_path, good())
    with pytest.raises(
        idx.IdxError, match=r"label 2 is not in the range 0…1: data.num_classes = 2"
    ) as caught:
        inspect(folder, 2)
    assert (caught.value.path.name, caught.value.offset) == (TRAIN_LABELS, 10)


@pytest.mark.slow
@pytest.mark.parametrize("compress", [False, True], ids=["sparse", "gzip"])
def test_memory_stays_below_the_buffer_however_large_the_file(tmp_path: Path, compress: bool) -> None:
    count, side = 256, 1000  # 256 MB of pixels
    header = bytes((0, 0, 8, 3)) + struct.pack(">3I", count, side, side)
    path = tmp_path / "large"
    if compress:
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(header)
            for _ in range(count):
                file.write(bytes(side * side))
    else:
        with path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + count * side * side)
    tracemalloc.start()
    try:
        assert sum(map(len, idx.read_images(path, count))) == count
        # The batch in hand, the one before it, and what zlib and the file object hold.
        assert tracemalloc.get_traced_memory()[1] < 2 * idx.BUFFER_BYTES + (1 << 22)
    finally:
        tracemalloc.stop()


def test_a_header_alone_never_allocates(tmp_path: Path) -> None:
    path = tmp_path / "claims"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**32 - 1, 4096, 4096)))
    tracemalloc.start()
    try:
        with pytest.raises(idx.IdxError, match="truncated"):
            list(idx.read_images(path, 2**31))
        assert tracemalloc.get_traced_memory()[1] < idx.BUFFER_BYTES + (1 << 22)
    finally:
        tracemalloc.stop()
