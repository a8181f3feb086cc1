"""Objects, maps and segments from masks: worked by hand, empty and small ones, wrong requests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ovperception.errors import InvalidParameter
from ovperception.head import BoxScores, MaskScores
from ovperception.postprocess import instances, panoptic, semantic
from ovperception.structures import PanopticMap
from ovperception.vocabulary import Vocabulary, VocabularyClass
from tests.ovperception.postprocess.samples import GEOMETRIES, WHOLE, halves, mask_scores, vocabulary


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

    def test_instances_that_are_dropped_take_no_place(self) -> None:
        left, right, _ = halves()
        scores = MaskScores(
            probabilities=torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]),
            mask_logits=torch.stack((left, left, right)),
        )
        found = instances(scores, WHOLE, vocabulary(1), max_detections=2, iou_threshold=0.5)
        np.testing.assert_allclose(found.scores, [0.9, 0.7], rtol=1e-3)
        alike = instances(scores, WHOLE, vocabulary(1), max_detections=2)
        np.testing.assert_allclose(alike.scores, [0.9, 0.8], rtol=1e-3)

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


def test_wrong_requests_are_named() -> None:
    scores = mask_scores()
    words = vocabulary(5)
    calls: tuple[Callable[..., object], ...] = (semantic, panoptic, instances)
    for call in calls:
        with pytest.raises(InvalidParameter, match="score_threshold"):
            call(scores, WHOLE, words, score_threshold=1.5)
        with pytest.raises(InvalidParameter, match="other words"):
            call(scores, WHOLE, vocabulary(4))
    with pytest.raises(InvalidParameter, match="max_detections"):
        instances(scores, WHOLE, words, max_detections=-1)
    with pytest.raises(InvalidParameter, match="iou_threshold"):
        instances(scores, WHOLE, words, iou_threshold=float("nan"))
    with pytest.raises(InvalidParameter, match="Boxes"):
        semantic(BoxScores(scores=torch.zeros(1, 5), boxes=torch.zeros(1, 4)), WHOLE, words)  # type: ignore[arg-type]  # that is asked
