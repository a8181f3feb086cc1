"""The official network cut down: the same code path, stage by stage, against the network written out plainly.

The plain network takes timm's own transformer and weights by their official names. `test_golden` compares the
full size with what the official code gave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from heads.lseg import LSegConfig, TrunkConfig
from ovperception.backbones import Features
from ovperception.head import PixelEncoding
from tests.heads.lseg.official import synthetic_head, synthetic_state, text_of
from tests.heads.lseg.small import OWN, TRUNK

pytestmark = pytest.mark.parity

RTOL = 1e-5

State = Mapping[str, Tensor]


def timm_blocks(state: State, trunk: TrunkConfig, images: Tensor) -> list[Tensor]:
    """Outputs of the tapped blocks by timm, whose positions are made for the size of the images."""
    height, width = (n // trunk.patch_size for n in images.shape[2:])
    model = VisionTransformer(
        img_size=(height * trunk.patch_size, width * trunk.patch_size),
        patch_size=trunk.patch_size,
        embed_dim=trunk.width,
        depth=trunk.depth,
        num_heads=trunk.heads,
        num_classes=0,
    ).eval()
    prefix = "net.pretrained.model."
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    table = own["pos_embed"]
    grid = table[:, 1:].transpose(1, 2).unflatten(2, trunk.grid)
    grid = F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
    own["pos_embed"] = torch.cat((table[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)
    missing = model.load_state_dict(own, strict=False)
    assert set(missing.missing_keys) == {"norm.weight", "norm.bias"}
    found = []
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    for index, block in enumerate(model.blocks):
        x = block(x)
        if index in trunk.taps:
            found.append(x)
    return found


def convolve(state: State, name: str, x: Tensor, **options: Any) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)


def normalise(state: State, name: str, x: Tensor) -> Tensor:
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts)


def residual(state: State, name: str, x: Tensor) -> Tensor:
    y = normalise(state, f"{name}.bn1", convolve(state, f"{name}.conv1", x.clamp(min=0), padding=1))
    y = normalise(state, f"{name}.bn2", convolve(state, f"{name}.conv2", y.clamp(min=0), padding=1))
    return x + y


def plain_network(state: State, config: LSegConfig, images: Tensor) -> dict[str, Tensor]:
    """Every stage by its name in the golden."""
    assert config.trunk is not None
    height, width = (n // config.trunk.patch_size for n in images.shape[2:])
    stages = {}
    tokens = timm_blocks(state, config.trunk, images)
    for i, x in enumerate(tokens, start=1):
        stages[f"hook_{i}"] = x
        name = f"net.pretrained.act_postprocess{i}"
        pair = torch.cat((x[:, 1:], x[:, :1].repeat(1, x.shape[1] - 1, 1)), dim=2)
        y = F.gelu(F.linear(pair, state[f"{name}.0.project.0.weight"], state[f"{name}.0.project.0.bias"]))
        y = convolve(state, f"{name}.3", y.permute(0, 2, 1).reshape(len(x), -1, height, width))
        if i in (1, 2):
            stride = 4 if i == 1 else 2
            y = F.conv_transpose2d(y, state[f"{name}.4.weight"], state[f"{name}.4.bias"], stride=stride)
        if i == 4:
            y = convolve(state, f"{name}.4", y, stride=2, padding=1)
        stages[f"layer_{i}"] = y
        stages[f"layer_{i}_rn"] = convolve(state, f"net.scratch.layer{i}_rn", y, padding=1)
    path: Tensor | None = None
    for i in (4, 3, 2, 1):
        name, y = f"net.scratch.refinenet{i}", stages[f"layer_{i}_rn"]
        if path is not None:
            y = path + residual(state, f"{name}.resConfUnit1", y)
        y = residual(state, f"{name}.resConfUnit2", y)
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        path = stages[f"path_{i}"] = convolve(state, f"{name}.out_conv", y)
    assert path is not None
    stages["head1"] = convolve(state, "net.scratch.head1", path)
    stages["pixel_embed"] = stages["head1"] / stages["head1"].norm(dim=1, keepdim=True)
    return stages


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (160, 32)])
@torch.inference_mode()
def test_stages(size: tuple[int, int]) -> None:
    state = synthetic_state(OWN)
    head = synthetic_head(OWN, state)
    images = torch.randn(2, 3, *size)
    expected = plain_network(state, OWN, images)
    assert head.trunk is not None
    tokens, grid = head.trunk(images)
    levels = head.decoder.levels(tokens, grid)
    paths = head.decoder.fuse(levels)
    found = {f"hook_{i}": t for i, t in enumerate(tokens, start=1)}
    found |= {f"layer_{i}": t for i, t in enumerate(levels, start=1)}
    found |= {
        f"layer_{i}_rn": f(t) for i, f, t in zip((1, 2, 3, 4), head.decoder.lateral, levels, strict=True)
    }
    found |= {f"path_{i}": t for i, t in zip((4, 3, 2, 1), paths, strict=True)}
    found["head1"] = head.decoder.head(paths[-1])
    found["pixel_embed"] = head(Features(maps={}, image_size=size, images=images))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        atol = RTOL * float(value.abs().max())
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
    assert found["pixel_embed"].shape == (2, 24, size[0] // 2, size[1] // 2)


def plain_block(state: State, logits: Tensor, *, option: int, depth: int, activation: str) -> Tensor:
    """Class by class, with a filter of its own copy."""
    act = {"relu": torch.relu, "lrelu": lambda x: torch.where(x > 0, x, 0.01 * x), "tanh": torch.tanh}[
        activation
    ]

    def once(x: Tensor) -> Tensor:
        name = "net.scratch.head_block.depthwise.depthwise"
        kernel = state[f"{name}.weight"].repeat(x.shape[1], 1, 1, 1)
        bias = state[f"{name}.bias"].repeat(x.shape[1])
        y = F.conv2d(x, kernel, bias, padding=1, groups=x.shape[1])
        return y + x.max(dim=1, keepdim=True).values if option == 1 else y

    for _ in range(depth - 1):
        logits = act(once(logits))
    return once(logits)


@pytest.mark.parametrize("option", [1, 2])
@pytest.mark.parametrize(
    ("depth", "activation"), [(0, "relu"), (1, "tanh"), (3, "relu"), (4, "lrelu"), (2, "tanh")]
)
@torch.inference_mode()
def test_arch_options(option: int, depth: int, activation: str) -> None:
    config = replace(OWN, arch_option=option, block_depth=depth, activation=activation)
    state = synthetic_state(config)
    head = synthetic_head(config, state)
    embeddings = F.normalize(torch.randn(1, 24, 17, 21), dim=1)
    rows = F.normalize(torch.randn(6, 24), dim=1)
    plain = (1 / 0.07) * torch.einsum("bdhw,td->bthw", embeddings, rows)
    expected = plain_block(state, plain, option=option, depth=depth, activation=activation)[0]
    scores = head.classify(PixelEncoding(embeddings=embeddings), text_of(rows))
    torch.testing.assert_close(scores.logits, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(head.logits(embeddings, text_of(rows))[0], expected, rtol=1e-5, atol=1e-4)
    # Read in parts, as the maps are made.
    part = scores.cells(slice(5, 9), slice(12, 21)).permute(2, 0, 1)
    torch.testing.assert_close(part, expected[:, 5:9, 12:21], rtol=1e-5, atol=1e-4)


def test_the_published_trunk_is_timm_s() -> None:
    import timm

    from heads.lseg.config import vit_large_16_384

    with torch.device("meta"):
        model = timm.create_model("vit_large_patch16_384", pretrained=False)
    trunk = vit_large_16_384()
    assert (trunk.depth, trunk.width, trunk.heads) == (
        len(model.blocks),
        model.embed_dim,
        model.blocks[0].attn.num_heads,
    )
    assert trunk.grid == model.patch_embed.grid_size
    assert trunk.patch_size == model.patch_embed.patch_size[0]
    assert TRUNK.grid != trunk.grid
