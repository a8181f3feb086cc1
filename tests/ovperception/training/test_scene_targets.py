"""Training samples of scenes: their truth fits the pixels, enlarged or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovperception.preprocess import Preprocessing
from ovperception.training.scene_targets import SceneBatches


@pytest.mark.parametrize("enlarged", [1.0, 1.6])
@pytest.mark.parametrize("large_share", [0.0, 1.0])
def test_masks_and_boxes_fit_each_other(enlarged: float, large_share: float) -> None:
    batches = SceneBatches(
        preprocessing=Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), longest_edge=1024),
        batch_size=4,
        size=(96, 128),
        objects=(2, 4),
        large_share=large_share,
        enlarged=enlarged,
    )
    for step in range(3):
        images, targets = batches[step]
        assert images.shape == ((1, 3, 192, 256) if large_share else (4, 3, 96, 128))
        for target in targets:
            assert target.masks.shape[1:] == images.shape[2:]
            assert (target.masks.sum(0) == 1).all()  # every pixel belongs to one segment
            for mask, box in zip(target.masks, target.boxes, strict=True):
                ys, xs = torch.nonzero(mask, as_tuple=True)
                tight = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
                assert np.abs(tight - box.numpy()).max() <= (1.7 if enlarged > 1 else 0)
