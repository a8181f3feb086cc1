"""Shared memory: made by the server, handed over once, over a Unix socket only, and copied before use."""

import mmap
import os
import socket
import subprocess
import sys

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status

from ovperception.errors import InvalidImage, InvalidParameter, ResourceExhausted, UnknownRegion, Unsupported
from ovperception.images import encode_png
from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1 import shared_memory_service_pb2 as sm
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.shared_memory_service_pb2_grpc import SharedMemoryServiceStub
from ovperception.wire_errors import error_of
from serving.shared_memory import SharedMemory
from tests.conftest import ROOT
from tests.serving.engine_calls import wait_for

RAW = {"width": 70, "height": 48, "format": "PIXEL_FORMAT_RGB8"}


def _fetch(reply, token=None):
    """The file descriptor of a region, as a client gets it; None if it is refused."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(5)
        peer.connect(reply.handover_socket)
        peer.sendall(token or reply.token)
        _, descriptors, _, _ = socket.recv_fds(peer, 1, 1)
    return descriptors[0] if descriptors else None


@pytest.fixture
def local(serve, model, tmp_path):
    """A server on a Unix socket, and a channel to it."""
    server = serve(model, host=f"unix:{tmp_path}/socket", max_shared_bytes=100_000)
    with grpc.insecure_channel(server.address) as channel:
        yield server, channel


def _embed(channel, **shared):
    image = im.Image(shared_memory=im.SharedMemoryRef(**shared), frame_id="left")
    try:
        return PerceptionServiceStub(channel).EmbedImage(pb.EmbedImageRequest(image=image))
    except grpc.RpcError as error:
        raise error_of(rpc_status.from_call(error)) from None


def test_pixels_and_files_through_a_region(local, model, picture):
    _, channel = local
    stub = SharedMemoryServiceStub(channel)
    region = stub.CreateSharedMemory(sm.CreateSharedMemoryRequest(size=40_000))
    descriptor = _fetch(region)
    png = encode_png(picture)
    with mmap.mmap(descriptor, 40_000) as memory:
        memory[: picture.nbytes] = picture.tobytes()
        memory[picture.nbytes : picture.nbytes + len(png)] = png
    with pytest.raises(PermissionError):  # nobody changes its size under the server
        os.ftruncate(descriptor, 1)
    os.close(descriptor)
    expected = model.embed_image(picture.copy())
    reply = _embed(channel, region=region.region, size=picture.nbytes, layout=RAW)
    np.testing.assert_array_equal(np.frombuffer(reply.embedding.data, "<f4"), expected)
    assert reply.info.image.frame_id == "left"
    reply = _embed(channel, region=region.region, offset=picture.nbytes, size=len(png))
    np.testing.assert_array_equal(np.frombuffer(reply.embedding.data, "<f4"), expected)
    for offset, size in ((0, 40_001), (1, 40_000), (2**63, 2), (0, 0)):
        with pytest.raises(InvalidImage) as caught:
            _embed(channel, region=region.region, offset=offset, size=size, layout=RAW)
        assert caught.value.field == "image.shared_memory.size"
    assert stub.DeleteSharedMemory(sm.DeleteSharedMemoryRequest(region=region.region)).deleted
    with pytest.raises(UnknownRegion):
        _embed(channel, region=region.region, size=1)
    assert PerceptionServiceStub(channel).GetServerInfo(pb.GetServerInfoRequest()).shared_memory


def test_a_token_is_good_for_one_time(local):
    stub = SharedMemoryServiceStub(local[1])
    region = stub.CreateSharedMemory(sm.CreateSharedMemoryRequest(size=10))
    assert _fetch(region, bytes(32)) is None
    descriptor = _fetch(region)
    assert descriptor is not None
    os.close(descriptor)
    assert _fetch(region) is None
    assert os.stat(os.path.dirname(region.handover_socket)).st_mode & 0o077 == 0


def test_not_over_tcp(serve, model):
    with grpc.insecure_channel(serve(model).address) as channel:
        with pytest.raises(Unsupported, match="Unix socket") as caught:
            _embed(channel, region="regions/x", size=1)
        assert caught.value.field == "image.shared_memory"
        with pytest.raises(grpc.RpcError) as failed:
            SharedMemoryServiceStub(channel).CreateSharedMemory(sm.CreateSharedMemoryRequest(size=1))
        assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert not PerceptionServiceStub(channel).GetServerInfo(pb.GetServerInfoRequest()).shared_memory


def _hold(reply, *, byte=b"\1"):
    """A connection over which a region was handed over."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(5)
    peer.connect(reply.handover_socket)
    peer.sendall(reply.token)
    _, (descriptor,), _, _ = socket.recv_fds(peer, 1, 1)
    os.close(descriptor)
    peer.sendall(byte)
    return peer


def test_a_region_ends_with_who_holds_it():
    memory = SharedMemory(max_bytes=10_000, max_region=60, ttl_s=1000)
    before = len(os.listdir("/proc/self/fd"))
    held, other, plain = (memory.create(60, "me") for _ in range(3))
    peers = [_hold(held), _hold(other), _hold(plain, byte=b"")]
    assert len(memory) == 3
    peers[0].close()
    peers[2].close()  # it did not say that it holds anything
    wait_for(lambda: len(memory) == 2)
    assert not memory.delete(held.region, "me")
    assert memory.delete(other.region, "me")
    peers[1].close()  # nothing is left to end
    assert memory.delete(plain.region, "me")
    memory.close()
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_who_says_nothing_holds_nobody_up(monkeypatch):
    monkeypatch.setattr("serving.handover._TIMEOUT_S", 60.0)  # more than a client waits
    memory = SharedMemory(max_bytes=10_000, max_region=60, ttl_s=1000)
    reply = memory.create(60, "me")
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as slow:
        for peer in (silent, slow):
            peer.settimeout(5)
            peer.connect(reply.handover_socket)
        slow.sendall(reply.token[:5])
        given = _fetch(memory.create(60, "me"))
        assert given is not None  # while both were there
        os.close(given)
        slow.sendall(reply.token[5:])
        _, descriptors, _, _ = socket.recv_fds(slow, 1, 1)
        assert [os.fstat(descriptor).st_size for descriptor in descriptors] == [60]
        os.close(descriptors[0])
    memory.close()


def test_who_says_nothing_is_let_go_of(monkeypatch):
    monkeypatch.setattr("serving.handover._TIMEOUT_S", 0.05)
    memory = SharedMemory(max_bytes=10_000, max_region=60, ttl_s=1000)
    reply = memory.create(60, "me")
    holding = _hold(reply)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(5)
        silent.connect(reply.handover_socket)
        assert silent.recv(1) == b""
    assert len(memory) == 1  # who was greeted may be silent for as long as it likes
    holding.close()
    wait_for(lambda: not len(memory))
    memory.close()


def test_a_client_that_is_killed_gives_its_memory_back(local):
    server, _ = local
    script = (
        "import sys, time; from ovperception.client import Client\n"
        "with Client(sys.argv[1]).shared_memory(50_000, slots=2): print('held', flush=True); time.sleep(100)"
    )
    for _ in range(2):  # there is room for one of them
        with subprocess.Popen(
            [sys.executable, "-c", script, server.address], stdout=subprocess.PIPE, cwd=ROOT, text=True
        ) as client:
            assert client.stdout.readline() == "held\n"
            assert len(server.engine.shared_memory) == 1
            client.kill()
        wait_for(lambda: len(server.engine.shared_memory) == 0)


def test_only_so_many_regions(monkeypatch):
    monkeypatch.setattr("serving.shared_memory._MOST_REGIONS", 2)
    memory = SharedMemory(max_bytes=10_000, max_region=60, ttl_s=1000)
    for _ in range(2):
        memory.create(1, "me")
    with pytest.raises(ResourceExhausted, match="too many regions"):
        memory.create(1, "me")
    memory.close()


class _Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_regions_are_bounded_private_and_end():
    clock = _Clock()
    memory = SharedMemory(max_bytes=100, max_region=60, ttl_s=10, clock=clock)
    before = len(os.listdir("/proc/self/fd"))
    first = memory.create(60, "me")
    with pytest.raises(ResourceExhausted):
        memory.create(60, "me")
    for size in (0, 61, 2**63):
        with pytest.raises(InvalidParameter):
            memory.create(size, "me")
    image = im.Image(shared_memory={"region": first.region, "size": 1})
    assert memory.image(image, "me").encoded == b"\0"
    with pytest.raises(UnknownRegion):
        memory.image(image, "you")
    assert not memory.delete(first.region, "you")
    clock.now += 11
    with pytest.raises(UnknownRegion):
        memory.image(image, "me")
    assert len(memory) == 0
    memory.create(60, "me")
    folder = os.path.dirname(first.handover_socket)
    memory.close()
    assert not os.path.exists(folder)
    assert len(os.listdir("/proc/self/fd")) <= before
