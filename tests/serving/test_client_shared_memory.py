"""Pictures that a client does not send: they lie in memory that the server shares with it."""

import asyncio
import threading

import numpy as np
import pytest

from ovperception.client import AsyncClient
from ovperception.errors import InvalidImage, InvalidParameter, ResourceExhausted, Unsupported


@pytest.fixture
def local(serve, model, tmp_path):
    return serve(model, host=f"unix:{tmp_path}/socket", max_shared_bytes=100_000)


def test_answers_are_those_of_sent_pictures(local, connect, picture):
    client = connect(local)
    assert client.server_info().shared_memory
    other = picture[::-1]  # rows in the other direction: copied as they look, not as they lie
    with client.shared_memory(picture.nbytes, slots=2) as memory:
        first, second = memory.put(picture), memory.put(other)
        for given, sent in ((first, picture), (second, other)):
            assert client.detect(given, ["cat"]).to_json() == client.detect(sent, ["cat"]).to_json()
        with client.stream(["cat"], policy="block") as stream:
            stream.send(second)
            expected = client.detect(other, ["cat"]).to_json()
            assert next(stream).perception.detections.to_json() == expected
        small = memory.put(picture[:10, :10].copy())  # in the place of the first
        assert client.detect(small, ["cat"]).size == (10, 10)
        assert client.detect(first, ["cat"]).to_json() != client.detect(picture, ["cat"]).to_json()
    assert len(local.engine.shared_memory) == 0


def test_what_does_not_fit(local, connect, picture):
    client = connect(local)
    with client.shared_memory(1000) as memory:
        with pytest.raises(InvalidImage, match="larger than its place"):
            memory.put(picture)
        with pytest.raises(InvalidImage, match="pixels"):
            memory.put(np.zeros((4, 4), np.uint8))
    with pytest.raises(InvalidParameter, match="size"), client.shared_memory(10**9):
        pass
    with pytest.raises(InvalidParameter, match="at least 1"), client.shared_memory(10, slots=0):
        pass
    with client.shared_memory(90_000, slots=1), pytest.raises(ResourceExhausted):  # noqa: SIM117
        with client.shared_memory(90_000, slots=1):
            pass


def test_not_over_a_network(client):
    assert not client.server_info().shared_memory
    with pytest.raises(Unsupported, match="Unix socket"), client.shared_memory(1000):
        pass


def test_nothing_waits_for_a_server_that_has_ended(local, connect):
    with connect(local).shared_memory(100):
        assert _handing_over()
    local.stop(0)
    (thread,) = _handing_over() or [None]
    if thread is not None:
        thread.join(10)
    assert not _handing_over()


def _handing_over():
    return [thread for thread in threading.enumerate() if thread.name == "ovperception-handover"]


def test_awaited(local, picture):
    async def main():
        async with AsyncClient(local.address, timeout_s=20) as client:
            async with client.shared_memory(picture.nbytes) as memory:
                found = await client.detect(memory.put(picture), ["cat"])
            assert found.to_json() == (await client.detect(picture, ["cat"])).to_json()

    asyncio.run(main())
    assert len(local.engine.shared_memory) == 0
