"""Zero-shot classification of single objects: what the frozen CLIP knows, before any head.

Two kinds of pictures: crops drawn for the purpose, one object near the middle of a square, and crops cut out
of scenes by the true box. Both are squashed to the size the CLIP was trained at and named by the nearest
text embedding; a class scores as its best synonym.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from eval.scenes.naming import Pairs
from ovperception.datasets.scenes import SceneCategory, SceneSample, render_crop
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.model import Model

__all__ = ["CONTEXT", "SMALLEST_CROP", "CropNamer", "drawn_crops", "scene_crops"]

CONTEXT = 0.1
"""How far a crop of a scene reaches beyond the box on each side, in sides of the box."""

SMALLEST_CROP = 64
"""Side in pixels that crops are drawn at, if the CLIP does not want them larger."""

_SEED = 20_240_229
_BATCH = 64

Crop = tuple[NDArray[np.uint8], int]
"""(h, w, 3) RGB and the id of its category."""


def drawn_crops(categories: Sequence[SceneCategory], per_class: int, side: int) -> Iterator[Crop]:
    """Draws the same crops of things at every call.

    Args:
        categories: stuff among them is passed over.
        per_class: crops of each thing.
        side: of the crop in pixels.
    """
    for category in categories:
        if not category.is_thing:
            continue
        for number in range(per_class):
            rng = np.random.Generator(np.random.PCG64([_SEED, category.id, number]))
            yield render_crop(rng, category.id, side), category.id


def scene_crops(sample: SceneSample, categories: Sequence[SceneCategory]) -> Iterator[Crop]:
    """Cuts the things of a scene out by their true box, with some context, as far as the picture goes."""
    known = frozenset(c.id for c in categories if c.is_thing)
    height, width = sample.panoptic.shape
    for segment in sample.things:
        if segment.category_id not in known:
            continue
        x0, y0, x1, y1 = segment.box
        margin_x, margin_y = CONTEXT * (x1 - x0), CONTEXT * (y1 - y0)
        left, right = max(round(x0 - margin_x), 0), min(round(x1 + margin_x), width)
        top, bottom = max(round(y0 - margin_y), 0), min(round(y1 + margin_y), height)
        yield sample.image[top:bottom, left:right], segment.category_id


class CropNamer:
    """Names crops by the nearest text.

    Args:
        model: whose backbone looks.
        categories: the things to choose from; stuff among them is passed over.
        vocabulary: their names, one class a thing in the same order.
    """

    def __init__(self, model: Model, categories: Sequence[SceneCategory], vocabulary: Vocabulary) -> None:
        self._model = model
        things = [c for c in categories if c.is_thing]
        self._index = {c.id: i for i, c in enumerate(things)}
        self._classifier = model.classifier(vocabulary)

    def names(self, crops: Iterable[Crop]) -> Pairs:
        """What each crop is, and what it was called; they are looked at 64 at a time."""
        left = iter(crops)
        rows = [np.zeros((0, 2), np.int64)]
        while batch := list(islice(left, _BATCH)):
            true = np.array([self._index[category_id] for _, category_id in batch], np.int64)
            rows.append(np.column_stack([true, self._chosen([crop for crop, _ in batch])]))
        return np.concatenate(rows)

    def _fitted(self, crop: NDArray[np.uint8]) -> torch.Tensor:
        side = self._model.spec.image_size
        picture = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None].float() / 255
        if picture.shape[2:] != (side, side):
            picture = F.interpolate(picture, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        return picture[0]

    @torch.inference_mode()
    def _chosen(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
        spec = self._model.spec
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
        images = (torch.stack([self._fitted(crop) for crop in crops]) - mean) / std
        embeddings = F.normalize(self._model.backbone.embed_image(images).float(), dim=-1)
        rows = self._classifier.embeddings.to(embeddings)
        chosen = self._classifier.reduce(embeddings @ rows.T).argmax(dim=1).cpu().numpy()
        return np.asarray(chosen, np.int64)
