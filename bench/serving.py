"""The model server under load: CPU of its process for a request, requests/s and latency, by REST and gRPC.

`python -m bench.serving` starts a server on a model that costs nearly nothing (x / 2 + 2), so that what is
measured is the server, and loads it with `wrk` (REST) and `h2load` (gRPC; Debian's packages wrk and
nghttp2-client), which take less of the machine than clients in Python would. A bare call of the same model
in a loop is measured beside it. CPU comes from /proc/PID/stat: it is the figure that
holds on a machine that does other things too. `--against FOLDER` measures another checkout in turns with
this one; `--model-dir` takes another model; `--load 23` is the time in which so many copies of it are
loaded, one after the other and side by side; `--endure SECONDS` is a load test of gRPC at 80 % of the most,
during which the version changes again and again: failed requests and the server's memory are counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

MODEL = "model"
CALL = "/tensorflow.serving.PredictionService/Predict"
MIN_ANSWER_BYTES = 20  # a tensor with its model's name
WARM_UP_S = 2.0
WARM_UP_CALLS = 30
LOAD_SHARE = 0.8  # of the most that the server can do, in the load test
CHANGE_EVERY_S = 20.0
UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
HERE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    rest_port: int
    grpc_port: int
    pid: int

    def cpu_s(self) -> float:
        """Of the process, since it began."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Memory of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Measured:
    """What came of a load."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failures: int


@dataclass(frozen=True)
class Requests:
    """A Predict request in each protocol, in files for the load generators."""

    rest: Path  # a script for wrk
    grpc: Path  # a body for h2load: gRPC's five bytes, and the message


def write_requests(folder: Path, signature: str, alias: str, values: np.ndarray) -> Requests:
    """Write a request for values."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    requests = Requests(folder / "request.lua", folder / "request.bin")
    document = {"signature_name": signature, "inputs": {alias: values.tolist()}}
    body = json.dumps(document).replace("'", "\\'")
    requests.rest.write_text(
        f"wrk.method = 'POST'\nwrk.path = '/v1/models/{MODEL}:predict'\nwrk.body = '{body}'\n"
    )
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = MODEL, signature
    request.inputs[alias].CopyFrom(tf.make_tensor_proto(values))
    message = request.SerializeToString()
    requests.grpc.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    return requests


def load_rest(server: Server, requests: Requests, clients: int, seconds: float) -> Measured:
    """As many connections as clients, each with one request at a time."""
    words = ["wrk", "-t", "1", "-c", str(clients), "-d", f"{seconds:.0f}s", "--latency", "--timeout", "60s"]
    words += ["-s", str(requests.rest), f"http://127.0.0.1:{server.rest_port}"]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    count, took = re.findall(r"(\d+) requests in ([\d.]+)s", output)[0]
    quantiles = {
        share: float(value) * UNITS_MS[unit]
        for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)\b", output)
    }
    bad = [int(number) for number in re.findall(r"(?:Non-2xx or 3xx responses: |timeout )(\d+)", output)]
    return Measured(int(count), float(took), quantiles["50"], quantiles["99"], sum(bad))


def load_grpc(
    server: Server, requests: Requests, clients: int, seconds: float, rate: float | None = None
) -> Measured:
    """As many connections as clients, each with one call at a time."""
    with tempfile.NamedTemporaryFile() as log:
        words = ["h2load", "-t", "1", "-c", str(clients), "-m", "1", "-D", f"{seconds:.0f}"]
        words += ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", str(requests.grpc)]
        words += ["--rps", f"{rate / clients:.0f}"] if rate else []
        words += ["--log-file", log.name, f"http://127.0.0.1:{server.grpc_port}{CALL}"]
        output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        lines = [line.split() for line in log.read().decode().splitlines()]
    # Of each: start, HTTP status, microseconds. A gRPC error is a status 200 without a message.
    times_ms = sorted(int(line[2]) / 1e3 for line in lines)
    p50, p99 = (times_ms[int(share * (len(times_ms) - 1))] for share in (0.5, 0.99))
    data = int(re.findall(r"\((\d+)\) data", output)[0])
    failed = [line for line in lines if line[1] != "200"]
    if not failed and data < len(lines) * MIN_ANSWER_BYTES:
        failed = lines
    return Measured(len(times_ms), seconds, p50, p99, len(failed))


LOADS = {"REST": load_rest, "gRPC": load_grpc}


@contextmanager
def served(code: Path, folder: Path, scratch: Path) -> Iterator[Server]:
    """The server of a checkout on a folder of versions."""
    ready = scratch / f"ready-{time.monotonic_ns()}.json"
    words = [sys.executable, "-m", "serving", "--model-dir", str(folder), "--model-name", MODEL, "--quiet"]
    words += ["--rest-port", "0", "--port", "0", "--ready-file", str(ready)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=code)
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise SystemExit(f"the server of {code} ended before it was ready")
            time.sleep(0.05)
        ports = json.loads(ready.read_text())
        yield Server(ports["rest_port"], ports["grpc_port"], process.pid)
    finally:
        process.terminate()
        process.wait()


def write_model(folder: Path) -> Path:
    """A version of x / 2 + 2, float32 [N] -> [N]."""
    import tensorflow as tf

    class HalfPlusTwo(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x / 2 + 2}

    module = HalfPlusTwo()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.predict})
    return folder


def example_input(version: Path, signature: str, batch: int) -> tuple[str, np.ndarray]:
    """An input's alias and values for it: noise, which costs a network as much as pictures do."""
    import numpy as np
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    (alias, tensor), *others = saved.meta_graphs[0].signature_def[signature].inputs.items()
    if others:
        raise SystemExit(f"{version}: the signature {signature} has more than one input")
    shape = [batch, *(max(dim.size, 1) for dim in tensor.tensor_shape.dim[1:])]
    noise = np.random.default_rng(0).integers(0, 256, shape)
    return alias, noise.astype(tf.dtypes.as_dtype(tensor.dtype).as_numpy_dtype)


def bare_ms(version: Path, signature: str, alias: str, values: np.ndarray, seconds: float) -> float:
    """CPU of a bare call of the model's function, arrays in and arrays out, in milliseconds."""
    import tensorflow as tf

    function = tf.saved_model.load(str(version)).signatures[signature]
    began, calls, ends_at = 0.0, -WARM_UP_CALLS, time.perf_counter() + seconds
    while calls <= 0 or time.perf_counter() < ends_at:
        if calls == 0:
            began = time.process_time()
        for output in function(**{alias: tf.constant(values)}).values():
            output.numpy()
        calls += 1
    return (time.process_time() - began) / calls * 1e3


def measure(options: argparse.Namespace, version: Path, folder: Path, scratch: Path) -> None:
    """Each load on each checkout, in turns; prints the medians of the rounds."""
    alias, values = example_input(version, options.signature, options.batch)
    requests = write_requests(scratch, options.signature, alias, values)
    codes = [HERE, *([options.against.absolute()] if options.against else [])]
    print(
        f"{'':14}"
        + "".join(f"{name:>12}" for name in ("clients", "requests/s", "CPU ms", "p50 ms", "p99 ms"))
    )
    found: dict[tuple[str, int, str], list[tuple[float, ...]]] = {}
    with ExitStack() as stack:
        # All at once: one that nobody asks costs nothing, and turns that are short even out what else runs.
        servers = [(code.name[:8], stack.enter_context(served(code, folder, scratch))) for code in codes]
        for turn in range(-1, options.rounds):
            for transport, clients in itertools.product(options.transports, options.clients):
                # The other way round each time: who comes second has been seen 10 % better off.
                for name, server in servers[:: -1 if turn % 2 else 1]:
                    before = server.cpu_s()
                    seconds = options.seconds if turn >= 0 else WARM_UP_S
                    measured = LOADS[transport](server, requests, clients, seconds)
                    if measured.failures:
                        raise SystemExit(f"{measured.failures} requests failed")
                    if turn >= 0:
                        cpu_ms = (server.cpu_s() - before) / measured.requests * 1e3
                        rate = measured.requests / measured.seconds
                        found.setdefault((transport, clients, name), []).append(
                            (rate, cpu_ms, measured.p50_ms, measured.p99_ms)
                        )
    for (transport, clients, name), rounds in found.items():
        rate, cpu_ms, p50_ms, p99_ms = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:9}{transport:5}{clients:12}{rate:12.0f}{cpu_ms:12.3f}{p50_ms:12.2f}{p99_ms:12.2f}")


def load_models(version: Path, count: int, scratch: Path) -> None:
    """Seconds from the start of a server to its first answer, by models and threads that load them."""
    folders = [scratch / "many" / f"m{number}" for number in range(count)]
    for folder in folders:
        shutil.copytree(version, folder / "1")
    for models, threads in ((1, 1), (count, 1), (count, os.cpu_count() or 1)):
        config = scratch / "models.config"
        entries = "".join(
            f"config {{ name: '{each.name}' base_path: '{each}' model_platform: 'tensorflow' }}\n"
            for each in folders[:models]
        )
        config.write_text(f"model_config_list {{\n{entries}}}\n")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = [sys.executable, "-m", "serving.tensorflow_model_server", "--port=0"]
        words += [
            f"--rest_api_port={port}",
            f"--model_config_file={config}",
            f"--num_load_threads={threads}",
        ]
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HERE)
        while True:  # it listens when all are loaded
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if process.poll() is not None:
                    raise SystemExit("the server ended before it was ready") from None
                time.sleep(0.05)
        took = time.perf_counter() - start
        process.terminate()
        process.wait()
        print(f"{models} models, {threads} threads: {took:.1f} s", flush=True)


def endure(server: Server, requests: Requests, version: Path, folder: Path, seconds: float) -> None:
    """The load test: steady load while the version changes, and what became of requests and memory."""
    done = threading.Event()
    memory: list[float] = []

    def change() -> None:
        for number in itertools.count(2):
            if done.wait(CHANGE_EVERY_S):
                return
            memory.append(server.resident_mb())
            draft = shutil.copytree(version, folder.parent / "draft")
            draft.rename(folder / str(number))
            if number > 3:
                shutil.rmtree(folder / str(number - 2))

    most = load_grpc(server, requests, 8, 5.0)
    changer = threading.Thread(target=change)
    changer.start()
    rate = most.requests / most.seconds * LOAD_SHARE
    measured = load_grpc(server, requests, 8, seconds, rate)
    done.set()
    changer.join()
    print(
        f"{measured.seconds:.0f} s of gRPC at {measured.requests / measured.seconds:.0f} requests/s with"
        f" {len(memory)} changes of version: {measured.failures} failed requests of {measured.requests},"
        f" p50 {measured.p50_ms:.1f} ms, p99 {measured.p99_ms:.1f} ms"
    )
    print(f"server's memory in MB: {' '.join(f'{each:.0f}' for each in memory)}")


def newest(folder: Path) -> Path:
    """The newest version in a folder."""
    versions = [each for each in folder.iterdir() if each.name.isdigit()] if folder.is_dir() else []
    if not versions:
        raise SystemExit(f"{folder}: no version of a model")
    return max(versions, key=lambda each: int(each.name))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model-dir", type=Path, help="versions of another model")
    parser.add_argument("--signature", default="serving_default")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--transports", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="another checkout, measured in turns"
    )
    parser.add_argument("--load", type=int, default=0, metavar="MODELS", help="measure loading alone")
    parser.add_argument("--endure", type=float, default=0.0, metavar="SECONDS", help="of the load test")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for tool in ("wrk", "h2load"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not installed")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = scratch / MODEL
        if options.model_dir:
            version = shutil.copytree(newest(options.model_dir), folder / "1")
        else:
            version = write_model(folder / "1")
        if options.load:
            load_models(version, options.load, scratch)
            return
        alias, values = example_input(version, options.signature, options.batch)
        bare = bare_ms(version, options.signature, alias, values, options.seconds)
        print(f"a bare call: {bare:.3f} ms of CPU")
        measure(options, version, folder, scratch)
        if options.endure:
            requests = write_requests(scratch, options.signature, alias, values)
            with served(HERE, folder, scratch) as server:
                endure(server, requests, version, folder, options.endure)


if __name__ == "__main__":
    main()
