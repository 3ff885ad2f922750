"""The model server against bare calls of the same model: requests/s and latency, by REST and gRPC.

`python -m bench.serving` measures, in one run on this machine: the model called in a loop without any
server (a concrete function, arrays in, arrays out), then the server with 1 and 8 clients, batches of 1 and
32, both transports. Clients are processes of their own that send a prepared request again and again and
wait for each answer; they share the machine's cores with the server. `--endure SECONDS` adds a load test at
80 % of the most that eight clients got, during which the version changes again and again: failed requests
and the growth of the server's memory are counted.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SIGNATURE = "pixels"
MODEL = "mnist"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
WARM_UP_CALLS = 30
LOAD_SHARE = 0.8  # of the most that the server can do, in the load test
CHANGE_EVERY_S = 20.0


@dataclass(frozen=True)
class Load:
    """What a group of clients does."""

    transport: str  # REST or gRPC
    port: int
    request: bytes
    clients: int
    seconds: float
    rate: float | None = None  # requests/s of all clients together; as fast as it goes when None


@dataclass(frozen=True)
class Measured:
    """What came of it."""

    latencies_s: list[float]
    seconds: float
    failures: list[str]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies_s) / self.seconds

    def quantile_ms(self, share: float) -> float:
        """A quantile of the latency."""
        ordered = sorted(self.latencies_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1e3


def rest_caller(load: Load) -> Callable[[], None]:
    """One connection, kept open; a call raises when the answer is no 200."""
    connection = http.client.HTTPConnection("127.0.0.1", load.port, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call() -> None:
        connection.request("POST", f"/v1/models/{MODEL}:predict", load.request)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(content.decode("utf-8", "replace"))

    return call


def grpc_caller(load: Load) -> Callable[[], None]:
    """One channel of its own."""
    import grpc

    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    channel = grpc.insecure_channel(f"127.0.0.1:{load.port}", options)
    predict = channel.unary_unary(PREDICT)
    return lambda: predict(load.request, timeout=60)


def run_client(load: Load, start: threading.Barrier, queue: multiprocessing.Queue) -> None:
    """One client, in a process of its own."""
    call = rest_caller(load) if load.transport == "REST" else grpc_caller(load)
    for _ in range(WARM_UP_CALLS):
        call()
    latencies, failures = [], []
    start.wait()
    began = time.perf_counter()
    for number in itertools.count():
        if load.rate is not None:
            due = began + number * load.clients / load.rate
            time.sleep(max(due - time.perf_counter(), 0))
        before = time.perf_counter()
        if before - began > load.seconds:
            break
        try:
            call()
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}"[:500])
            call = rest_caller(load) if load.transport == "REST" else grpc_caller(load)
        latencies.append(time.perf_counter() - before)
    queue.put((latencies, failures))


def run_load(load: Load) -> Measured:
    """All clients of a load at once."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(load.clients)
    queue = context.Queue()
    clients = [
        context.Process(target=run_client, args=(load, start, queue), daemon=True)
        for _ in range(load.clients)
    ]
    for client in clients:
        client.start()
    latencies, failures = [], []
    for _ in clients:
        some, bad = queue.get(timeout=load.seconds + 120)
        latencies += some
        failures += bad
    for client in clients:
        client.join()
    return Measured(latencies, load.seconds, failures)


def bare_rates(folder: Path, batches: list[int], seconds: float) -> dict[int, float]:
    """Calls a second of the model's function alone, by batch size; measured in a process of its own."""
    words = [sys.executable, "-m", "bench.serving", "--bare", str(folder), "--seconds", str(seconds)]
    words += ["--batches", *map(str, batches)]
    output = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {int(batch): rate for batch, rate in json.loads(output.splitlines()[-1]).items()}


def measure_bare(folder: Path, batches: list[int], seconds: float) -> dict[int, float]:
    """The same, in this process."""
    import tensorflow as tf

    function = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
    rates = {}
    for batch in batches:
        images = digits(folder, batch)
        calls, began = -WARM_UP_CALLS, time.perf_counter()
        while True:
            if calls == 0:
                began = time.perf_counter()
            outputs = {name: value.numpy() for name, value in function(image=tf.constant(images)).items()}
            assert len(outputs["classes"]) == batch
            calls += 1
            if calls > 0 and time.perf_counter() - began > seconds:
                break
        rates[batch] = calls / (time.perf_counter() - began)
    return rates


def digits(folder: Path, count: int) -> np.ndarray:
    """uint8 [count, height, width]: noise, which costs a network as much as digits do."""
    import numpy as np
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    shape = saved.meta_graphs[0].signature_def[SIGNATURE].inputs["image"].tensor_shape
    size = [dim.size for dim in shape.dim][1:]
    return np.random.default_rng(0).integers(0, 256, (count, *size), np.uint8)


def prepared_request(transport: str, images: np.ndarray) -> bytes:
    """A Predict request for the images, ready to send."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    if transport == "REST":
        return json.dumps({"signature_name": SIGNATURE, "instances": images.tolist()}).encode()
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = MODEL, SIGNATURE
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(images))
    return request.SerializeToString()


@contextmanager
def server(folder: Path, scratch: Path) -> Iterator[tuple[int, int, int]]:
    """The server on a folder of versions: REST port, gRPC port, process id."""
    ready = scratch / "ready.json"
    words = [sys.executable, "-m", "serving", "--model-dir", str(folder), "--model-name", MODEL, "--quiet"]
    words += ["--rest-port", "0", "--port", "0", "--ready-file", str(ready)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise SystemExit("the server ended before it was ready")
            time.sleep(0.05)
        ports = json.loads(ready.read_text())
        yield ports["rest_port"], ports["grpc_port"], process.pid
    finally:
        process.terminate()
        process.wait()


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def endure(load: Load, version: Path, folder: Path, pid: int) -> None:
    """The load test: steady load while the version changes, and what became of requests and memory."""
    done = threading.Event()
    memory: list[float] = []

    def change() -> None:
        for number in itertools.count(2):
            if done.wait(CHANGE_EVERY_S):
                return
            memory.append(resident_mb(pid))
            draft = shutil.copytree(version, folder.parent / "draft")
            draft.rename(folder / str(number))
            if number > 3:
                shutil.rmtree(folder / str(number - 2))

    changer = threading.Thread(target=change)
    changer.start()
    measured = run_load(load)
    done.set()
    changer.join()
    print(
        f"\n{load.seconds:.0f} s of {load.transport} at {measured.rate:.0f} requests/s"
        f" with {len(memory)} changes"
        f" of version: {len(measured.failures)} failed requests of {len(measured.latencies_s)},"
        f" p50 {measured.quantile_ms(0.5):.1f} ms, p99 {measured.quantile_ms(0.99):.1f} ms,"
        f" slowest {measured.quantile_ms(1):.0f} ms"
    )
    if memory:
        print(f"server's memory in MB: {' '.join(f'{each:.0f}' for each in memory)}")
    for failure in sorted(set(measured.failures)):
        print(f"failed: {failure}")


def newest(folder: Path) -> Path:
    """The newest version in a folder."""
    versions = [each for each in folder.iterdir() if each.name.isdigit()] if folder.is_dir() else []
    if not versions:
        raise SystemExit(f"{folder}: no model; make run makes one")
    return max(versions, key=lambda each: int(each.name))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model-dir", type=Path, default=Path("var/serving/mnist"))
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--endure", type=float, default=0.0, metavar="SECONDS", help="of the load test")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.bare:
        print(json.dumps(measure_bare(options.bare, options.batches, options.seconds)))
        return
    version = newest(options.model_dir)
    bare = bare_rates(version, options.batches, options.seconds)
    for batch, rate in bare.items():
        print(f"bare calls, batch {batch}: {rate:.0f}/s")
    columns = ("clients", "batch", "requests/s", "of bare", "p50 ms", "p99 ms")
    print("\n      " + "".join(f"{column:>11}" for column in columns))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / MODEL
        shutil.copytree(version, folder / "1")
        with server(folder, Path(scratch)) as (rest_port, grpc_port, pid):
            most = None
            for transport, port in (("gRPC", grpc_port), ("REST", rest_port)):
                for batch, clients in itertools.product(options.batches, options.clients):
                    request = prepared_request(transport, digits(version, batch))
                    load = Load(transport, port, request, clients, options.seconds)
                    measured = run_load(load)
                    if measured.failures:
                        raise SystemExit(
                            f"{len(measured.failures)} requests failed: {measured.failures[0]}"
                        )
                    ratio = measured.rate / bare[batch]
                    latencies = "".join(f"{measured.quantile_ms(share):11.2f}" for share in (0.5, 0.99))
                    print(
                        f"{transport:6}{clients:11}{batch:11}{measured.rate:11.0f}{ratio:11.2f}{latencies}",
                        flush=True,
                    )
                    if transport == "gRPC" and batch == 1:
                        most = (load, measured.rate)
            if options.endure and most:
                load, rate = most
                steady = Load(load.transport, load.port, load.request, 8, options.endure, rate * LOAD_SHARE)
                endure(steady, version, folder, pid)


if __name__ == "__main__":
    main()
