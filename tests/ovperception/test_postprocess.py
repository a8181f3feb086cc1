"""Scores to answers: worked by hand, against the obvious way of doing it, and by what must not matter."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco
from torch import Tensor

from ovperception.errors import InvalidParameter
from ovperception.head import BoxRules, BoxScores, MaskScores, PixelScores
from ovperception.images import Geometry
from ovperception.postprocess import boxes, drop_fragments, instances, panoptic, semantic, soft_nms
from ovperception.postprocess.box_masks import paste
from ovperception.postprocess.resize import Resizer, Window, tiles
from ovperception.structures import Detections, PanopticMap
from ovperception.vocabulary import Vocabulary, VocabularyClass

GEOMETRIES = [
    Geometry(original=(64, 96), resized=(64, 96), padded=(64, 96)),
    Geometry(original=(50, 83), resized=(60, 90), padded=(64, 96)),
    Geometry(original=(150, 211), resized=(61, 86), padded=(64, 96)),
    Geometry(original=(7, 5), resized=(64, 46), padded=(64, 96)),
    Geometry(original=(1, 1), resized=(1, 1), padded=(64, 96)),
]


def vocabulary(classes: int, stuff: int = 0) -> Vocabulary:
    return Vocabulary(
        classes=tuple(
            VocabularyClass(name=f"class {i}", is_thing=i < classes - stuff) for i in range(classes)
        )
    )


def mask_scores(queries: int = 20, classes: int = 5, grid: tuple[int, int] = (16, 24)) -> MaskScores:
    noise = torch.randn(1, queries, *(-(-g // 4) for g in grid))
    smooth = F.interpolate(noise, size=grid, mode="bicubic", align_corners=False)[0] * 6 - 2
    probabilities = (torch.randn(queries, classes + 1) * 3).softmax(-1)
    return MaskScores(probabilities=probabilities, mask_logits=smooth)


def full(logits: Tensor, geometry: Geometry) -> Tensor:
    """All masks at full resolution, in the reference's two steps."""
    padded = F.interpolate(logits[None], size=geometry.padded, mode="bilinear", align_corners=False)
    picture = padded[..., : geometry.resized[0], : geometry.resized[1]]
    return F.interpolate(picture, size=geometry.original, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("geometry", GEOMETRIES)
class TestResizing:
    def test_equals_two_interpolations(self, geometry: Geometry) -> None:
        logits = torch.randn(3, 16, 24)
        whole = Window(0, geometry.original[0], 0, geometry.original[1])
        resizer, expected = Resizer(geometry, (16, 24)), full(logits, geometry)
        for grid, picture in zip(logits, expected, strict=True):
            torch.testing.assert_close(resizer.one(grid, whole), picture, rtol=0, atol=2e-6)

    def test_windows_are_parts_of_the_whole(self, geometry: Geometry) -> None:
        logits = torch.randn(3, 16, 24)
        expected = full(logits, geometry)
        resizer = Resizer(geometry, (16, 24))
        covered = np.zeros(geometry.original, int)
        for window in tiles(geometry.original):
            part = np.s_[window.top : window.bottom, window.left : window.right]
            covered[part] += 1
            cells = resizer.cells(logits.permute(1, 2, 0), window)
            piece = expected[:, part[0], part[1]]
            found = resizer.expand(cells, window).T.unflatten(1, window.size)
            torch.testing.assert_close(found, piece, rtol=0, atol=2e-6)
            torch.testing.assert_close(resizer.one(logits[1], window), piece[1], rtol=0, atol=2e-6)
            assert float(cells.amax()) + 1e-5 >= float(piece.amax())
        assert (covered == 1).all()

    def test_nothing_positive_lies_outside_the_extent(self, geometry: Geometry) -> None:
        resizer = Resizer(geometry, (16, 24))
        for logits in torch.randn(20, 1, 16, 24) - 1.5:
            window = resizer.extent(logits[0] > 0)
            positive = full(logits, geometry)[0] > 0
            positive[window.top : window.bottom, window.left : window.right] = False
            assert not positive.any()


def test_extent_of_nothing_is_empty() -> None:
    assert Resizer(GEOMETRIES[1], (16, 24)).extent(torch.zeros(16, 24, dtype=torch.bool)).size == (0, 0)


def test_a_resizer_made_without_gradients_serves_with_them() -> None:
    geometry = Geometry(original=(31, 17), resized=(31, 17), padded=(32, 32))
    with torch.inference_mode():
        Resizer(geometry, (8, 8))
    logits = torch.randn(8, 8, 1, requires_grad=True)
    window = Window(0, 31, 0, 17)
    resizer = Resizer(geometry, (8, 8))
    resizer.expand(resizer.cells(logits, window), window).sum().backward()
    assert logits.grad is not None


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


WHOLE = Geometry(original=(4, 4), resized=(4, 4), padded=(4, 4))


def halves() -> Tensor:
    """Left half, right half, everything weakly."""
    left = torch.full((4, 4), -9.0)
    left[:, :2] = 9.0
    return torch.stack((left, -left, torch.full((4, 4), 0.5)))


class TestByHand:
    def test_semantic(self) -> None:
        probabilities = torch.tensor([[0.9, 0.0, 0.1], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0]])
        found = semantic(MaskScores(probabilities=probabilities, mask_logits=halves()), WHOLE, vocabulary(2))
        np.testing.assert_array_equal(found.labels, [[0, 0, 1, 1]] * 4)
        assert found.scores is not None
        np.testing.assert_allclose(found.scores[0], [0.9, 0.9, 0.8, 0.8], atol=1e-3)
        assert found.labels.dtype == np.int32
        few = semantic(
            MaskScores(probabilities=probabilities, mask_logits=halves()),
            WHOLE,
            vocabulary(2),
            score_threshold=0.85,
        )
        np.testing.assert_array_equal(few.labels, [[0, 0, -1, -1]] * 4)

    def merge(self, probabilities: list[list[float]], **options: float) -> PanopticMap:
        scores = MaskScores(probabilities=torch.tensor(probabilities), mask_logits=halves())
        return panoptic(scores, WHOLE, vocabulary(2, stuff=1), **options)

    def test_panoptic_things_and_stuff(self) -> None:
        found = self.merge([[0.9, 0.0, 0.1], [0.1, 0.8, 0.1], [0.3, 0.0, 0.7]])
        np.testing.assert_array_equal(found.ids, [[1, 1, 2, 2]] * 4)
        assert [(s.class_id, s.is_thing, s.area) for s in found.segments] == [(0, True, 8), (1, False, 8)]
        np.testing.assert_allclose([s.score for s in found.segments], [0.9, 0.8], rtol=1e-6)

    def test_panoptic_merges_stuff_and_keeps_things_apart(self) -> None:
        stuff = self.merge([[0.0, 0.9, 0.1], [0.0, 0.95, 0.05], [0.0, 0.0, 1.0]])
        assert (stuff.ids == 1).all()
        assert [(s.area, s.class_id) for s in stuff.segments] == [(16, 1)]
        assert stuff.segments[0].score == pytest.approx(0.95)
        things = self.merge([[0.9, 0.0, 0.1], [0.9, 0.0, 0.1], [0.0, 0.0, 1.0]])
        np.testing.assert_array_equal(things.ids, [[1, 1, 2, 2]] * 4)

    def test_panoptic_drops_what_is_mostly_hidden(self) -> None:
        probabilities = [[0.9, 0.0, 0.1], [0.0, 0.0, 1.0], [0.8, 0.0, 0.2]]
        hidden = self.merge(probabilities)
        np.testing.assert_array_equal(hidden.ids, [[1, 1, 0, 0]] * 4)
        shown = self.merge(probabilities, overlap_threshold=0.5)
        np.testing.assert_array_equal(shown.ids, [[1, 1, 2, 2]] * 4)

    def test_panoptic_counts_pixels_won_without_being_sure(self) -> None:
        """The reference does: they may save a mask that lost half of what it was sure of."""
        first = torch.tensor([2.0, 2.0, -0.1, -0.1]).expand(4, 4)
        second = torch.tensor([-9.0, 9.0, -9.0, -9.0]).expand(4, 4)
        scores = MaskScores(
            probabilities=torch.tensor([[0.9, 0.1], [0.9, 0.1]]), mask_logits=torch.stack((first, second))
        )
        found = panoptic(scores, WHOLE, vocabulary(1))
        np.testing.assert_array_equal(found.ids, [[1, 2, 0, 0]] * 4)
        assert [s.area for s in found.segments] == [4, 4]

    def test_panoptic_thresholds(self) -> None:
        probabilities = [[0.6, 0.0, 0.4], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]]
        np.testing.assert_array_equal(self.merge(probabilities, score_threshold=0.7).ids, [[0, 0, 1, 1]] * 4)
        strict = Vocabulary(
            classes=(
                VocabularyClass(name="a", score_threshold=0.5),
                VocabularyClass(name="b", is_thing=False, score_threshold=0.95),
            )
        )
        scores = MaskScores(probabilities=torch.tensor(probabilities), mask_logits=halves())
        np.testing.assert_array_equal(
            panoptic(scores, WHOLE, strict, score_threshold=0.99).ids, [[1, 1, 0, 0]] * 4
        )

    def test_instances(self) -> None:
        probabilities = torch.tensor([[0.9, 0.05, 0.05], [0.2, 0.6, 0.2], [0.0, 0.0, 1.0]])
        scores = MaskScores(probabilities=probabilities, mask_logits=halves())
        found = instances(scores, WHOLE, vocabulary(2), max_detections=2)
        sureness = 1 / (1 + np.exp(-9.0))
        np.testing.assert_allclose(found.scores, [0.9 * sureness, 0.6 * sureness], rtol=1e-5)
        np.testing.assert_array_equal(found.boxes, [[0, 0, 2, 4], [2, 0, 4, 4]])
        assert found.class_ids.tolist() == [0, 1]
        assert found.masks is not None
        np.testing.assert_array_equal(found.masks[1].decode(), [[0, 0, 1, 1]] * 4)
        things = instances(scores, WHOLE, vocabulary(2, stuff=1), max_detections=2, things_only=True)
        assert things.class_ids.tolist() == [0]

    def test_instances_without_duplicates(self) -> None:
        masks = torch.stack((halves()[0], halves()[0], halves()[1]))
        probabilities = torch.tensor([[0.9, 0.0, 0.1], [0.8, 0.0, 0.2], [0.7, 0.0, 0.3]])
        scores = MaskScores(probabilities=probabilities, mask_logits=masks)
        every = instances(scores, WHOLE, vocabulary(2), score_threshold=0.1)
        assert len(every.scores) == 3
        found = instances(scores, WHOLE, vocabulary(2), score_threshold=0.1, iou_threshold=0.5)
        np.testing.assert_allclose(found.scores, [0.9, 0.7], rtol=1e-3)

    def test_class_thresholds(self) -> None:
        words = Vocabulary(
            classes=(
                VocabularyClass(name="a"),
                VocabularyClass(name="b", score_threshold=0.3),
            )
        )
        probabilities = torch.tensor([[0.9, 0.05, 0.05], [0.5, 0.4, 0.1], [0.0, 0.0, 1.0]])
        scores = MaskScores(probabilities=probabilities, mask_logits=halves())
        found = instances(scores, WHOLE, words, score_threshold=0.6)
        assert found.class_ids.tolist() == [0, 1]


class TestEmptyAndSmall:
    def test_no_masks_at_all(self) -> None:
        scores = MaskScores(probabilities=torch.zeros(0, 4), mask_logits=torch.zeros(0, 4, 4))
        assert len(instances(scores, WHOLE, vocabulary(3)).scores) == 0
        assert panoptic(scores, WHOLE, vocabulary(3)).segments == ()
        assert semantic(scores, WHOLE, vocabulary(3)).labels.shape == (4, 4)

    def test_everything_void(self) -> None:
        scores = MaskScores(probabilities=torch.tensor([[0.0, 1.0]]), mask_logits=halves()[:1])
        found = panoptic(scores, WHOLE, vocabulary(1))
        assert not found.ids.any()
        assert found.segments == ()

    def test_empty_masks_are_no_objects(self) -> None:
        scores = MaskScores(probabilities=torch.tensor([[0.9, 0.1]]), mask_logits=torch.full((1, 4, 4), -3.0))
        found = instances(scores, WHOLE, vocabulary(1))
        assert found.boxes.shape == (0, 4)
        assert found.masks == ()
        assert panoptic(scores, WHOLE, vocabulary(1)).segments == ()

    @pytest.mark.parametrize("classes", [1, 1203])
    @pytest.mark.parametrize("queries", [1, 9])
    def test_sizes(self, queries: int, classes: int) -> None:
        geometry = GEOMETRIES[1]
        scores = mask_scores(queries, classes)
        words = vocabulary(classes)
        labels = semantic(scores, geometry, words).labels
        assert labels.shape == geometry.original
        assert 0 <= labels.min() <= labels.max() < classes
        assert panoptic(scores, geometry, words).ids.shape == geometry.original
        found = instances(scores, geometry, words)
        assert len(found.scores) <= min(100, queries * classes)

    def test_no_detections_wanted(self) -> None:
        assert len(instances(mask_scores(), GEOMETRIES[0], vocabulary(5), max_detections=0).scores) == 0


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


class TestBoxes:
    geometry = Geometry(original=(100, 200), resized=(50, 100), padded=(64, 128))

    def find(self, scores: list[list[float]], places: list[list[float]], **options: object) -> Detections:
        box_scores = BoxScores(scores=torch.tensor(scores), boxes=torch.tensor(places))
        return boxes(box_scores, self.geometry, vocabulary(len(scores[0])), **options)  # type: ignore[arg-type]

    def test_suppression_within_a_class_only(self) -> None:
        places = [[0.0, 0, 20, 20], [1, 0, 21, 20], [50, 20, 70, 40]]
        found = self.find([[0.9, 0.0], [0.8, 0.7], [0.0, 0.6]], places)
        np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.6])
        assert found.class_ids.tolist() == [0, 1, 1]
        np.testing.assert_allclose(found.boxes[0], [0, 0, 40, 40])
        np.testing.assert_allclose(found.boxes[2], [100, 40, 140, 80])
        assert found.masks is None

    def test_boxes_are_cut_at_the_picture(self) -> None:
        found = self.find([[0.9], [0.8]], [[-5.0, -5, 10, 60], [110, 10, 120, 20]])
        np.testing.assert_allclose(found.boxes, [[0, 0, 20, 100]])

    def test_the_best_are_kept(self) -> None:
        places = [[float(10 * i), 0, 10 * i + 5, 5] for i in range(5)]
        found = self.find([[0.1], [0.5], [0.3], [0.2], [0.4]], places, max_detections=2)
        np.testing.assert_allclose(found.scores, [0.5, 0.4])

    def test_thresholds_are_exceeded(self) -> None:
        assert len(self.find([[0.25]], [[0.0, 0, 5, 5]], score_threshold=0.25).scores) == 0

    def test_boxes_of_each_class(self) -> None:
        box_scores = BoxScores(
            scores=torch.tensor([[0.9, 0.8]]),
            boxes=torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]]),
        )
        found = boxes(box_scores, self.geometry, vocabulary(2))
        np.testing.assert_allclose(found.boxes, [[0, 0, 20, 20], [40, 40, 60, 60]])

    def test_rows_that_are_not_finite_vanish(self) -> None:
        found = self.find([[float("nan"), 0.9], [0.8, 0.1]], [[0.0, 0, 5, 5], [10, 10, 20, 20]])
        np.testing.assert_allclose(found.scores, [0.8, 0.1])

    @pytest.mark.parametrize(
        ("rules", "scores"),
        [
            (BoxRules(), [0.9, 0.5, 0.4]),
            (BoxRules(objectness="sqrt_raw"), [1.0, 0.6]),
            (BoxRules(objectness="sqrt_raw", report="class"), [0.5, 0.4]),
            (BoxRules(objectness="sqrt_sigmoid"), [0.6636253, 0.5332727, 0.4919830]),
            (BoxRules(objectness="sqrt_sigmoid", report="class"), [0.5, 0.4, 0.9]),
        ],
    )
    def test_objectness(self, rules: BoxRules, scores: list[float]) -> None:
        box_scores = BoxScores(
            scores=torch.tensor([[0.4], [0.5], [0.9]]),
            boxes=torch.tensor([[0.0, 0, 5, 5], [10, 0, 15, 5], [20, 0, 25, 5]]),
            objectness=torch.tensor([0.9, 2.0, -1.0]),
            rules=rules,
        )
        found = boxes(box_scores, self.geometry, vocabulary(1))
        np.testing.assert_allclose(found.scores, scores, rtol=1e-6)

    def test_without_objectness_there_is_no_rule_for_it(self) -> None:
        plain = BoxScores(scores=torch.tensor([[0.4]]), boxes=torch.tensor([[0.0, 0, 5, 5]]))
        ruled = replace(plain, rules=BoxRules(objectness="sqrt_raw"))
        for one in (plain, ruled):
            np.testing.assert_allclose(boxes(one, self.geometry, vocabulary(1)).scores, [0.4])

    def test_soft_suppression_by_hand(self) -> None:
        candidates = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10]])
        kept, lowered = soft_nms(candidates, torch.tensor([0.9, 0.8, 0.5]), torch.tensor([0, 0, 1]))
        assert kept.tolist() == [0, 2, 1]
        torch.testing.assert_close(lowered, torch.tensor([0.9, 0.5, 0.8 * np.exp(-0.25 / 0.5)]).float())

    def test_soft_suppression_drops_what_falls_low(self) -> None:
        candidates = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
        kept, _ = soft_nms(candidates, torch.tensor([0.9, 0.005]), torch.tensor([0, 0]), prune=1e-3)
        assert kept.tolist() == [0]
        nothing, none = soft_nms(candidates[:0], torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        assert len(nothing) == len(none) == 0

    def test_soft_suppression_of_the_best_few(self) -> None:
        candidates = torch.rand(60, 2).repeat(1, 2) * 40
        candidates[:, 2:] += 5 + torch.rand(60, 2) * 30
        scores, labels = torch.rand(60), torch.randint(3, (60,))
        every, lowered = soft_nms(candidates, scores, labels)
        few, best = soft_nms(candidates, scores, labels, limit=7)
        assert few.tolist() == every[:7].tolist()
        assert torch.equal(best, lowered[:7])
        assert torch.equal(lowered, lowered.sort(descending=True).values)

    def test_soft_suppression_of_boxes_without_area(self) -> None:
        candidates = torch.tensor([[3.0, 3, 3, 3], [3, 3, 3, 3], [0, 0, 9, 9]])
        kept, lowered = soft_nms(candidates, torch.tensor([0.5, 0.4, 0.3]), torch.zeros(3, dtype=torch.int64))
        assert kept.tolist() == [0, 1, 2]
        torch.testing.assert_close(lowered, torch.tensor([0.5, 0.4, 0.3]))

    def test_soft_option(self) -> None:
        box_scores = BoxScores(
            scores=torch.tensor([[0.9], [0.8]]),
            boxes=torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]]),
            rules=BoxRules(suppression="soft"),
        )
        found = boxes(box_scores, self.geometry, vocabulary(1))
        np.testing.assert_allclose(found.scores, [0.9, 0.8 * np.exp(-0.5)], rtol=1e-6)

    def test_masks_are_made_once_a_box_and_pasted(self) -> None:
        asked: list[list[list[float]]] = []

        def segment(places: torch.Tensor) -> torch.Tensor:
            asked.append(places.tolist())
            masks = torch.zeros(len(places), 2, 2)
            masks[:, 0] = 0.9
            return masks

        box_scores = BoxScores(
            scores=torch.tensor([[0.9, 0.8], [0.7, 0.0]]),
            boxes=torch.tensor([[10.0, 10, 20, 30], [60, 20, 120, 40]]),
        )
        found = boxes(box_scores, self.geometry, vocabulary(2), segment=segment)
        assert asked == [[[10, 10, 20, 30], [60, 20, 100, 40]]]
        assert found.masks is not None
        assert len(found.masks) == 3
        for mask, box in zip(found.masks, found.boxes, strict=True):
            x0, y0, x1, y1 = mask.box.tolist()
            # The upper half, and no border that leans on nothing.
            assert box[0] < x0 < x1 < box[2]
            assert box[1] < y0 < y1 <= (box[1] + box[3]) / 2 + 1

    def test_no_masks_where_the_head_makes_none(self) -> None:
        box_scores = BoxScores(scores=torch.tensor([[0.9]]), boxes=torch.tensor([[10.0, 10, 20, 30]]))
        assert boxes(box_scores, self.geometry, vocabulary(1), segment=lambda _: None).masks is None

    @pytest.mark.parametrize(
        "box", [[3.2, 7.9, 61.5, 40.1], [0.0, 0.0, 200.0, 100.0], [55.1, 20.2, 55.9, 21.3]]
    )
    def test_pasting_is_grid_sampling(self, box: list[float]) -> None:
        """As `paste_masks_in_image` of detectron2 does it, on the whole picture."""
        grid = torch.rand(1, 14, 14)
        whole = Geometry(original=(100, 200), resized=(100, 200), padded=(100, 200))
        (mask,) = paste(torch.tensor([box]), lambda _: grid, whole) or ()
        x0, y0, x1, y1 = box
        y = (torch.arange(100) + 0.5 - y0) / (y1 - y0) * 2 - 1
        x = (torch.arange(200) + 0.5 - x0) / (x1 - x0) * 2 - 1
        places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
        reference = F.grid_sample(grid[None], places, align_corners=False)[0, 0]
        sure = (reference - 0.5).abs() > 1e-4
        found = torch.from_numpy(mask.decode()).bool()
        assert torch.equal(found[sure], (reference >= 0.5)[sure])

    def test_nothing_found(self) -> None:
        found = self.find([[0.0, 0.0]], [[0.0, 0, 5, 5]])
        assert found.boxes.shape == (0, 4)
        assert found.scores.shape == (0,)


def test_wrong_requests_are_named() -> None:
    scores = mask_scores()
    words = vocabulary(5)
    for call in (semantic, panoptic, instances):
        with pytest.raises(InvalidParameter, match="score_threshold"):
            call(scores, WHOLE, words, score_threshold=1.5)  # type: ignore[operator]
        with pytest.raises(InvalidParameter, match="other words"):
            call(scores, WHOLE, vocabulary(4))  # type: ignore[operator]
    with pytest.raises(InvalidParameter, match="max_detections"):
        instances(scores, WHOLE, words, max_detections=-1)
    with pytest.raises(InvalidParameter, match="iou_threshold"):
        instances(scores, WHOLE, words, iou_threshold=float("nan"))
    with pytest.raises(InvalidParameter, match="Boxes"):
        semantic(BoxScores(scores=torch.zeros(1, 5), boxes=torch.zeros(1, 4)), WHOLE, words)  # type: ignore[arg-type]


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
