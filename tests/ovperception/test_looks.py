"""Two models on one backbone: one pass, one copy of the weights, the answers of each alone."""

import numpy as np
import pytest
import torch

import ovperception
from ovperception.datasets import scenes
from ovperception.errors import InvalidParameter
from ovperception.preprocess import Preprocessing
from ovperception.vocabulary import Vocabulary

WORDS = Vocabulary.from_words(["rooster", "toolbox", "snowman"], background=())


@pytest.fixture(scope="module")
def models():
    return ovperception.load("tiny"), ovperception.load("tiny-regionclip")


@pytest.fixture(scope="module")
def images():
    return [scenes.scene("val", i, (128, 160)).image for i in (3, 4)]


def test_one_look_serves_both_heads(models, images):
    first, second = models
    alone = first.encode(images[1]), second.encode(images[1])
    assert first.trunk == second.trunk
    second.stand_on(first)
    assert second.backbone is first.backbone
    assert second.text.backbone is first.backbone
    looks = first.look([first.prepare(image) for image in images])
    together = first.scenes(looks)[1], second.scenes([looks[1].alone()])[0]
    for one, other in zip(alone, together, strict=True):
        expected, found = (s.detect(WORDS, score_threshold=0, max_detections=5) for s in (one, other))
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1.01)  # batches round differently
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        assert other.timing.keys() == {"decode", "preprocess", "backbone", "head"}


def test_a_look_alone_holds_only_its_own_memory(models, images):
    first, _ = models
    looks = first.look([first.prepare(image) for image in images])
    alone = looks[1].alone()
    assert alone.nbytes == looks[1].nbytes
    assert alone.alone() is alone
    for name, tensor in alone.features.maps.items():
        assert torch.equal(tensor[0], looks[1].features[name][1])
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_other_preprocessing_is_another_trunk(models):
    first, second = models
    kept = second.preprocessing
    second.preprocessing = Preprocessing(mean=kept.mean, std=kept.std, shortest_edge=32)
    try:
        with pytest.raises(InvalidParameter, match="do not share"):
            second.stand_on(first)
    finally:
        second.preprocessing = kept


def test_words_are_learned_step_by_step(models):
    first, _ = models
    words = Vocabulary.from_words([f"thing number {i}" for i in range(40)], background=())
    left = list(first.learn(words))
    assert len(left) > 1
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    assert list(first.learn(words)) == []
    before = first.text.classifier(words).embeddings
    assert first.learn(words) is None
    again = ovperception.load("tiny")
    again.text.cache = type(first.text.cache)()
    np.testing.assert_allclose(again.text.classifier(words).embeddings, before, atol=1e-5)
