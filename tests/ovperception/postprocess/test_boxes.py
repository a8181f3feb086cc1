"""Boxes: thresholds, suppression, hard and soft, and masks pasted into them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovperception.head import BoxRules, BoxScores
from ovperception.images import Geometry
from ovperception.postprocess import boxes, soft_nms
from ovperception.postprocess.box_masks import draft_masks
from ovperception.structures import Detections
from tests.ovperception.postprocess.samples import vocabulary


class TestBoxes:
    geometry = Geometry(original=(100, 200), resized=(50, 100), padded=(64, 128))

    def find(self, scores: list[list[float]], places: list[list[float]], **options: Any) -> Detections:
        box_scores = BoxScores(scores=torch.tensor(scores), boxes=torch.tensor(places))
        return boxes(box_scores, self.geometry, vocabulary(len(scores[0])), **options)

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
        paste = draft_masks(torch.tensor([box]), lambda _: grid, whole)
        assert paste is not None
        (mask,) = paste()
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
