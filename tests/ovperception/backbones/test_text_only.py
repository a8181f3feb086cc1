"""A CLIP without its image tower: the same words, and a plain no to everything else."""

import numpy as np
import pytest
import torch

from ovperception.backbones import build_open_clip, from_open_clip
from ovperception.errors import Unsupported
from tests.ovperception.backbones.conftest import small_config, small_model


@pytest.fixture(scope="module")
def pair():
    model, tokenizer = small_model("vit")
    config = small_config("vit") | {"image_tower": False}
    blind, _ = build_open_clip(config)
    words = {k: v for k, v in model.state_dict().items() if not k.startswith("visual.")}
    blind.load_state_dict(words)
    return (
        from_open_clip(model, "open_clip:small", tokenizer=tokenizer),
        from_open_clip(blind, "open_clip:small", tokenizer=tokenizer, config=config),
    )


def test_the_words_are_the_same(pair):
    whole, blind = pair
    assert torch.equal(whole.embed_text(["a cat", "dog"]), blind.embed_text(["a cat", "dog"]))
    assert whole.spec.text_digest == blind.spec.text_digest
    assert whole.spec.digest != blind.spec.digest
    assert (blind.spec.family, dict(blind.spec.stages), blind.region_stages) == ("text", {}, ())
    assert not any(k.startswith("visual.") for k in blind.model.state_dict())


def test_it_hands_on_the_images(pair):
    images = torch.randn(2, 3, 7, 33)
    features = pair[1].features(images)
    assert dict(features.maps) == {}
    assert features.image_size == (7, 33)
    assert features.images is not None
    assert torch.equal(features.images, images)
    kept = features.only(*pair[1].region_stages).image(1)
    assert (kept.nbytes, kept.images) == (0, None)


def test_it_looks_at_nothing(pair):
    blind = pair[1]
    features = blind.features(torch.randn(1, 3, 32, 32))
    box = torch.tensor(np.array([[1.0, 2, 9, 9]], np.float32))
    for ask in (
        lambda: blind.embed_dense(features),
        lambda: blind.embed_masks(features, torch.ones(1, 1, 2, 2, dtype=torch.bool)),
        lambda: blind.embed_boxes(features, [box]),
        lambda: blind.box_maps(features, [box]),
        lambda: blind.embed_image(torch.randn(1, 3, 64, 64)),
    ):
        with pytest.raises(Unsupported):
            ask()
