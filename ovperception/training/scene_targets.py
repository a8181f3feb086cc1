"""Training samples from the procedural world: base classes alone, with their masks and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from ovperception.datasets import scenes
from ovperception.datasets.scenes.vocabulary import chosen_categories
from ovperception.training.targets import Targets

if TYPE_CHECKING:
    from ovperception.preprocess import Preprocessing

__all__ = ["SceneBatches"]


@dataclass(frozen=True)
class SceneBatches:
    """Batches of scenes by number.

    Attributes:
        preprocessing: as the finished model will use it.
        batch_size: scenes in a batch.
        size: (height, width) of a scene in pixels.
        objects: fewest and most things in a scene.
        large_share: share of the steps that see one scene of twice the side instead of four, with things of
            twice the size: the same pixels, and sizes that small scenes have no room for.
        enlarged: largest factor by which scenes are drawn smaller and then enlarged to the size; a step's
            scenes share one, drawn evenly from 1 on.
        split: of the scenes, ``train`` or ``val``.
    """

    preprocessing: Preprocessing
    batch_size: int
    size: tuple[int, int]
    objects: tuple[int, int]
    large_share: float
    enlarged: float
    split: Literal["train", "val"] = "train"

    def names(self, number: int) -> list[str]:
        """The scenes' places in the world, as `ovp data scenes` numbers them."""
        start = number * self.batch_size
        return [f"{self.split} scene {start + k}" for k in range(self.batch_size)]

    def __getitem__(self, step: int) -> tuple[Tensor, list[Targets]]:
        """Normalised images (B, 3, H, W) and their truths; class ids index ``scenes_vocabulary("base")``."""
        rng = np.random.Generator(np.random.PCG64([7, step]))
        large = rng.random() < self.large_share
        factor, count = (2, max(1, self.batch_size // 4)) if large else (1, self.batch_size)
        enlarged = rng.uniform(1, self.enlarged)
        start = step * self.batch_size
        samples = [self._sample(start + k, factor, enlarged) for k in range(count)]
        return torch.stack([image for image, _ in samples]), [truth for _, truth in samples]

    def _sample(self, index: int, factor: int, enlarged: float) -> tuple[Tensor, Targets]:
        known = chosen_categories("base")
        things = [c for c in known if c.is_thing]
        weight = {"f": 1.0, "c": 0.6, "r": 0.3}
        sample = scenes.render_scene(
            scenes.scene_seed(self.split, index),
            (round(self.size[0] * factor / enlarged), round(self.size[1] * factor / enlarged)),
            categories=[c.id for c in things],
            weights=[weight[c.frequency] for c in things],
            count=(self.objects[0] + factor - 1, self.objects[1] * (3 * factor - 1) // 2),
        )
        class_of = {c.id: i for i, c in enumerate(known)}
        size = (self.size[1] * factor, self.size[0] * factor)
        pixels = cv2.resize(sample.image, size, interpolation=cv2.INTER_LINEAR)
        image, geometry = self.preprocessing.apply(pixels.astype(np.uint8, copy=False))
        masks = np.stack([sample.panoptic == segment.id for segment in sample.segments])
        scale = size[0] / sample.image.shape[1], size[1] / sample.image.shape[0]
        boxes = np.asarray([segment.box for segment in sample.segments], np.float32) * np.tile(scale, 2)
        truth = Targets(
            class_ids=torch.tensor([class_of[s.category_id] for s in sample.segments]),
            masks=_to_frame(torch.from_numpy(masks), geometry.resized, geometry.padded),
            boxes=torch.from_numpy(geometry.boxes_to_network(boxes.astype(np.float32))),
        )
        return image, truth


def _to_frame(masks: Tensor, resized: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """(N, H, W) bool in pixels of the scene to (N, Hp, Wp) bool in pixels of the network input."""
    if masks.shape[1:] != resized:
        grown = torch.nn.functional.interpolate(masks[:, None].float(), size=resized, mode="nearest-exact")
        masks = grown[:, 0] > 0
    bottom, right = padded[0] - resized[0], padded[1] - resized[1]
    return torch.nn.functional.pad(masks, (0, right, 0, bottom)) if bottom or right else masks
