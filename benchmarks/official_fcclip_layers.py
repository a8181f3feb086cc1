"""What goes into every transformer layer of the official FC-CLIP, and what comes out of it, as a small file.

    python -m benchmarks.official_fcclip_layers --official official tests/data/fcclip/golden_r50_layers.npz

`benchmarks.official_fcclip` tells how `official` is got; no line of it is changed. The picture is 32 x 96 and
there are 20 queries, which are settings of theirs: whole tensors can then be kept, where the other golden
files keep samples. No layer's weights depend on either number.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.official_fcclip import Official
from tests import synth

__all__ = ["record"]

_SIZE = (32, 96)
_QUERIES = 20


def record(folder: Path) -> dict[str, NDArray[Any]]:
    """Run the official code once.

    Returns:
        ``tokens`` (layers + 1, S, dim) before the first and after every deformable layer, and their
        ``positions`` (S, dim); ``mask_features`` (dim, H, W); ``states`` (layers + 1, Q, dim) before the
        first and after every layer of the mask decoder; ``blocked_0``, ``blocked_1``, ... (Q, h w) bool,
        where each layer's queries may not look; ``mask_logits`` (Q, H, W) after the last.
    """
    official = Official(
        folder, "r50", _picture(), _rows, settings=("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", _QUERIES)
    )
    head = official.model.sem_seg_head
    decoder, encoder = head.predictor, head.pixel_decoder.transformer.encoder
    tokens: list[Tensor] = []
    positions: list[Tensor] = []
    states: list[Tensor] = []
    blocked: list[Tensor] = []
    final: dict[str, Tensor] = {}

    def deformable(_: Any, given: tuple[Tensor, ...], made: Tensor) -> None:
        if not tokens:
            tokens.append(given[0][0])
            positions.append(given[1][0])
        tokens.append(made[0])

    def crossing(_: Any, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        if not states:
            states.append(given[0][:, 0])
        mask = named["memory_mask"]  # (heads, Q, h w): the same for every head
        assert torch.equal(mask, mask[:1].expand_as(mask))
        blocked.append(mask[0].clone())

    def deciding(_: Any, given: tuple[Any, ...], made: dict[str, Tensor]) -> None:
        final["mask_features"], final["mask_logits"] = given[1][0], made["pred_masks"][0]

    for layer in encoder.layers:
        layer.register_forward_hook(deformable)
    for layer in decoder.transformer_cross_attention_layers:
        layer.register_forward_pre_hook(crossing, with_kwargs=True)
    for layer in decoder.transformer_ffn_layers:
        layer.register_forward_hook(lambda _m, _given, made: states.append(made[:, 0]))
    decoder.register_forward_hook(deciding)
    official.answer()
    kept = {"tokens": torch.stack(tokens), "positions": positions[0], "states": torch.stack(states)}
    kept |= final | {f"blocked_{layer}": mask for layer, mask in enumerate(blocked)}
    return {name: value.numpy() for name, value in kept.items()}


def _picture() -> NDArray[np.uint8]:
    """Soft blobs of colour, from a seed."""
    coarse = torch.from_numpy(np.random.RandomState(0).uniform(0, 255, (1, 3, 4, 12)))
    smooth = torch.nn.functional.interpolate(coarse, size=_SIZE, mode="bicubic").clamp(0, 255)
    return smooth[0].permute(1, 2, 0).to(torch.uint8).numpy()


def _rows(texts: int, dim: int) -> Tensor:
    return torch.nn.functional.normalize(synth.tensor("rows", (texts + 1, dim)), dim=-1)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, required=True, help="folder with the official code")
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    np.savez_compressed(chosen.out, **record(chosen.official))
    print(f"{chosen.out}: {chosen.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
