"""Panoptic maps whose things come in turn: against the obvious way, by hand, and beside the other rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ovperception.head import MaskScores
from ovperception.images import Geometry
from ovperception.postprocess import cut_masks, panoptic
from tests.ovperception.postprocess.samples import GEOMETRIES, WHOLE, full, halves, mask_scores, vocabulary


def slow(scores: MaskScores, geometry: Geometry, things: int, overlap: float) -> NDArray[np.int64]:
    """The class of each pixel plus 1, and for things the number of the mask times 10 beside it; 0 is void."""
    best, labels = scores.probabilities.max(dim=1)
    sure = full(scores.mask_logits, geometry).sigmoid()
    found = np.zeros(geometry.original, np.int64)
    rank = {
        q: best[q] * sure[q][sure[q] > 0.5].mean()
        for q in range(len(best))
        if labels[q] < things and (sure[q] > 0.5).any()
    }
    for q in sorted(rank, key=lambda q: -rank[q].item()):
        mask = (sure[q] > 0.5).numpy()
        free = mask & (found == 0)
        if free.sum() / mask.sum() >= overlap:
            found[free] = 10 * (q + 1) + labels[q].item() + 1
    stuff = [q for q in range(len(best)) if things <= labels[q] < scores.probabilities.shape[1] - 1]
    if not stuff:
        return found
    winner = (best[stuff, None, None] * sure[stuff]).argmax(dim=0).numpy()
    for place, q in enumerate(stuff):
        mask = (sure[q] >= 0.5).numpy()
        if mask.any() and (winner == place).sum() / mask.sum() >= overlap:
            found[(winner == place) & mask & (found == 0)] = labels[q].item() + 1
    return found


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("overlap", [0.3, 0.8])
def test_against_the_obvious(geometry: Geometry, overlap: float) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        scores = mask_scores()
        words = vocabulary(5, stuff=2)
        found = panoptic(scores, geometry, words, rule="masks", overlap_threshold=overlap)
        expected = slow(scores, geometry, 3, overlap)
        assert (expected > 0).any() == bool(found.segments)
        np.testing.assert_array_equal(found.ids > 0, expected > 0)
        for segment in found.segments:
            (value,) = np.unique(expected[found.ids == segment.id])
            assert segment.area == np.count_nonzero(expected == value)
            assert segment.class_id == value % 10 - 1
            assert segment.is_thing == (value > 10)


def test_a_surer_neighbour_does_not_eat_the_edges_of_a_doubtful_one() -> None:
    """The neighbour says 0.45 of the right half, and is named twice as surely as what is there."""
    left, right, _ = halves()
    neighbour = torch.where(left > 0, left, torch.tensor(-0.2))
    scores = MaskScores(
        probabilities=torch.tensor([[0.95, 0.0, 0.05], [0.4, 0.0, 0.3]]),
        mask_logits=torch.stack((neighbour, right)),
    )
    words = vocabulary(2)
    np.testing.assert_array_equal(panoptic(scores, WHOLE, words).ids, [[1, 1, 0, 0]] * 4)
    np.testing.assert_array_equal(panoptic(scores, WHOLE, words, rule="masks").ids, [[1, 1, 2, 2]] * 4)


def test_a_thing_lies_on_stuff_however_sure_that_is() -> None:
    left, _, everything = halves()
    scores = MaskScores(
        probabilities=torch.tensor([[0.3, 0.0, 0.2], [0.0, 1.0, 0.0]]),
        mask_logits=torch.stack((left, everything + 9)),
    )
    found = panoptic(scores, WHOLE, vocabulary(2, stuff=1), rule="masks")
    np.testing.assert_array_equal(found.ids, [[1, 1, 2, 2]] * 4)
    assert [(s.is_thing, s.area) for s in found.segments] == [(True, 8), (False, 8)]


def test_the_second_of_two_alike_is_left_out() -> None:
    left, right, _ = halves()
    scores = MaskScores(
        probabilities=torch.tensor([[0.5, 0.1, 0.4], [0.1, 0.6, 0.3], [0.7, 0.2, 0.1]]),
        mask_logits=torch.stack((left, left, right)),
    )
    found = panoptic(scores, WHOLE, vocabulary(2), rule="masks")
    assert [(s.class_id, s.area) for s in found.segments] == [(1, 8), (0, 8)]


def test_nothing_but_stuff_and_nothing_but_things() -> None:
    scores = MaskScores(probabilities=torch.tensor([[0.9, 0.1]] * 3), mask_logits=halves())
    assert panoptic(scores, WHOLE, vocabulary(1, stuff=1), rule="masks").segments[0].area == 16
    assert len(panoptic(scores, WHOLE, vocabulary(1), rule="masks").segments) == 2
    void = MaskScores(probabilities=torch.tensor([[0.1, 0.9]] * 3), mask_logits=halves())
    assert panoptic(void, WHOLE, vocabulary(1), rule="masks").segments == ()


def test_masks_that_were_encoded_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, words = mask_scores(), vocabulary(5, stuff=1)
    expected = panoptic(scores, GEOMETRIES[2], words, rule="masks").ids
    monkeypatch.setattr(cut_masks, "_MOST_PIXELS", 0)
    np.testing.assert_array_equal(panoptic(scores, GEOMETRIES[2], words, rule="masks").ids, expected)
