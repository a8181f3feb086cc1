"""Our server beside mosec, LitServe and Ray Serve: one model of fixed cost, 100 KB a request, closed loops.

    python benchmarks/serving_peers.py --python /path/to/an/environment/bin/python --rounds 5

`--python` names an interpreter that has the peers (mosec; litserve, python-multipart; ray[serve]) and numpy;
what it lacks, or what does not start, is left out and told. Each server is a process tree of its own, the
load another process, and all take turns within a round, so that a change of the machine's speed meets them
alike.

The model's cost does not depend on how many of up to 8 requests go in a pass: `--stub gemm` multiplies
matrices of 832 (8 ms of one core), `sleep` waits for 8 ms as for a device, and `none` costs nothing, so that
what is left is the server. Of each load: answers a second, p50 and p99, and the CPU time of the server's
whole tree for each answer, which other work on the machine hardly moves. Ratios are of one round, ours over
theirs; their median is reported.

All callers send bytes made before and read bytes they do not parse. Ours does more for a request all the
same: words, boxes and timing, where theirs answer two bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np

from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.vocabulary_pb2 import Vocabulary, VocabularySpec
from serving.bench_report import machine

SIDE = 183  # squared and times three: 100 KB of raw pixels, which need no decoding
MAX_BATCH = 8
ROOT = Path(__file__).parents[1]
METHOD = "/ovperception.v1.PerceptionService/DetectObjects"
PASSES = {
    "gemm": "import numpy\nm = numpy.ones((832, 832), numpy.float32)\ndef look(): m @ m",
    "sleep": "import time\ndef look(): time.sleep(0.008)",
    "none": "def look(): pass",
}
BOUNDARY = "ovp-boundary"
MARK = "OVP_BENCHMARKED"  # in the environment of every process of a server, whoever its parent is
TICKS = os.sysconf("SC_CLK_TCK")

OURS = f"""
import sys, threading
from serving import Server, ServerConfig
from serving.stub_model import StubModel
class Model(StubModel):
    def look(self, pictures):
        look()
        return super().look(pictures)
config = ServerConfig(port=int(sys.argv[1]), max_batch={MAX_BATCH}, max_client_requests=64)
Server([Model(pass_ms=0, objects=1)], config).start()
threading.Event().wait()
"""
MOSEC = f"""
import sys
from mosec import Server, Worker
class Model(Worker):
    def deserialize(self, data): return data
    def serialize(self, data): return data
    def forward(self, data):
        look()
        return [b"ok"] * len(data)
sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", sys.argv[-1]]
if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=1, max_batch_size={MAX_BATCH}, max_wait_time=2)
    server.run()
"""
LITSERVE = f"""
import sys
import litserve
class API(litserve.LitAPI):
    def setup(self, device): pass
    def decode_request(self, request): return request["file"].file.read()
    def predict(self, batch):
        look()
        return ["ok"] * len(batch)
    def encode_response(self, output): return {{"answer": output}}
if __name__ == "__main__":
    api = API(max_batch_size={MAX_BATCH}, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
"""
RAY = f"""
import sys, threading
import ray
from ray import serve
@serve.deployment(max_ongoing_requests=64)
class Model:
    async def __call__(self, request): return await self.answer(await request.body())
    @serve.batch(max_batch_size={MAX_BATCH}, batch_wait_timeout_s=0.002)
    async def answer(self, batch):
        look()
        return ["ok"] * len(batch)
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options={{"host": "127.0.0.1", "port": int(sys.argv[1])}})
serve.run(Model.bind())
threading.Event().wait()
"""
PEERS = {"mosec": MOSEC, "litserve": LITSERVE, "ray": RAY}
Connect = Callable[[], Callable[[], None]]  # a caller with what it needs, who asks once


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server in processes of its own; `said` is what they have written."""

    port: int
    mark: str
    process: subprocess.Popen[bytes]
    said: Path

    def complaint(self) -> str:
        """The last line it has written."""
        return (self.said.read_text(errors="replace").strip().splitlines() or ["without a word"])[-1]

    def cpu_s(self) -> float:
        """CPU time its processes have taken so far."""
        total = 0.0
        for pid in _marked(self.mark):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / TICKS
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of one load; CPU times are of one answer."""

    rps: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    client_cpu_ms: float


def pixels() -> bytes:
    return np.random.default_rng(0).integers(0, 255, SIDE * SIDE * 3, np.uint8).tobytes()


def body(peer: str) -> tuple[str, bytes, dict[str, str]]:
    """Path, bytes and headers of a peer's request."""
    if peer == "mosec":
        return "/inference", pixels(), {}
    if peer == "ray":
        return "/", pixels(), {}
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return "/predict", part + pixels() + f"\r\n--{BOUNDARY}--\r\n".encode(), kind


def ask_over_http(peer: str, port: int) -> Connect:
    """Makes callers with a connection each."""
    path, data, headers = body(peer)

    def connect() -> Callable[[], None]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

        def ask() -> None:
            connection.request("POST", path, data, headers)
            reply = connection.getresponse()
            text = reply.read()
            if reply.status != 200:
                raise RuntimeError(f"{peer} answers {reply.status}: {text[:200]!r}")

        return ask

    return connect


def ask_over_grpc(port: int) -> Connect:
    """The same for ours, over four connections."""
    raw = im.RawImage(data=pixels(), width=SIDE, height=SIDE, format=im.PIXEL_FORMAT_RGB8)
    words = VocabularySpec(inline=Vocabulary(classes=[{"name": "cat"}]))
    request = pb.DetectObjectsRequest(image=im.Image(raw=raw), vocabulary=words, include_masks=False)
    data = request.SerializeToString()
    channels = [grpc.insecure_channel(f"127.0.0.1:{port}", [("ovp.channel", n)]) for n in range(4)]
    turn = iter(range(1_000_000))

    def connect() -> Callable[[], None]:
        method = channels[next(turn) % len(channels)].unary_unary(METHOD)
        # A connection that was refused while the server began would refuse calls for a while.
        return lambda: method(data, timeout=30, wait_for_ready=True) and None

    return connect


def _marked(mark: str) -> list[int]:
    """Processes with this mark in their environment."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


@contextlib.contextmanager
def served(python: str, script: str, stub: str) -> Iterator[Served]:
    """A server in processes of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mark = uuid.uuid4().hex
    one_core = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    folder = tempfile.mkdtemp()
    file = Path(folder) / "served.py"  # a file, because workers of a peer import it anew
    file.write_text(PASSES[stub] + script)
    said = Path(folder) / "said.txt"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [python, str(file), str(port)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), MARK: mark} | one_core,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Served(port=port, mark=mark, process=process, said=said)
    finally:
        for signal in (15, 9):
            for pid in _marked(mark):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_up(server: Served, connect: Connect, timeout_s: float = 300) -> None:
    """Wait for its first answer.

    Raises:
        RuntimeError: There is none.
    """
    end = time.monotonic() + timeout_s
    while True:
        try:
            connect()()
            return
        except (OSError, http.client.HTTPException, RuntimeError, grpc.RpcError) as error:
            if server.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"does not start: {server.complaint()}") from error
            time.sleep(0.2)


def load(server: Served, connect: Connect, callers: int, duration_s: float) -> Found:
    """A closed loop."""
    times: list[float] = []
    ready = threading.Barrier(callers + 1)
    end = 0.0

    def call() -> None:
        ask = connect()
        ask()
        ready.wait()
        ready.wait()
        while (started := time.monotonic()) < end:
            ask()
            times.append(1e3 * (time.monotonic() - started))

    threads = [threading.Thread(target=call, daemon=True) for _ in range(callers)]
    for thread in threads:
        thread.start()
    ready.wait(60)
    server_s, client_s, began = server.cpu_s(), time.process_time(), time.monotonic()
    end = began + duration_s
    ready.wait(60)
    for thread in threads:
        thread.join()
    took_s = time.monotonic() - began
    p50, p99 = np.percentile(times, (50, 99))
    return Found(
        rps=len(times) / took_s,
        p50_ms=float(p50),
        p99_ms=float(p99),
        server_cpu_ms=1e3 * (server.cpu_s() - server_s) / len(times),
        client_cpu_ms=1e3 * (time.process_time() - client_s) / len(times),
    )


def importable(python: str, name: str) -> bool:
    module = {"ray": "ray.serve"}.get(name, name)
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0


Runs = dict[str, dict[int, list[Found]]]


def measure(arguments: argparse.Namespace, peers: list[str], absent: dict[str, str]) -> Runs:
    """All rounds; who does not start is added to `absent`."""
    runs: Runs = {}
    with contextlib.ExitStack() as stack:
        clients: dict[str, tuple[Served, Connect]] = {}
        for name in ("ours", *peers):
            ours = name == "ours"
            python, script = (sys.executable, OURS) if ours else (arguments.python, PEERS[name])
            server = stack.enter_context(served(python, script, arguments.stub))
            connect = ask_over_grpc(server.port) if ours else ask_over_http(name, server.port)
            try:
                wait_until_up(server, connect)
            except RuntimeError as error:
                if ours:
                    raise
                absent[name] = str(error)
            else:
                clients[name] = (server, connect)
        for _ in range(arguments.rounds):
            for callers in arguments.callers:
                for name, (server, connect) in clients.items():
                    found = load(server, connect, callers, arguments.seconds)
                    runs.setdefault(name, {}).setdefault(callers, []).append(found)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--peers", nargs="*", choices=tuple(PEERS), default=list(PEERS))
    parser.add_argument("--stub", choices=tuple(PASSES), default="gemm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    present = [name for name in arguments.peers if importable(arguments.python, name)]
    absent = {name: "cannot be imported" for name in arguments.peers if name not in present}
    before = os.getloadavg()[0]
    runs = measure(arguments, present, absent)
    lines = summary(runs)
    report = {"machine": machine(), "absent": absent, "stub": arguments.stub, "summary": lines}
    report["load_average"] = (before, os.getloadavg()[0])
    report["runs"] = {
        name: {callers: [asdict(found) for found in rounds] for callers, rounds in by_callers.items()}
        for name, by_callers in runs.items()
    }
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    for line in lines:
        print(line)
    print(f"stub {arguments.stub}; load average before and after: {report['load_average']}")
    for name, why in absent.items():
        print(f"left out: {name}, {why}")


def summary(runs: Runs) -> list[str]:
    """A line for each server and number of callers."""
    lines = []
    for name, by_callers in runs.items():
        for callers, rounds in by_callers.items():
            ours = runs["ours"][callers]
            rps = [found.rps for found in rounds]
            p50, p99, server, client = (
                statistics.median(getattr(found, key) for found in rounds)
                for key in ("p50_ms", "p99_ms", "server_cpu_ms", "client_cpu_ms")
            )
            faster = statistics.median(a.rps / b.rps for a, b in zip(ours, rounds, strict=True))
            dearer = [a.server_cpu_ms / max(b.server_cpu_ms, 1e-3) for a, b in zip(ours, rounds, strict=True)]
            later = statistics.median(a.p99_ms / b.p99_ms for a, b in zip(ours, rounds, strict=True))
            lines.append(
                f"{name:9} c{callers:<3} {statistics.median(rps):7.1f} rps ({min(rps):.0f}-{max(rps):.0f})"
                f"  p50 {p50:6.1f}  p99 {p99:6.1f} ms  CPU {server:5.2f} ms, client {client:5.2f}"
                f"  ours/it: rps {faster:.2f}, CPU {statistics.median(dearer):.2f}, p99 {later:.2f}"
            )
    return lines


if __name__ == "__main__":
    main()
