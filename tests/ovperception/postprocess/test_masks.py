"""Objects, maps and segments from masks: against the obvious way, and what must not matter."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco

from ovperception.head import MaskScores, PixelScores
from ovperception.images import Geometry
from ovperception.postprocess import (
    cut_masks,
    draft_instances,
    drop_fragments,
    instances,
    panoptic,
    semantic,
)
from ovperception.rle import RLE
from tests.ovperception.postprocess.samples import GEOMETRIES, full, mask_scores, vocabulary


@pytest.mark.parametrize("geometry", GEOMETRIES)
class TestAgainstTheObvious:
    def test_semantic(self, geometry: Geometry) -> None:
        scores = mask_scores()
        votes = torch.einsum(
            "qk,qhw->khw", scores.probabilities[:, :-1], full(scores.mask_logits, geometry).sigmoid()
        )
        found = semantic(scores, geometry, vocabulary(5))
        best = votes.max(dim=0)
        np.testing.assert_allclose(found.scores, best.values, rtol=0, atol=3e-6)
        gap = votes.topk(2, dim=0).values
        clear = ((gap[0] - gap[1]) > 1e-5).numpy()
        np.testing.assert_array_equal(found.labels[clear], best.indices.numpy()[clear])

    def test_pixels(self, geometry: Geometry) -> None:
        logits = torch.randn(5, 16, 24) * 4
        found = semantic(PixelScores(logits=logits), geometry, vocabulary(5))
        best = full(logits, geometry).softmax(dim=0).max(dim=0)
        np.testing.assert_array_equal(found.labels, best.indices)
        np.testing.assert_allclose(found.scores, best.values, rtol=0, atol=1e-5)

    def test_panoptic(self, geometry: Geometry) -> None:
        for seed in range(5):
            torch.manual_seed(seed)
            scores = mask_scores()
            found = panoptic(scores, geometry, vocabulary(5, stuff=2))
            ids, segments = slow_panoptic(scores, geometry, things=3)
            np.testing.assert_array_equal(found.ids, ids)
            assert [(s.id, s.class_id) for s in found.segments] == segments
            for segment in found.segments:
                assert segment.area == (ids == segment.id).sum()

    def test_instances(self, geometry: Geometry) -> None:
        scores = mask_scores()
        found = instances(scores, geometry, vocabulary(5), max_detections=30)
        sure = full(scores.mask_logits, geometry)
        expected = []
        top, pairs = scores.probabilities[:, :-1].flatten().topk(30)
        for value, pair in zip(top.tolist(), pairs.tolist(), strict=True):
            mask = sure[pair // 5] > 0
            if mask.any():
                score = value * float(sure[pair // 5].sigmoid()[mask].sum() / (mask.sum() + 1e-6))
                expected.append((score, pair % 5, coco.encode(np.asfortranarray(mask.byte().numpy()))))
        expected.sort(key=lambda e: -e[0])
        np.testing.assert_allclose(found.scores, [e[0] for e in expected], rtol=1e-5)
        assert found.class_ids.tolist() == [e[1] for e in expected]
        assert found.masks is not None
        assert [m.counts for m in found.masks] == [e[2]["counts"] for e in expected]
        for box, (_, _, rle) in zip(found.boxes, expected, strict=True):
            left, top_, width, height = coco.toBbox(rle)
            np.testing.assert_array_equal(box, [left, top_, left + width, top_ + height])


def slow_panoptic(
    scores: MaskScores, geometry: Geometry, things: int
) -> tuple[NDArray[np.int32], list[tuple[int, int]]]:
    """The merge one mask at a time, on full maps."""
    best, labels = scores.probabilities.max(dim=1)
    kept = labels != scores.probabilities.shape[1] - 1
    best, labels = best[kept], labels[kept]
    sure = full(scores.mask_logits[kept], geometry).sigmoid()
    ids = np.zeros(geometry.original, np.int32)
    if len(best) == 0:
        return ids, []
    winner = (best[:, None, None] * sure).argmax(dim=0)
    segments: list[tuple[int, int]] = []
    stuff: dict[int, int] = {}
    for query, label in enumerate(labels.tolist()):
        mask = (winner == query) & (sure[query] >= 0.5)
        if not mask.any() or (winner == query).sum() / (sure[query] >= 0.5).sum() < 0.8:
            continue
        if label in stuff:
            ids[mask.numpy()] = stuff[label]
            continue
        segments.append((len(segments) + 1, label))
        ids[mask.numpy()] = len(segments)
        if label >= things:
            stuff[label] = len(segments)
    return ids, segments


class TestWhatMustNotMatter:
    @pytest.mark.parametrize("size", [(7, 11), (1000, 1000)])
    def test_the_size_of_the_tiles(self, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        scores, geometry, words = mask_scores(), GEOMETRIES[2], vocabulary(5, stuff=2)
        labels = semantic(scores, geometry, words).labels
        ids = panoptic(scores, geometry, words).ids
        monkeypatch.setattr("ovperception.postprocess.resize._TILE", size)
        np.testing.assert_array_equal(semantic(scores, geometry, words).labels, labels)
        np.testing.assert_array_equal(panoptic(scores, geometry, words).ids, ids)

    def test_the_order_of_the_words(self) -> None:
        scores, geometry = mask_scores(classes=3), GEOMETRIES[1]
        straight = semantic(scores, geometry, vocabulary(3)).labels
        for order in itertools.permutations(range(3)):
            permuted = MaskScores(
                probabilities=scores.probabilities[:, [*order, 3]], mask_logits=scores.mask_logits
            )
            found = semantic(permuted, geometry, vocabulary(3)).labels
            np.testing.assert_array_equal(np.array(order)[found], straight)

    def test_a_flipped_picture(self) -> None:
        geometry = GEOMETRIES[0]
        scores = mask_scores()
        flipped = MaskScores(probabilities=scores.probabilities, mask_logits=scores.mask_logits.flip(2))
        words = vocabulary(5, stuff=2)
        np.testing.assert_array_equal(
            semantic(flipped, geometry, words).labels, semantic(scores, geometry, words).labels[:, ::-1]
        )
        straight, mirrored = (instances(s, geometry, words) for s in (scores, flipped))
        np.testing.assert_allclose(straight.scores, mirrored.scores, rtol=1e-5)
        width = geometry.original[1]
        np.testing.assert_array_equal(straight.boxes[:, [0, 2]], width - mirrored.boxes[:, [2, 0]])


def test_strings_of_many_blobs_equal_the_reference() -> None:
    geometry = Geometry(original=(180, 240), resized=(120, 160), padded=(128, 160))
    torch.manual_seed(7)
    scores = mask_scores(queries=100, classes=1, grid=(32, 40))
    found = instances(scores, geometry, vocabulary(1), max_detections=100)
    assert found.masks is not None
    sure = full(scores.mask_logits, geometry)
    expected = {
        coco.encode(np.asfortranarray((mask > 0).byte().numpy()))["counts"]
        for mask in sure
        if (mask > 0).any()
    }
    assert {m.counts for m in found.masks} == expected


def test_small_fragments_of_a_mask_are_dropped_when_asked() -> None:
    logits = torch.full((1, 16, 16), -5.0)
    logits[0, 2:8, 2:8] = 5
    logits[0, 13:15, 13:15] = 5  # a ninth of the large part
    scores = MaskScores(probabilities=torch.tensor([[0.9, 0.1]]), mask_logits=logits)
    geometry = Geometry(original=(16, 16), resized=(16, 16), padded=(16, 16))
    boxes = [
        instances(
            replace(scores, mask_logits=drop_fragments(logits, share)), geometry, vocabulary(1)
        ).boxes.tolist()
        for share in (0.0, 0.1, 0.2)
    ]
    assert boxes == [[[2, 2, 15, 15]], [[2, 2, 15, 15]], [[2, 2, 8, 8]]]
    assert drop_fragments(logits, 0.1) is logits  # nothing was small enough


def test_masks_beyond_what_a_draft_holds_are_encoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, encoded = RLE.from_crop, []

    def count(*rest: Any) -> RLE:
        encoded.append(rest)
        return encode(*rest)

    monkeypatch.setattr(RLE, "from_crop", count)
    scores = mask_scores()
    finish = draft_instances(scores, GEOMETRIES[0], vocabulary(5), max_detections=30)
    assert not encoded
    expected = finish()
    monkeypatch.setattr(cut_masks, "_MOST_PIXELS", 0)
    finish = draft_instances(scores, GEOMETRIES[0], vocabulary(5), max_detections=30)
    del encoded[:]
    found = finish()
    assert not encoded
    assert found.masks == expected.masks
    np.testing.assert_array_equal(found.boxes, expected.boxes)
