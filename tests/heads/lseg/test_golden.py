"""The whole network against what the official code made of the same synthetic weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.lseg import LSeg, LSegConfig
from heads.lseg.config import vit_large_16_384
from heads.lseg.convert import text_only_config
from ovperception.backbones import ClipBackbone, Features, build_open_clip, from_open_clip
from ovperception.head import PixelEncoding
from ovperception.images import Geometry
from ovperception.postprocess import semantic
from ovperception.sliding import Views, look_around
from ovperception.text import TextEncoder
from ovperception.text_cache import EmbeddingCache
from tests import synth
from tests.heads.lseg.official import (
    Golden,
    golden,
    manifest,
    network_input,
    picture,
    synthetic_head,
    text_of,
)

pytestmark = pytest.mark.parity

CONFIG = LSegConfig(embed_dim=512, trunk=vit_large_16_384())
FEATURES, LOGITS = 1e-4, 1e-3
"""Relative to the largest value of the stage, and absolute: as the golden's notes ask for."""


def at(golden: Golden, name: str, found: Tensor) -> float:
    """The largest difference at the golden's places, as a share of its largest value."""
    assert list(found.shape) == golden[f"{name}.shape"].tolist()
    values = found.detach().reshape(-1).numpy()[golden[f"{name}.pos"]]
    return float(np.abs(values - golden[f"{name}.val"]).max() / golden[f"{name}.stat"][2])


@pytest.fixture(scope="module")
def head() -> LSeg:
    return synthetic_head(CONFIG)


def text_tower(*, rounded: bool) -> ClipBackbone:
    """CLIP ViT-B/32 without its image tower; its matrices as they were drawn, or rounded to float16."""
    dtypes = {k.removeprefix("net.clip_pretrained."): d for k, (_, d) in manifest().items()}
    config = text_only_config()
    model, _ = build_open_clip(config)  # its mask is no weight: on the meta device there would be none
    state = {}
    for name, value in model.state_dict().items():
        drawn = synth.tensor(f"net.clip_pretrained.{name}", value.shape)
        state[name] = drawn.half().float() if rounded and dtypes[name] == "float16" else drawn
    model.load_state_dict(state, assign=True)
    tokenizer = open_clip.get_tokenizer("ViT-B-32-quickgelu")
    return from_open_clip(model, "open_clip:ViT-B-32-quickgelu", tokenizer=tokenizer, config=config)


@pytest.mark.slow
@torch.inference_mode()
def test_words() -> None:
    found = golden("golden_s1")
    tower = text_tower(rounded=True)
    words = _words(found, tower)
    for rounded, name in ((True, "text_fp32_w16"), (False, "text_fp32_w32")):
        tower = text_tower(rounded=rounded)
        rows = TextEncoder(tower, cache=EmbeddingCache(), templates="none").embed(words)
        np.testing.assert_allclose(rows, found[name], rtol=0, atol=2e-6)


def _words(found: Golden, tower: ClipBackbone) -> list[str]:
    """The golden keeps tokens, of which the words are read back."""
    decoder = open_clip.SimpleTokenizer().decoder
    rows = [[int(t) for t in row if t] for row in found["tokens"]]
    words = ["".join(decoder[t] for t in row[1:-1]).replace("</w>", " ").strip() for row in rows]
    for row, ids in zip(rows, tower.tokenizer(words).ids, strict=True):
        assert [int(t) for t in ids if t] == row
    return words


@pytest.mark.slow
@torch.inference_mode()
def test_stages(head: LSeg) -> None:
    found = golden("golden_s1")
    image = picture(1, 256, 256)
    assert int(image.sum()) == int(found["image_u8_sum"])
    images = network_input(image)
    assert head.trunk is not None
    tokens, size = head.trunk(images)
    levels = head.decoder.levels(tokens, size)
    laterals = [lateral(level) for lateral, level in zip(head.decoder.lateral, levels, strict=True)]
    paths = head.decoder.fuse(levels)
    raw = head.decoder.head(paths[-1])
    embeddings = F.normalize(raw, dim=1)
    stages = {f"hook_{i}": t for i, t in enumerate(tokens, start=1)}
    stages |= {f"layer_{i}": t for i, t in enumerate(levels, start=1)}
    stages |= {f"layer_{i}_rn": t for i, t in enumerate(laterals, start=1)}
    stages |= {f"path_{i}": t for i, t in zip((4, 3, 2, 1), paths, strict=True)}
    stages |= {"head1": raw, "pixel_embed": embeddings}
    differences = {name: at(found, name, value) for name, value in stages.items()}
    print({name: f"{value:.1e}" for name, value in differences.items()})
    assert max(differences.values()) < FEATURES
    for weights in ("w16", "w32"):
        scores = head.classify(PixelEncoding(embeddings=embeddings), text_of(found[f"text_fp32_{weights}"]))
        low = scores.logits[None]
        full = F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=True)
        for name, value in ((f"logits_lowres_fp32_{weights}", low), (f"logits_fp32_{weights}", full)):
            difference = at(found, name, value) * found[f"{name}.stat"][2]
            print(name, f"{difference:.1e}")
            assert difference < LOGITS
        geometry = Geometry(original=(256, 256), resized=(256, 256), padded=(256, 256))
        labels = semantic(scores, geometry, scores.text.vocabulary).labels
        agreement = (labels == found[f"argmax.logits_fp32_{weights}"]).mean()
        print(weights, agreement)
        assert agreement > 0.9999
    # Float16 is what the official code says in the end; float32 is nearer to what it means.
    official = found["argmax.logits_official_fp16"]
    assert (labels == official).mean() > 0.999


@pytest.mark.slow
@torch.inference_mode()
def test_views(head: LSeg) -> None:
    """The sums of the official evaluator over scales, mirrored pictures and windows."""
    found = golden("golden_views_s2")
    image = picture(2, 320, 480)
    views = Views(
        base=int(found["base"]),
        crop=int(found["crop"]),
        scales=tuple(found["scales"].tolist()),
        pad_value=-1.0,
    )
    with torch.device("meta"):
        looking = LSeg(replace(CONFIG, views=views))
    looking.load_state_dict(head.state_dict(), assign=True)
    looking.eval()
    images = network_input(image)
    features = Features(maps={}, image_size=(320, 480), images=images)
    encoding = looking.encode(text_tower(rounded=False), features)
    text = text_of(golden("golden_s1")["text_fp32_w32"])
    scores = looking.classify(encoding, text)
    sums = scores.logits * (2 * len(views.scales))
    assert [1, *sums.shape] == found["shape"].tolist()
    difference = np.abs(sums.reshape(-1).numpy()[found["pos"]] - found["val"]).max()
    agreement = (sums.argmax(0).numpy() == found["argmax"]).mean()
    print(difference, agreement)
    # The golden was summed from float16 logits, which are up to 2e-3 off each.
    assert difference < 2 * len(views.scales) * 2e-3
    assert agreement > 0.999
    small = replace(views, max_cells=160 * 240)
    fewer = look_around(
        lambda some: head(Features(maps={}, image_size=(256, 256), images=some)), images, small
    )
    assert fewer.shape[-2:] == (160, 240)
