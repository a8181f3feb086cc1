"""The built-in model behind a server: what it answers there is what it answers here."""

import numpy as np
import pytest

import ovperception
from ovperception.cli import main
from ovperception.client import Client
from ovperception.datasets import scenes
from serving import Server, ServerConfig

WORDS = ["rooster", "toolbox", "snowman|snow man", "grass", "sky"]


@pytest.fixture(scope="module")
def model():
    return ovperception.load("tiny")


@pytest.fixture(scope="module")
def client(model):
    with Server([model], ServerConfig(port=0)) as server, Client(server.address, timeout_s=120) as client:
        yield client


def test_served_answers_equal_local_ones(model, client):
    image = scenes.scene("val", 3, (256, 320)).image
    local = model.encode(image)
    with client.encode(image) as scene:
        assert (
            scene.detect(WORDS, score_threshold=0).to_json()
            == local.detect(WORDS, score_threshold=0).to_json()
        )
        panoptic, semantic = scene.panoptic(WORDS), scene.semantic(WORDS, scores=True)
        assert panoptic.segments == local.panoptic(WORDS).segments
        np.testing.assert_array_equal(panoptic.ids, local.panoptic(WORDS).ids)
        np.testing.assert_array_equal(semantic.labels, local.semantic(WORDS).labels)
        np.testing.assert_array_equal(semantic.scores, local.semantic(WORDS).scores)
        np.testing.assert_array_equal(scene.heatmap("a rooster"), local.heatmap("a rooster"))
        boxes = np.array([[10, 10, 100, 100.5]], np.float32)
        np.testing.assert_array_equal(scene.embed_regions(boxes), local.embed_regions(boxes))
    np.testing.assert_array_equal(client.embed_text(WORDS[:2]), model.embed_text(WORDS[:2]))
    np.testing.assert_array_equal(client.embed_image(image), model.embed_image(image))


def test_the_reply_names_the_weights(model, client):
    (card,) = client.models()
    assert (card.name, card.digest, card.tasks) == (model.name, model.digest, model.tasks)


def test_demo(tmp_path):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "demo.png").stat().st_size > 10_000
