"""Mosaics and the contrastive loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovperception.training.contrastive import contrastive_loss, truths
from ovperception.training.mosaics import CaptionedCell, MosaicBatch, MosaicSampler

SMALL = MosaicSampler(cells=16, negatives=5, canvas=128, native_share=0.0, tile_sizes=((64, 1.0),))


def test_a_batch_is_the_same_for_the_same_step_and_another_for_another() -> None:
    first, again, other = SMALL.batch(3), SMALL.batch(3), SMALL.batch(4)
    assert np.array_equal(first.canvases, again.canvases)
    assert [c.caption for c in first.cells] == [c.caption for c in again.cells]
    assert not np.array_equal(first.canvases, other.canvases)


def test_tiles_of_a_canvas_are_pooled_apart() -> None:
    batch = SMALL.batch(0)
    assert batch.masks is not None
    count, tiles, height, width = batch.masks.shape
    assert (tiles, height, width) == (4, 4, 4)
    assert batch.canvases.shape == (count, 128, 128, 3)
    assert len(batch.cells) == count * tiles
    assert (batch.masks.sum(axis=1) == 1).all()  # every feature cell belongs to exactly one tile


def test_native_batches_have_no_masks() -> None:
    batch = MosaicSampler(cells=4, negatives=2, native_share=1.0).batch(0)
    assert batch.masks is None
    assert batch.canvases.shape == (4, 64, 64, 3)


def _cell(category: int, colour: int = -1, *, said: bool = False) -> CaptionedCell:
    return CaptionedCell(
        category=category, colour=colour, stuff=-1, caption="", said_colour=said, said_stuff=False
    )


def test_a_caption_is_true_of_every_tile_it_does_not_contradict() -> None:
    cells = (_cell(1, 5, said=True), _cell(1, 5), _cell(1, 6, said=True), _cell(2))
    batch = MosaicBatch(
        canvases=np.zeros((1, 64, 64, 3), np.uint8),
        masks=None,
        cells=cells,
        negatives=("", ""),
        negative_categories=(2, 9),
    )
    own, true = truths(batch)
    assert own.tolist() == [0, 1, 2, 3]
    assert true.astype(int).tolist() == [
        [1, 1, 0, 0, 0, 0],  # a purple 1: "purple 1", "1"; not "green 1"
        [1, 1, 0, 0, 0, 0],  # the same, though its own caption does not say so
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0],
    ]


def test_other_true_captions_are_left_out_of_the_loss() -> None:
    images = torch.eye(2, 4)
    texts = torch.cat((images, images[:1]))  # the third text is as good for image 0 as its own
    true = torch.tensor([[True, False, True], [False, True, False]])
    losses = contrastive_loss(images, texts, torch.tensor(10.0), true)
    alone = contrastive_loss(images, texts[:2], torch.tensor(10.0), true[:, :2])
    assert float(losses["text_to_image"]) == pytest.approx(float(alone["text_to_image"]))
    # Only image 1 sees the third text as one more wrong answer.
    wrong = torch.tensor([10.0, 0.0, 0.0]).log_softmax(0)[0]
    right = torch.tensor([10.0, 0.0]).log_softmax(0)[0]
    assert float(losses["image_to_text"]) == pytest.approx(-0.5 * float(wrong + right) / 2, rel=1e-4)
