"""CLIP's ModifiedResNet: res2..res5, MaskCLIP's value path, masked and region attention pooling.

Sources: the model, Radford et al. 2021 (open_clip `modified_resnet.py`); masked pooling, FC-CLIP
(`fcclip/modeling/backbone/clip.py`, `visual_prediction_forward`); regions, RegionCLIP
(`detectron2/modeling/roi_heads/clip_roi_heads.py`); dense, MaskCLIP (Zhou et al. 2022, "Extract Free Dense
Labels from CLIP"): value and output projection as 1x1 convolutions.

The module-level functions take an open_clip `visual` and keep gradients, so that a model can be trained
through the same paths that are used once it is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from ovperception.backbones.base import FeatureSpec
from ovperception.backbones.region_align import RegionWeights
from ovperception.backbones.regions import as_rois

__all__ = [
    "ResNetTrunk",
    "attention_pool",
    "dense_embeddings",
    "masked_attention_pool",
    "resnet_maps",
    "roi_embeddings",
    "roi_maps",
]

_MIN_LOGIT = -700.0
"""exp(-700) is not zero in float64: no mask's weights can all vanish, however little the query likes them."""


def resnet_maps(visual: Any, images: Tensor) -> dict[str, Tensor]:
    """Runs stem and stages.

    Args:
        visual: open_clip's ModifiedResNet.
        images: (B, 3, H, W) normalised; odd sizes floor at each stride.

    Returns:
        ``stem`` (after its average pooling), ``res2``, ``res3``, ``res4``, ``res5``: (B, C, h, w).
    """
    x = visual.stem(images)
    maps = {"stem": x}
    for name, layer in zip(("res2", "res3", "res4", "res5"), _layers(visual), strict=True):
        x = layer(x)
        maps[name] = x
    return maps


def _layers(visual: Any) -> tuple[Any, ...]:
    return visual.layer1, visual.layer2, visual.layer3, visual.layer4


def _resized_positions(attnpool: Any, size: tuple[int, int]) -> Tensor:
    """(h*w, C): the grid's positional embedding, bilinear (align_corners=False) at another size."""
    table = attnpool.positional_embedding[1:]
    side = round(len(table) ** 0.5)
    if size == (side, side):
        return table  # type: ignore[no-any-return]
    grid = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    return F.interpolate(grid, size, mode="bilinear", align_corners=False).flatten(2)[0].T


def _attention_logits(attnpool: Any, query: Tensor, tokens: Tensor) -> Tensor:
    """(B, N, heads): what the one query made of (B, C) thinks of the keys made of (B, N, C).

    With a single query it is cheaper to carry it through the key projection once than to project every key.
    """
    heads = attnpool.num_heads
    projected = attnpool.q_proj(query).unflatten(-1, (heads, -1))  # (B, heads, C / heads)
    projected = projected * projected.shape[-1] ** -0.5
    weight = attnpool.k_proj.weight.unflatten(0, (heads, -1))
    bias = attnpool.k_proj.bias.unflatten(0, (heads, -1))
    carried = torch.einsum("bhd,hdc->bhc", projected, weight)
    logits: Tensor = tokens @ carried.transpose(1, 2) + torch.einsum("bhd,hd->bh", projected, bias)[:, None]
    return logits


def masked_attention_pool(attnpool: Any, dense: Tensor, masks: Tensor) -> Tensor:
    """FC-CLIP's attention pooling of masked regions.

    The query is the unmasked spatial mean plus the first positional embedding, the same for every mask; keys
    and values are the cells (not the mean) plus the resized grid of positional embeddings. One query means
    one row of logits an image, so a mask's softmax is a quotient of two mask-weighted sums: both are matrix
    products shared by all masks, where the reference runs full attention for every query.

    Args:
        attnpool: open_clip's AttentionPool2d.
        dense: (B, C, h, w) last feature map.
        masks: (B, Q, h, w) bool, True inside.

    Returns:
        (B, Q, D), not normalised. An empty mask attends to nothing: its value is zero, its embedding the
        bias of the output projection (the reference gives NaN or that, depending on the attention kernel).
    """
    tokens = dense.flatten(2).transpose(1, 2)  # (B, N, C)
    query = tokens.mean(1) + attnpool.positional_embedding[0].to(tokens.dtype)
    tokens = tokens + _resized_positions(attnpool, (dense.shape[-2], dense.shape[-1])).to(tokens.dtype)
    # float64: masks share one maximum, so a mask's own weights may be tiny and must not underflow.
    logits = _attention_logits(attnpool, query, tokens).double()
    weights = (logits - logits.amax(1, keepdim=True)).clamp(min=_MIN_LOGIT).exp()  # (B, N, heads)
    values = attnpool.v_proj(tokens).double().unflatten(-1, (attnpool.num_heads, -1))
    inside = masks.flatten(2).to(weights.dtype)  # (B, Q, N)
    numerator = inside @ (weights[..., None] * values).flatten(2)  # (B, Q, C)
    denominator = inside @ weights  # (B, Q, heads)
    denominator = denominator + (denominator == 0)
    pooled = numerator.unflatten(-1, (attnpool.num_heads, -1)) / denominator[..., None]
    embedded: Tensor = attnpool.c_proj(pooled.flatten(2).to(dense.dtype))
    return embedded


def attention_pool(attnpool: Any, maps: Tensor) -> Tensor:
    """The original pooling for the one query that is read: (N, C, S, S) at the trained size -> (N, D)."""
    tokens = maps.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
    tokens = tokens + attnpool.positional_embedding.to(maps.dtype)
    logits = _attention_logits(attnpool, tokens[:, 0], tokens)
    weights = logits.float().softmax(1).to(maps.dtype)
    # Weights add up to 1: cells are averaged, a mean a head, before the heads read them, not each cell read.
    means = weights.transpose(1, 2) @ tokens  # (N, heads, C)
    heads = attnpool.num_heads
    weight, bias = attnpool.v_proj.weight.unflatten(0, (heads, -1)), attnpool.v_proj.bias
    pooled = torch.einsum("bhc,hdc->bhd", means, weight) + bias.unflatten(0, (heads, -1))
    embedded: Tensor = attnpool.c_proj(pooled.flatten(1))
    return embedded


def dense_embeddings(attnpool: Any, dense: Tensor) -> Tensor:
    """MaskCLIP's value path: (B, C, h, w) -> (B, D, h, w), not normalised, no positional embedding."""
    tokens = dense.flatten(2).transpose(1, 2)
    embedded: Tensor = attnpool.c_proj(attnpool.v_proj(tokens)).transpose(1, 2)
    return embedded.reshape(*embedded.shape[:2], *dense.shape[-2:])


def roi_maps(visual: Any, res4: Tensor, boxes: Sequence[Tensor], *, chunk: int = 128) -> Iterator[Tensor]:
    """ROIAlign on res4 and layer4 on each region: RegionCLIP's region maps before they are pooled.

    Args:
        visual: open_clip's ModifiedResNet.
        res4: (B, C, h, w), stride 16 wherever the sides of the image floor.
        boxes: B tensors (N_i, 4), xyxy in pixels of the network input; may reach outside of it.
        chunk: Regions a pass of layer4, which bounds memory.

    Yields:
        (up to `chunk`, 2 C, S, S) in the order of the boxes, S x S being the grid that the attention pool was
        trained at.
    """
    side = 2 * round((len(visual.attnpool.positional_embedding) - 1) ** 0.5)
    rois = as_rois(boxes, res4.device)
    if res4.device.type == "cpu" and res4.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        yield from _roi_maps_on_cpu(visual.layer4, res4, rois, side, chunk)
        return
    source = res4.float()
    for some in rois.split(chunk):
        crops = roi_align(source, some, side, spatial_scale=1 / 16, sampling_ratio=0, aligned=True)
        yield visual.layer4(crops.to(res4.dtype))


def _roi_maps_on_cpu(stage: Any, res4: Tensor, rois: Tensor, side: int, chunk: int) -> Iterator[Tensor]:
    """The same for less: what the stage begins with is linear, and so is ROIAlign, so they may change places.

    Its first convolution mixes channels of one cell and is done once, on the cells that regions share; of
    the shortcut, which is averaged first, only the averages are read. It pays from as many regions as have
    more bins than the map has cells.
    """
    source = res4.contiguous(memory_format=torch.channels_last)
    size = (int(res4.shape[2]), int(res4.shape[3]))
    block, rest = stage[0], stage[1:]
    shared = len(rois) * side**2 > len(res4) * size[0] * size[1]
    mixed = block.conv1(source) if shared else source
    for some in rois.split(chunk):
        weights = RegionWeights.of(some, side, size, 1 / 16)
        if not shared:
            yield stage(weights.align(source))
            continue
        x = block.act1(block.bn1(weights.align(mixed)))
        x = block.avgpool(block.act2(block.bn2(block.conv2(x))))
        x = block.bn3(block.conv3(x)) + block.downsample[1:](weights.halved().align(source))
        yield rest(block.act3(x))


def roi_embeddings(visual: Any, res4: Tensor, boxes: Sequence[Tensor], *, chunk: int = 128) -> Tensor:
    """RegionCLIP's region features: `roi_maps` through the attention pool, its query token alone.

    Args:
        visual: open_clip's ModifiedResNet.
        res4: As for `roi_maps`.
        boxes: As for `roi_maps`.
        chunk: As for `roi_maps`.

    Returns:
        (sum N_i, D), not normalised.
    """
    if not any(map(len, boxes)):
        return res4.new_zeros(0, visual.attnpool.c_proj.out_features)
    maps = roi_maps(visual, res4, boxes, chunk=chunk)
    return torch.cat([attention_pool(visual.attnpool, some) for some in maps])


class ResNetTrunk:
    """The `resnet` family: any widths and depths of open_clip's ModifiedResNet.

    Regions: masks by FC-CLIP's masked attention pooling, boxes by RegionCLIP's path.
    """

    family = "resnet"
    dense_stage = "res5"
    region_stages: tuple[str, ...] = ("res4", "res5")

    def __init__(self, visual: Any) -> None:
        self.visual = visual
        self.image_size = int(visual.image_size)
        width = visual.conv3.out_channels
        channels = [width, *(width * 4 * 2**i for i in range(4))]
        names = ("stem", "res2", "res3", "res4", "res5")
        self.stages: Mapping[str, FeatureSpec] = {
            name: FeatureSpec(channels=c, stride=s)
            for name, c, s in zip(names, channels, (4, 4, 8, 16, 32), strict=True)
        }

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Stem and res2..res5."""
        return resnet_maps(self.visual, images)

    def embed_dense(self, maps: Mapping[str, Tensor]) -> Tensor:
        """MaskCLIP's value path on res5."""
        return dense_embeddings(self.visual.attnpool, maps["res5"])

    def embed_masks(self, maps: Mapping[str, Tensor], masks: Tensor) -> Tensor:
        """FC-CLIP's masked attention pooling on res5."""
        return masked_attention_pool(self.visual.attnpool, maps["res5"], masks)

    def embed_boxes(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """RegionCLIP's region features from res4."""
        return roi_embeddings(self.visual, maps["res4"], boxes)

    def box_maps(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Iterator[Tensor]:
        """layer4 on each region of res4, some regions at a time."""
        return roi_maps(self.visual, maps["res4"], boxes)
