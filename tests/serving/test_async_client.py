"""The asyncio client answers as the local model does, many at a time, and mends what the other one mends."""

import asyncio
import socket
import threading
import time

import numpy as np
import pytest

from ovperception.client import AsyncClient
from ovperception.errors import InvalidVocabulary, OVPError, Unavailable

WORDS = ["cat", "dog|hound", "traffic light"]


def _run(server, ask, **options):
    async def main():
        async with AsyncClient(server.address, **{"timeout_s": 20, **options}) as client:
            return await ask(client)

    return asyncio.run(main())


def test_served_answers_equal_local_ones(serve, model, picture):
    local = model.encode(picture)
    boxes = np.array([[1, 2, 30.5, 40]], np.float32)

    async def ask(client):
        found = await client.detect(picture, WORDS)
        assert found.to_json() == local.detect(WORDS).to_json()
        np.testing.assert_array_equal(
            (await client.semantic(picture, WORDS)).labels, local.semantic(WORDS).labels
        )
        np.testing.assert_array_equal((await client.panoptic(picture, WORDS)).ids, local.panoptic(WORDS).ids)
        np.testing.assert_array_equal(await client.heatmap(picture, "cat"), local.heatmap("cat"))
        np.testing.assert_array_equal(await client.embed_regions(picture, boxes), local.embed_regions(boxes))
        np.testing.assert_array_equal(await client.embed_text(["a"]), model.embed_text(["a"]))
        np.testing.assert_array_equal(await client.embed_image(picture), model.embed_image(picture))
        assert (await client.models())[0].name == (await client.server_info()).models[0].name == "fake"
        async with await client.encode(picture) as scene:
            assert scene.size == (48, 70)
            await scene.detect(WORDS)
            assert client.last_reply.batch_size == 0
            assert client.last_timing["round_trip"] > 0
            scene._image.image_id = "images/gone"
            assert (await scene.detect(WORDS)).to_json() == found.to_json()
        with pytest.raises(InvalidVocabulary):
            await client.detect(picture, [])

    _run(serve(model), ask)


def test_many_at_once_share_batches(serve, model, picture):
    server = serve(model)
    model.hold()

    async def ask(client):
        threading.Timer(0.3, model.release).start()
        return await asyncio.gather(*(client.detect(picture, [f"w{i}"]) for i in range(12)))

    found = _run(server, ask)
    assert [f.classes[0] for f in found] == [f"w{i}" for i in range(12)]
    assert max(map(len, model.batches)) > 1


def test_a_handle_that_expired_is_replaced(serve, model, picture):
    async def ask(client):
        await client.detect(picture, WORDS)
        await asyncio.sleep(0.4)
        assert len(await client.detect(picture, WORDS)) == 3

    _run(serve(model, vocabulary_ttl_s=0.3), ask)


def test_several_images_some_bad(serve, model, picture):
    async def ask(client):
        good, bad = await client.perceive([picture, b"GIF"], WORDS, outputs=["detect", "semantic"])
        assert isinstance(bad, OVPError)
        assert bad.field == "items[1].image.encoded"
        local = model.encode(picture)
        assert good.detections.to_json() == local.detect(WORDS).to_json()
        np.testing.assert_array_equal(good.semantic.labels, local.semantic(WORDS).labels)

    _run(serve(model), ask)


def test_cancelling_a_task_frees_its_place(serve, model, picture):
    server = serve(model)
    model.hold()

    async def ask(client):
        task = asyncio.create_task(client.detect(picture, WORDS))
        await asyncio.to_thread(model.busy.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        end = time.monotonic() + 10
        while server.engine.admission._used["requests"]:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        model.release()
        assert len(await client.detect(picture, WORDS)) == 3

    _run(server, ask)


def test_nobody_there_and_a_closed_client():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def main():
        client = AsyncClient(f"127.0.0.1:{port}", timeout_s=2)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await client.server_info()
        await client.close()
        with pytest.raises(Unavailable, match="closed"):
            await client.server_info()

    asyncio.run(main())
