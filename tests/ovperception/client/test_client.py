"""The client alone: what it does when there is no server, or a strange one."""

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from ovperception.client import Client
from ovperception.errors import (
    InvalidImage,
    InvalidParameter,
    InvalidRegions,
    InvalidVocabulary,
    MissingFile,
    OVPError,
    Unavailable,
    Unsupported,
)

PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def silent_port():
    """A port that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return port


def test_nobody_there(closed_port):
    started = time.monotonic()
    with Client(f"127.0.0.1:{closed_port}", timeout_s=5) as client, pytest.raises(Unavailable) as caught:
        client.detect(PICTURE, ["cat"])
    assert time.monotonic() - started < 5
    assert f"127.0.0.1:{closed_port}" in str(caught.value)
    assert "ovp serve" in caught.value.mend


def test_somebody_who_does_not_answer(silent_port):
    started = time.monotonic()
    with Client(f"127.0.0.1:{silent_port}", timeout_s=0.5) as client, pytest.raises(Unavailable):
        client.detect(PICTURE, ["cat"])
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("address", ["", "nowhere", ":50051", "host:", "host:port", "host:70000"])
def test_no_address(address):
    with pytest.raises(InvalidParameter, match="address"):
        Client(address)


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"timeout_s": -1}, {"transport": "pigeon"}])
def test_no_option(options):
    with pytest.raises(InvalidParameter):
        Client("localhost:1", **options)


def test_what_is_wrong_here_is_not_sent(closed_port, tmp_path):
    client = Client(f"127.0.0.1:{closed_port}")
    with pytest.raises(MissingFile):
        client.detect(tmp_path / "none.png", ["cat"])
    with pytest.raises(InvalidImage):
        client.detect(np.zeros((4, 4, 3)), ["cat"])
    with pytest.raises(InvalidVocabulary):
        client.detect(PICTURE, [])
    with pytest.raises(InvalidVocabulary):
        client.detect(PICTURE, "cat")
    with pytest.raises(InvalidVocabulary):
        client.detect(PICTURE, 3)
    with pytest.raises(InvalidVocabulary):
        client.detect(PICTURE, [["cat"]])
    with pytest.raises(InvalidRegions):
        client.embed_regions(PICTURE, [1, 2, 3])
    client.close()


def test_a_closed_client():
    client = Client("127.0.0.1:1")
    client.close()
    with pytest.raises(Unavailable, match="closed"):
        client.server_info()


def test_another_grpc_server():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}") as client, pytest.raises(Unsupported, match="no such method"):
            client.server_info()
    finally:
        server.stop(0)


class _Flaky(grpc.GenericRpcHandler):
    """Fails with a code a number of times, then answers with nothing."""

    def __init__(self, code, times):
        self.code, self.times, self.seen = code, times, 0

    def service(self, details):
        def answer(request, context):
            self.seen += 1
            if self.seen <= self.times:
                context.abort(self.code, "not now")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.mark.parametrize(
    ("code", "seen", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, 3, None),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 1, OVPError),
        (grpc.StatusCode.INTERNAL, 1, OVPError),
    ],
)
def test_only_unavailable_is_tried_again(code, seen, kind):
    handler = _Flaky(code, 2)
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}") as client:
            if kind is None:
                assert client.server_info().models == ()
            else:
                with pytest.raises(kind, match="not now"):
                    client.server_info()
    finally:
        server.stop(0)
    assert handler.seen == seen


def test_the_client_needs_no_torch():
    code = """
import sys
sys.modules["torch"] = None
from ovperception.client import Client
import ovperception.wire, ovperception.commands.predict
heavy = {"PIL", "scipy", "torchvision", "serving"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
