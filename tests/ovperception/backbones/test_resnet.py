"""ModifiedResNet: pooling against the attention it stands for, goldens of FC-CLIP's official code."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovperception.backbones import build_open_clip, from_open_clip
from ovperception.backbones.resnet import (
    attention_pool,
    dense_embeddings,
    masked_attention_pool,
    resnet_maps,
    roi_embeddings,
)
from tests import synth
from tests.ovperception.backbones.conftest import small_model

DATA = Path(__file__).parents[2] / "data" / "fcclip"


@pytest.fixture
def visual():
    return small_model("resnet")[0].visual


def official_masked_pool(pool, dense, masks):
    """FC-CLIP's formula written out: full attention for every query, an additive mask, -inf outside."""
    batch, channels, h, w = dense.shape
    side = round((len(pool.positional_embedding) - 1) ** 0.5)
    grid = pool.positional_embedding[1:].T.reshape(1, channels, side, side)
    positions = F.interpolate(grid, (h, w), mode="bilinear", align_corners=False).flatten(2)
    query = dense.mean((2, 3)) + pool.positional_embedding[0]
    keys = dense.flatten(2) + positions
    rows = []
    for b in range(batch):
        q = query[b].expand(masks.shape[1], 1, channels)  # every mask a batch entry of one query
        q = q.transpose(0, 1)
        k = keys[b].T[:, None].expand(-1, masks.shape[1], -1)
        blocked = torch.where(masks[b].flatten(1), 0.0, -torch.inf).to(dense.dtype)[:, None]
        blocked = blocked.repeat_interleave(pool.num_heads, 0)
        out, _ = F.multi_head_attention_forward(
            *(q, k, k, channels, pool.num_heads, None),
            torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
            *(None, None, False, 0.0, pool.c_proj.weight, pool.c_proj.bias),
            training=False,
            need_weights=False,
            attn_mask=blocked,
            use_separate_proj_weight=True,
            q_proj_weight=pool.q_proj.weight,
            k_proj_weight=pool.k_proj.weight,
            v_proj_weight=pool.v_proj.weight,
        )
        rows.append(out[0])
    return torch.stack(rows)


@pytest.mark.parametrize("size", [(2, 2), (3, 4), (7, 5)])
@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_masked_pooling_is_the_official_attention(visual, size, spread):
    dense = torch.randn(2, 512, *size) * spread
    masks = torch.rand(2, 6, *size) > 0.6
    masks[..., 0, 0] = True
    pool = visual.attnpool.double()
    ours = masked_attention_pool(pool, dense.double(), masks)
    theirs = official_masked_pool(pool, dense.double(), masks)
    # the softmax itself runs in float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


def test_a_mask_over_cells_the_query_ignores_is_still_finite(visual):
    pool = visual.attnpool
    with torch.no_grad():
        pool.q_proj.bias += 50
        pool.k_proj.bias -= 50
    dense = torch.randn(1, 512, 4, 4) * 30
    masks = torch.eye(16, dtype=torch.bool).reshape(1, 16, 4, 4)
    embedded = masked_attention_pool(pool, dense, masks)
    assert embedded.isfinite().all()
    # a mask of one cell attends to that cell alone
    positions = F.interpolate(
        pool.positional_embedding[1:].T.reshape(1, 512, 2, 2), (4, 4), mode="bilinear"
    ).flatten(2)
    single = pool.c_proj(pool.v_proj((dense.flatten(2) + positions).transpose(1, 2)))
    torch.testing.assert_close(embedded, single, rtol=1e-3, atol=1e-3)


def test_an_empty_mask_gives_the_bias_and_no_gradient_is_lost(visual):
    dense = torch.randn(1, 512, 3, 3, requires_grad=True)
    masks = torch.zeros(1, 2, 3, 3, dtype=torch.bool)
    masks[:, 1, 0] = True
    embedded = masked_attention_pool(visual.attnpool, dense, masks)
    torch.testing.assert_close(embedded[0, 0], visual.attnpool.c_proj.bias)
    embedded.square().sum().backward()
    assert dense.grad.isfinite().all()
    assert dense.grad.abs().sum() > 0


def test_pooling_one_query_is_the_original_forward(visual):
    images = torch.randn(3, 3, 64, 64)
    pooled = attention_pool(visual.attnpool, resnet_maps(visual, images)["res5"])
    torch.testing.assert_close(pooled, visual(images), rtol=1e-5, atol=1e-6)


def test_constant_map_dense_equals_global_without_positions(visual):
    """K: every key and value alike, so attention cannot choose; holds only without positional embedding."""
    constant = torch.randn(1, 512, 1, 1).expand(1, 512, 2, 2)
    dense = dense_embeddings(visual.attnpool, constant)
    with torch.no_grad():
        visual.attnpool.positional_embedding.zero_()
    expected = visual.attnpool(constant)[0]
    torch.testing.assert_close(dense, expected[None, :, None, None].expand_as(dense), rtol=1e-5, atol=1e-6)


def test_dense_pools_linearly(visual):
    """M: the value path is linear, so embedding the mean is the mean of the embeddings."""
    maps = torch.randn(2, 512, 3, 5)
    of_mean = dense_embeddings(visual.attnpool, maps.mean((2, 3), keepdim=True))[..., 0, 0]
    torch.testing.assert_close(
        dense_embeddings(visual.attnpool, maps).mean((2, 3)), of_mean, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("few", [True, False])
def test_regions_by_the_reference_path(visual, few):
    """RegionCLIP: ROIAlign (aligned, adaptive) to twice the pool's grid, layer4, attention pooling."""
    from torchvision.ops import roi_align

    for norm in (m for m in visual.layer4.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.bias)  # else what lies outside the map would not tell
        torch.nn.init.normal_(norm.running_mean)
    res4 = torch.randn(2, 256, 6, 8)
    boxes = [torch.tensor([[0.0, 0, 90, 60], [-8, -8, 20, 30]]), torch.tensor([[10.0, 20, 30, 90]])]
    if not few:  # more bins than the map has cells: both ways
        boxes = [torch.cat((b, b + 3, b * 1.5, b - 50)) for b in boxes]
    crops = roi_align(res4, boxes, (4, 4), 1 / 16, 0, aligned=True)
    expected = visual.attnpool(visual.layer4(crops))
    for chunk in (1, 2, 128):
        ours = roi_embeddings(visual, res4, boxes, chunk=chunk)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=5e-6)


def test_the_stage_is_trained_through_regions_as_by_the_reference_path(visual):
    from torchvision.ops import roi_align

    res4, boxes = torch.randn(1, 256, 5, 6), [torch.tensor([[0.0, 0, 90, 60], [5, 5, 44, 70]])]
    gradients = []
    for embed in (
        lambda: roi_embeddings(visual, res4, boxes),
        lambda: visual.attnpool(visual.layer4(roi_align(res4, boxes, (4, 4), 1 / 16, 0, aligned=True))),
    ):
        visual.zero_grad()
        embed().square().sum().backward()
        parts = [p.grad for m in (visual.layer4, visual.attnpool) for p in m.parameters()]
        gradients.append(torch.cat([g.flatten() for g in parts]))
    ours, theirs = gradients
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_training_flows_through_every_path():
    model, _ = small_model("resnet")
    model.train()
    maps = resnet_maps(model.visual, torch.randn(2, 3, 64, 64))
    masks = torch.ones(2, 1, 2, 2, dtype=torch.bool)
    pool = model.visual.attnpool
    loss = (
        masked_attention_pool(pool, maps["res5"], masks).square().sum()
        + attention_pool(pool, maps["res5"]).square().sum()
    )
    loss.backward()
    missing = {n for n, p in model.visual.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert missing <= {"attnpool.k_proj.bias"}  # a softmax over keys does not see it


# Goldens: FC-CLIP's official code, open_clip RN50 with synthetic weights.


@functools.cache
def synthetic_rn50():
    import open_clip

    config = open_clip.get_model_config("RN50")
    model, tokenizer = build_open_clip({**config, "quick_gelu": True})
    synth.fill(model, "backbone.clip_model.")
    return from_open_clip(model, "open_clip:RN50", tokenizer=tokenizer)


@functools.cache
def golden(name):
    return dict(np.load(DATA / name))


def fcclip_input():
    rgb = np.load(DATA / "input_s1.npz")["rgb"]
    mean, std = (122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.32316305)
    x = (torch.from_numpy(rgb).permute(2, 0, 1).float() - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(
        std
    ).view(3, 1, 1)
    return x[None]


@pytest.mark.parity
def test_names_and_shapes_are_the_official_ones():
    manifest = json.loads((DATA / "manifest_r50.json").read_text())
    prefix = "backbone.clip_model."
    theirs = {k.removeprefix(prefix): tuple(v[0]) for k, v in manifest.items() if k.startswith(prefix)}
    ours = {k: tuple(v.shape) for k, v in synthetic_rn50().model.state_dict().items()}
    assert ours == theirs


@pytest.mark.parity
def test_maps_equal_the_official_code():
    reference, backbone = golden("golden_r50_s1.npz"), synthetic_rn50()
    unpooled = []  # the reference keeps its stem from before the average pooling
    hook = backbone.model.visual.act3.register_forward_hook(lambda _, __, out: unpooled.append(out.clone()))
    with torch.inference_mode():
        maps = {**backbone.features(fcclip_input()).maps, "stem": unpooled[0]}
    hook.remove()
    maps["clip_vis_dense"] = maps["res5"]
    for name in ("stem", "res2", "res3", "res4", "res5", "clip_vis_dense"):
        assert tuple(maps[name].shape) == tuple(reference[f"feat_{name}.shape"])
        sampled = maps[name].flatten()[torch.from_numpy(reference[f"feat_{name}.idx"])].numpy()
        largest = reference[f"feat_{name}.mean_std_absmax"][2]
        assert np.abs(sampled - reference[f"feat_{name}.val"]).max() < 1e-5 * largest, name


@pytest.mark.parity
def test_text_equals_the_official_code():
    from ovperception.text import TextEncoder
    from ovperception.text_cache import EmbeddingCache
    from ovperception.vocabulary import Vocabulary

    words = ["person", "traffic light|light", "dog", "sky", "grass|lawn", "wall"]
    encoder = TextEncoder(synthetic_rn50(), cache=EmbeddingCache(), templates="vild_14")
    classifier = encoder.classifier(Vocabulary.from_words(words))
    reference = golden("golden_r50_s1.npz")["text_classifier"]
    assert np.abs(classifier.embeddings.numpy() - reference).max() < 1e-5 * np.abs(reference).max()
    assert classifier.synonym_counts == (1, 2, 1, 1, 2, 1)


@pytest.mark.parity
def test_masked_pooling_equals_the_official_code():
    reference = golden("golden_r50_post.npz")
    dense = torch.from_numpy(reference["in_clip_vis_dense"])
    logits = torch.from_numpy(reference["in_pred_masks"])
    masks = F.interpolate(logits, dense.shape[-2:], mode="bilinear", align_corners=False) > 0
    with torch.inference_mode():
        ours = masked_attention_pool(synthetic_rn50().model.visual.attnpool, dense, masks)[0, ::5].numpy()
    theirs = reference["pooled_clip_feature_every_5th"]
    kept = masks[0, ::5].flatten(1).any(1).numpy()
    assert 10 < kept.sum() < len(kept)
    assert np.abs(ours[kept] - theirs[kept]).max() < 1e-5 * np.abs(theirs[kept]).max()
    assert np.isfinite(ours).all()
