"""Our server beside mosec and LitServe: one model of fixed cost, 100 KB a request, closed loops in turn.

    python benchmarks/serving_peers.py --python /path/to/an/environment/bin/python --rounds 5

`--python` names an interpreter that has the peers (mosec; litserve, python-multipart); what it lacks is left
out and told. Each server is a process of its own, the load another; the model sleeps 8 ms a pass of up to 8
requests. Rounds are interleaved; what is reported are medians, their spread, and ours over theirs within a
round. Ours does more for a request: words, boxes and timing, where theirs answer two bytes.
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
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np

from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary, VocabularySpec
from serving.bench_report import machine

SIDE = 183  # squared and times three: 100 KB of raw pixels, which need no decoding
PASS_S, MAX_BATCH = 0.008, 8
ROOT = Path(__file__).parents[1]

OURS = f"""
import sys, threading
from serving import Server, ServerConfig
from serving.stub_model import StubModel
config = ServerConfig(port=int(sys.argv[1]), max_batch={MAX_BATCH}, max_client_requests=64)
Server([StubModel(pass_ms={1e3 * PASS_S}, objects=1)], config).start()
threading.Event().wait()
"""
MOSEC = f"""
import sys, time
from mosec import Server, Worker
class Model(Worker):
    def deserialize(self, data): return data
    def serialize(self, data): return data
    def forward(self, data):
        time.sleep({PASS_S})
        return [b"ok"] * len(data)
sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", sys.argv[-1]]
if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=1, max_batch_size={MAX_BATCH}, max_wait_time=2)
    server.run()
"""
LITSERVE = f"""
import sys, time
import litserve
class API(litserve.LitAPI):
    def setup(self, device): pass
    def decode_request(self, request): return request["file"].file.read()
    def predict(self, batch):
        time.sleep({PASS_S})
        return ["ok"] * len(batch)
    def encode_response(self, output): return {{"answer": output}}
if __name__ == "__main__":
    api = API(max_batch_size={MAX_BATCH}, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
"""
BOUNDARY = "ovp-boundary"


def body(peer: str) -> tuple[str, bytes, dict[str, str]]:
    """Path, bytes and headers of a peer's request."""
    pixels = np.random.default_rng(0).integers(0, 255, SIDE * SIDE * 3, np.uint8).tobytes()
    if peer == "mosec":
        return "/inference", pixels, {}
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return "/predict", part + pixels + f"\r\n--{BOUNDARY}--\r\n".encode(), kind


def ask_over_http(peer: str, port: int) -> Callable[[], Callable[[], None]]:
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


def ask_over_grpc(port: int) -> Callable[[], Callable[[], None]]:
    """The same for ours."""
    pixels = np.random.default_rng(0).integers(0, 255, SIDE * SIDE * 3, np.uint8).tobytes()
    raw = im.RawImage(data=pixels, width=SIDE, height=SIDE, format=im.PIXEL_FORMAT_RGB8)
    words = VocabularySpec(inline=Vocabulary(classes=[{"name": "cat"}]))
    request = pb.DetectObjectsRequest(image=im.Image(raw=raw), vocabulary=words, include_masks=False)
    channels = [grpc.insecure_channel(f"127.0.0.1:{port}", [("ovp.channel", n)]) for n in range(4)]
    turn = iter(range(1_000_000))

    def connect() -> Callable[[], None]:
        stub = PerceptionServiceStub(channels[next(turn) % len(channels)])
        return lambda: stub.DetectObjects(request, timeout=30) and None

    return connect


@contextlib.contextmanager
def served(python: str, script: str) -> Iterator[int]:
    """A server in a process of its own; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    folder = tempfile.mkdtemp()
    file = Path(folder) / "served.py"  # a file, because workers of a peer import it anew
    file.write_text(script)
    process = subprocess.Popen(
        [python, str(file), str(port)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)  # workers too: the session is the server's own
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_up(connect: Callable[[], Callable[[], None]], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while True:
        try:
            connect()()
            return
        except (OSError, http.client.HTTPException, RuntimeError, grpc.RpcError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def load(connect: Callable[[], Callable[[], None]], callers: int, duration_s: float) -> dict[str, float]:
    """A closed loop: answers a second, p50 and p99 in milliseconds."""
    times: list[float] = []
    end = time.monotonic() + duration_s

    def call() -> None:
        ask = connect()
        ask()
        while (started := time.monotonic()) < end:
            ask()
            times.append(1e3 * (time.monotonic() - started))

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = np.percentile(times, (50, 99))
    return {"rps": len(times) / duration_s, "p50_ms": float(p50), "p99_ms": float(p99)}


def importable(python: str, name: str) -> bool:
    return subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    absent = [name for name in ("mosec", "litserve") if not importable(arguments.python, name)]
    runs: dict[str, dict[int, list[dict[str, float]]]] = {}
    with contextlib.ExitStack() as stack:
        ours = ask_over_grpc(stack.enter_context(served(sys.executable, OURS)))
        clients = {"ours": ours}
        for name, script in (("mosec", MOSEC), ("litserve", LITSERVE)):
            if name not in absent:
                port = stack.enter_context(served(arguments.python, script))
                clients[name] = ask_over_http(name, port)
        for connect in clients.values():
            wait_until_up(connect)
        for _ in range(arguments.rounds):
            for callers in arguments.callers:
                for name, connect in clients.items():
                    found = load(connect, callers, arguments.seconds)
                    runs.setdefault(name, {}).setdefault(callers, []).append(found)
    report = {"machine": machine(), "absent": [*absent, "ray"], "runs": runs, "summary": summary(runs)}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    for line in report["summary"]:
        print(line)
    print(f"left out: {', '.join(report['absent'])}")


def summary(runs: dict[str, dict[int, list[dict[str, float]]]]) -> list[str]:
    lines = []
    for name, by_callers in runs.items():
        for callers, rounds in by_callers.items():
            rps = [found["rps"] for found in rounds]
            ratios = [a["rps"] / b["rps"] for a, b in zip(runs["ours"][callers], rounds, strict=True)]
            p50, p99 = (statistics.median(found[key] for found in rounds) for key in ("p50_ms", "p99_ms"))
            lines.append(
                f"{name:9} c{callers:<3} {statistics.median(rps):7.1f} rps ({min(rps):.0f}-{max(rps):.0f})"
                f"  p50 {p50:6.1f}  p99 {p99:6.1f} ms  ours / it {statistics.median(ratios):.2f}"
            )
    return lines


if __name__ == "__main__":
    main()
