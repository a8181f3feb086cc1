"""The stream client for asyncio: the same words as for threads, awaited."""

import asyncio

import grpc
import numpy as np
import pytest
from grpc.aio import Metadata, _call

from ovperception.client import AsyncClient, Detect
from ovperception.errors import InvalidImage, InvalidParameter, Unavailable, UnknownModel
from tests.serving.test_stream_client import free_port

PICTURES = [np.full((40, 50, 3), value, np.uint8) for value in range(60, 80)]


def _run(server, ask, **options):
    async def main():
        async with AsyncClient(server.address, **{"timeout_s": 20, **options}) as client:
            return await asyncio.wait_for(ask(client), 30)

    return asyncio.run(main())


async def _frames():
    for picture in PICTURES:
        await asyncio.sleep(0)
        yield picture


@pytest.mark.parametrize("images", [PICTURES, None], ids=["list", "generator"])
def test_files_get_all_their_answers(serve, model, images):
    async def ask(client):
        async with client.stream(["cat"], policy="block") as stream:
            return [reply async for reply in stream.run(images or _frames())]

    replies = _run(serve(model), ask)
    assert [reply.sequence for reply in replies] == list(range(1, 21))
    for reply, picture in zip(replies, PICTURES, strict=True):
        assert reply.perception.detections.to_json() == model.encode(picture).detect(["cat"]).to_json()


def test_words_change_from_the_next_frame_on(serve):
    async def ask(client):
        async with client.stream(["word 0"], policy="block") as stream:

            async def send():
                for frame in range(1, 21):
                    if frame % 4 == 0:
                        assert await stream.set_words([f"word {frame}"]) == frame
                    await stream.send(PICTURES[0])
                await stream.end()

            sending = asyncio.create_task(send())
            async for reply in stream:
                assert reply.perception.detections.classes == (f"word {reply.sequence // 4 * 4}",)
            await sending
            return reply.sequence

    assert _run(serve(), ask) == 20


def test_a_bad_frame_is_told_and_the_stream_goes_on(serve):
    async def ask(client):
        async with client.stream(["cat"], policy="block") as stream:
            return [reply async for reply in stream.run([PICTURES[0], b"GIF89a", PICTURES[1]])]

    replies = _run(serve(), ask)
    assert isinstance(replies[1].error, InvalidImage)
    assert replies[2].perception


def test_a_server_that_ends_and_comes_back_is_asked_again(serve):
    port = free_port()
    first = serve(port=port)

    async def ask(client):
        async with client.stream(["a"], policy="block") as stream:
            await stream.send(PICTURES[0])
            assert (await anext(stream)).perception
            await asyncio.to_thread(first.stop, 2)
            await stream.set_words(["b"])
            await stream.send(PICTURES[1])
            await asyncio.to_thread(serve, port=port)  # knows no handle
            return await anext(stream)

    reply = _run(first, ask)
    assert reply.sequence == 2
    assert reply.perception.detections.classes == ("b",)


def test_a_frame_that_is_written_to_a_connection_just_lost_is_sent_again(serve, monkeypatch):
    """gRPC for asyncio calls that INTERNAL, though nothing is wrong with either end."""
    read, reads = _call._StreamResponseMixin.read, []

    async def fails_once(call):
        reads.append(call)
        if len(reads) == 2:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.INTERNAL, Metadata(), Metadata(), details="Internal error from Core"
            )
        return await read(call)

    monkeypatch.setattr(_call._StreamResponseMixin, "read", fails_once)

    async def ask(client):
        async with client.stream(["cat"], policy="block") as stream:
            return [reply async for reply in stream.run(PICTURES[:3])]

    replies = _run(serve(), ask)
    assert [(reply.sequence, bool(reply.perception)) for reply in replies] == [
        (1, True),
        (2, True),
        (3, True),
    ]
    assert len(set(reads)) == 2  # calls


def test_closing_ends_who_waits(serve, model):
    server = serve(model)
    model.hold()

    async def ask(client):
        stream = client.stream(["cat"])
        await stream.send(PICTURES[0])
        waiting = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0.1)
        await stream.close()
        assert await waiting is None
        with pytest.raises(Unavailable):
            await stream.send(PICTURES[0])

    _run(server, ask)
    model.release()


def test_what_cannot_be(serve):
    async def ask(client):
        with pytest.raises(InvalidParameter, match="policy"):
            client.stream(["cat"], policy="pile_up")
        async with client.stream(["cat"], outputs=[Detect(model="none")]) as stream:
            with pytest.raises(UnknownModel):
                await anext(stream)

    _run(serve(), ask)
