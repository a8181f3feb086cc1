"""Every transformer layer on its own: given what went into the official one, it gives what came out of that.

`golden_r50_layers.npz` holds whole tensors of one run of the official code with the weights of
`tests.synth`, at 32 x 96 with 20 queries; `python -m benchmarks.official_fcclip_layers` makes it anew. No
layer runs on from ours before it, so that the hard masks of one cannot hide or cause an error in the next.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.fcclip import FCCLIP
from heads.fcclip.position import reference_points, sine_encoding
from tests import synth
from tests.heads.fcclip.conftest import Official, golden

pytestmark = pytest.mark.parity

TOLERANCE = 1e-5
"""Largest absolute difference, float32, of normalised states; of logits, relative to the largest."""
SHAPES = ((1, 3), (2, 6), (4, 12))
"""(h, w) of the levels, coarsest first."""


@pytest.fixture(scope="module")
def head(r50: Official) -> FCCLIP:
    return r50.head


@pytest.fixture(scope="module")
def layers() -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in golden("golden_r50_layers").items()}


def levels_of(layers: dict[str, Tensor]) -> list[Tensor]:
    """What the mask decoder looks at, (1, dim, h, w) each: the tokens after the last deformable layer."""
    pieces = layers["tokens"][-1].split([h * w for h, w in SHAPES])
    return [piece.T.unflatten(1, shape)[None] for piece, shape in zip(pieces, SHAPES, strict=True)]


def query_positions(layers: dict[str, Tensor]) -> Tensor:
    """(Q, dim): the weights of a name depend on their shape, and the file has fewer queries than the head."""
    return synth.tensor("sem_seg_head.predictor.query_embed.weight", layers["states"].shape[1:])


def assert_same(found: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(found, reference, rtol=0, atol=TOLERANCE)


def test_positions_of_the_pixel_decoder(head: FCCLIP, layers: dict[str, Tensor]) -> None:
    embeddings = head.pixel_decoder.level_embeddings
    found = [
        sine_encoding(*shape, embeddings.shape[1], embeddings.device)[0] + embeddings[level]
        for level, shape in enumerate(SHAPES)
    ]
    assert_same(torch.cat(found).detach(), layers["positions"])


@pytest.mark.parametrize("index", range(6))
@torch.inference_mode()
def test_deformable_layer(index: int, head: FCCLIP, layers: dict[str, Tensor]) -> None:
    tokens, positions = layers["tokens"], layers["positions"]
    reference = reference_points(SHAPES, tokens.device)
    layer = head.pixel_decoder.layers[index]
    assert_same(layer(tokens[index][None], positions[None], reference, SHAPES)[0], tokens[index + 1])


@pytest.mark.parametrize("index", range(9))
@torch.inference_mode()
def test_decoder_layer(index: int, head: FCCLIP, layers: dict[str, Tensor]) -> None:
    decoder, states = head.mask_decoder, layers["states"]
    memory, encoding = decoder._memory(levels_of(layers))[index % len(SHAPES)]
    attendable = ~layers[f"blocked_{index}"][None, None]
    found = decoder.layers[index](states[index][None], query_positions(layers), memory, encoding, attendable)
    assert_same(found[0], states[index + 1])


def test_most_masks_of_the_file_block_a_part(layers: dict[str, Tensor]) -> None:
    """Of masks that block nothing, as three of the file do, the others would tell nothing."""
    shares = [layers[f"blocked_{index}"].float().mean().item() for index in range(9)]
    assert sum(0.1 < share < 0.97 for share in shares) >= 6


@pytest.mark.parametrize("index", range(9))
@torch.inference_mode()
def test_hard_mask_of_a_layer(index: int, head: FCCLIP, layers: dict[str, Tensor]) -> None:
    """Cells whose logit is within rounding of zero aside."""
    decoder, features = head.mask_decoder, layers["mask_features"][None]
    state = decoder.norm(layers["states"][index][None])
    shape = SHAPES[index % len(SHAPES)]
    attendable = decoder._attendable_from(state, features, shape)[0, 0]
    blocked = layers[f"blocked_{index}"]
    resized = F.interpolate(
        decoder.mask_logits(state, features), size=shape, mode="bilinear", align_corners=False
    )[0].flatten(1)
    clear = (resized.abs() > TOLERANCE * resized.abs().max()) | (resized < 0).all(dim=1, keepdim=True)
    np.testing.assert_array_equal(attendable[clear], ~blocked[clear])
    assert clear.float().mean() > 0.99


@torch.inference_mode()
def test_masks_after_the_last_layer(head: FCCLIP, layers: dict[str, Tensor]) -> None:
    decoder, reference = head.mask_decoder, layers["mask_logits"]
    found = decoder.mask_logits(decoder.norm(layers["states"][-1][None]), layers["mask_features"][None])[0]
    torch.testing.assert_close(found, reference, rtol=0, atol=float(TOLERANCE * reference.abs().max()))
