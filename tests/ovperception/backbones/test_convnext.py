"""ConvNeXt trunks: CLIP's own head on cells, masks and boxes."""

import functools
import json

import numpy as np
import pytest
import torch

from ovperception.backbones import build_open_clip, from_open_clip
from ovperception.backbones.convnext import head_embeddings
from tests import synth
from tests.ovperception.backbones.conftest import small_backbone
from tests.ovperception.backbones.test_resnet import DATA, fcclip_input, golden


@pytest.fixture(scope="module", params=["convnext", "convnext_mlp"])
def backbone(request):
    return small_backbone(request.param)


def test_one_cell_is_the_global_embedding(backbone):
    """1: at one cell pooling has nothing to average."""
    image = torch.randn(1, 3, 32, 32)
    expected = torch.nn.functional.normalize(backbone.model.visual(image), dim=1)
    torch.testing.assert_close(backbone.embed_dense(backbone.features(image))[..., 0, 0], expected)


def test_constant_map_dense_equals_global(backbone):
    """K."""
    visual = backbone.model.visual
    constant = torch.randn(1, 320, 1, 1).expand(1, 320, 3, 4)
    expected = visual.head(visual.trunk.forward_head(constant))
    cells = backbone.trunk.embed_dense({"res5": constant})
    torch.testing.assert_close(cells, expected[..., None, None].expand_as(cells), rtol=1e-5, atol=1e-6)


def test_the_full_mask_and_the_full_box_are_the_global_embedding(backbone):
    image = torch.randn(2, 3, 64, 64)
    features, expected = backbone.features(image), backbone.embed_image(image)
    full = backbone.embed_masks(features, torch.ones(2, 1, 2, 2, dtype=torch.bool))[:, 0]
    torch.testing.assert_close(full, expected, rtol=1e-4, atol=1e-5)


def test_masks_by_the_official_formula(backbone):
    features = backbone.features(torch.randn(2, 3, 96, 128))
    dense, masks = features["res5"], torch.rand(2, 5, 3, 4) > 0.5
    weights = masks.float()
    denominator = weights.sum((-1, -2), keepdim=True) + 1e-8
    pooled = torch.einsum("bchw,bqhw->bqc", dense, weights / denominator)
    trunk, head = backbone.model.visual.trunk, backbone.model.visual.head
    expected = head(trunk.head(pooled.reshape(10, -1, 1, 1))).reshape(2, 5, -1)
    torch.testing.assert_close(backbone.embed_masks(features, masks), expected)


def test_a_box_of_whole_cells_is_its_mask(backbone):
    """ROIAlign interpolates between cell centres: exact where the map is constant across the border."""
    features = backbone.features(torch.randn(1, 3, 96, 128))
    features["res5"][:] = features["res5"][..., :1, :1]
    masks = torch.zeros(1, 1, 3, 4, dtype=torch.bool)
    masks[..., :2, 1:3] = True
    box = backbone.embed_boxes(features, [torch.tensor([[32.0, 0, 96, 64]])])
    torch.testing.assert_close(box, backbone.embed_masks(features, masks)[0], rtol=1e-4, atol=1e-5)


@functools.cache
def synthetic_large():
    import open_clip

    model, tokenizer = build_open_clip(open_clip.get_model_config("convnext_large_d_320"))
    synth.fill(model, "backbone.clip_model.")
    return from_open_clip(model, "open_clip:convnext_large_d_320", tokenizer=tokenizer)


@pytest.mark.slow
@pytest.mark.parity
def test_large_equals_the_official_code():
    manifest = json.loads((DATA / "manifest_convnext_large.json").read_text())
    prefix = "backbone.clip_model."
    theirs = {k.removeprefix(prefix): tuple(v[0]) for k, v in manifest.items() if k.startswith(prefix)}
    backbone, reference = synthetic_large(), golden("golden_convnext_large_s1.npz")
    assert {k: tuple(v.shape) for k, v in backbone.model.state_dict().items()} == theirs
    with torch.inference_mode():
        features = backbone.features(fcclip_input())
    for name in ("stem", "res2", "res3", "res4", "res5"):
        sampled = features[name].flatten()[torch.from_numpy(reference[f"feat_{name}.idx"])].numpy()
        largest = reference[f"feat_{name}.mean_std_absmax"][2]
        assert np.abs(sampled - reference[f"feat_{name}.val"]).max() < 1e-5 * largest, name
    masks = torch.from_numpy(reference["mask_for_pooling"])[None] > 0
    with torch.inference_mode():
        pooled = backbone.embed_masks(features, masks)[0].numpy()
    theirs = reference["pooled_clip_feature"]
    pooled = pooled[:: round(len(pooled) / len(theirs))]
    assert np.abs(pooled - theirs).max() < 2e-5 * np.abs(theirs).max()


def test_the_head_takes_vectors(backbone):
    assert head_embeddings(backbone.model.visual, torch.randn(7, 320)).shape == (7, 24)
