"""Vocabularies kept by name, through both clients."""

import asyncio

import pytest

from ovperception.client import AsyncClient
from ovperception.errors import OVPError, UnknownVocabulary, VocabularyNotFound

WORDS = ["cup", "pan|skillet"]


def test_from_its_making_to_its_end(client, picture):
    kitchen = client.vocabularies.create(WORDS, name="kitchen", display_name="Kitchen", ttl_s=60)
    assert (kitchen.name, kitchen.display_name, kitchen.ttl_s) == ("vocabularies/kitchen", "Kitchen", 60)
    assert kitchen.words is None
    assert client.vocabularies.get(kitchen.name).words.names == ("cup", "pan")
    assert client.vocabularies.list() == (kitchen,)
    assert client.detect(picture, kitchen).to_json() == client.detect(picture, WORDS).to_json()
    (answer,) = client.perceive([picture], kitchen)
    assert answer.detections.classes == ("cup", "pan")

    changed = client.vocabularies.update(kitchen, ["fork"], ttl_s=30)
    assert (changed.display_name, changed.ttl_s) == ("Kitchen", 30)
    assert changed.etag != kitchen.etag
    assert client.detect(picture, kitchen).classes == ("fork",)
    with pytest.raises(OVPError, match="changed"):
        client.vocabularies.update(kitchen, display_name="of somebody who has not seen it")
    with pytest.raises(OVPError, match="changed"):
        client.vocabularies.delete(kitchen)
    assert client.vocabularies.update("vocabularies/kitchen", display_name="K").display_name == "K"

    client.vocabularies.delete("vocabularies/kitchen")
    with pytest.raises(VocabularyNotFound):  # and nobody can send the words in its place
        client.detect(picture, kitchen)
    with pytest.raises(VocabularyNotFound):
        client.perceive([picture], kitchen)
    with pytest.raises(UnknownVocabulary):
        client.vocabularies.get(kitchen.name)


def test_one_without_a_name_is_named_by_its_content(client):
    first = client.vocabularies.create(WORDS)
    assert first.name.startswith("vocabularies/sha256-")
    assert client.vocabularies.create(WORDS).name == first.name


def test_a_stream_asks_by_name(client, picture):
    kitchen = client.vocabularies.create(WORDS, name="kitchen")
    street = client.vocabularies.create(["car"], name="street")
    with client.stream(kitchen, policy="block") as stream:
        stream.send(picture)
        assert next(stream).perception.detections.classes == ("cup", "pan")
        stream.set_words(street)
        stream.send(picture)
        assert next(stream).perception.detections.classes == ("car",)


def test_awaited(serve, picture):
    async def main():
        async with AsyncClient(serve().address, timeout_s=20) as client:
            kitchen = await client.vocabularies.create(WORDS, name="kitchen")
            assert (await client.detect(picture, kitchen)).classes == ("cup", "pan")
            assert (await client.vocabularies.update(kitchen, ["fork"])).etag != kitchen.etag
            assert (await client.vocabularies.get(kitchen.name)).words.names == ("fork",)
            assert len(await client.vocabularies.list()) == 1
            await client.vocabularies.delete(kitchen.name)
            assert await client.vocabularies.list() == ()

    asyncio.run(main())
