"""Drawing: the picture keeps its size and its input, colours tell classes apart, labels stay apart."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovperception import drawing
from ovperception.drawing import (
    colours,
    draw_detections,
    draw_heatmap,
    draw_heatmaps,
    draw_panoptic,
    draw_semantic,
    grid,
    legend,
)
from ovperception.drawing.canvas import Style
from ovperception.drawing.labels import LabelWriter, overlap
from ovperception.errors import InvalidImage, InvalidParameter
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap

NAMES = ("taxi", "traffic light", "Straße", "红色出租车", "")


def grey(height, width):
    return np.full((height, width, 3), 128, np.uint8)


def detections(height, width, boxes, masks=True):
    boxes = np.float32(boxes).reshape(-1, 4)
    rles = []
    for x0, y0, x1, y1 in boxes.astype(int):
        whole = np.zeros((height, width), bool)
        whole[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
        rles.append(RLE.encode(whole))
    return Detections(
        size=(height, width),
        classes=NAMES,
        boxes=boxes,
        scores=np.linspace(0.9, 0.1, len(boxes), dtype=np.float32),
        class_ids=np.arange(len(boxes)) % len(NAMES),
        masks=tuple(rles) if masks else None,
    )


def maps(height, width):
    labels = np.arange(height * width).reshape(height, width) * 4 // (height * width) - 1
    ids = (labels + 1).astype(np.int32)
    segments = tuple(
        Segment(id=int(i), class_id=int(i) % 2, score=0.5, area=int((ids == i).sum()), is_thing=True)
        for i in np.unique(ids)
        if i
    )
    return (
        SemanticMap(classes=NAMES, labels=labels.astype(np.int32)),
        PanopticMap(classes=NAMES, ids=ids, segments=segments),
    )


def test_forty_names_get_forty_colours():
    chosen = colours([f"class {i}" for i in range(40)])
    assert len({tuple(c) for c in chosen.tolist()}) == 40
    apart = min(np.abs(a.astype(int) - b).sum() for a, b in itertools.combinations(chosen, 2))
    assert apart >= 20
    assert len(colours([f"class {i}" for i in range(1203)])) == 1203
    assert colours([]).shape == (0, 3)


def test_a_name_keeps_its_colour():
    alone = colours(["taxi"])[0]
    np.testing.assert_array_equal(colours(["taxi", "dog", "cat"])[0], alone)
    code = "from ovperception.drawing import colours; print(colours(['taxi'])[0].tolist())"
    root = Path(drawing.__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert other.stdout.strip() == str(alone.tolist())


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (24, 24), (240, 320), (8000, 50)])
@pytest.mark.parametrize("masks", [True, False])
def test_any_size(size, masks):
    height, width = size
    image = grey(height, width)
    before = image.copy()
    found = detections(
        height, width, [[0, 0, width, height], [0, 0, 1, 1], [width / 2, height / 2, width, height]], masks
    )
    semantic, panoptic = maps(height, width)
    heat = np.linspace(-1, 1, height * width, dtype=np.float32).reshape(height, width)
    for picture in (
        draw_detections(image, found),
        draw_semantic(image, semantic),
        draw_panoptic(image, panoptic),
        draw_heatmap(image, heat),
    ):
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


def test_detection_by_hand():
    drawn = draw_detections(grey(40, 60), detections(40, 60, [[10, 5, 30, 25]], masks=False), labels=False)
    colour = colours(NAMES)[0]
    for y, x in ((5, 10), (24, 29), (5, 29), (24, 10)):  # the half-open box's corner pixels
        np.testing.assert_array_equal(drawn[y, x], colour)
    np.testing.assert_array_equal(drawn[15, 20], [128] * 3)
    np.testing.assert_array_equal(drawn[25, 30], [128] * 3)


def test_mask_tints_its_inside_only():
    drawn = draw_detections(grey(40, 60), detections(40, 60, [[10, 5, 30, 25]]), labels=False, opacity=0.5)
    np.testing.assert_allclose(drawn[15, 20], (128 + colours(NAMES)[0].astype(float)) / 2, atol=1)
    assert (drawn[30:] == 128).all()
    assert (drawn[:, 35:] == 128).all()


def test_a_truth_is_drawn_without_scores() -> None:
    found = detections(200, 300, [[20, 80, 280, 190]])
    named = draw_detections(grey(200, 300), found, scores=False)
    scored = draw_detections(grey(200, 300), found)
    plain = draw_detections(grey(200, 300), found, labels=False)
    # The label without a score is there, and narrower.
    assert 0 < (named != plain).any(axis=(0, 2)).sum() < (scored != plain).any(axis=(0, 2)).sum()


@pytest.mark.parametrize(
    "box", [[-50, -50, -10, -10], [500, 500, 900, 900], [-1e9, -1e9, 1e9, 1e9], [np.nan] * 4]
)
def test_boxes_outside_the_picture_are_drawn_at_its_border(box):
    found = Detections(size=(40, 60), classes=("a",), boxes=[box], scores=[0.5], class_ids=[0])
    assert draw_detections(grey(40, 60), found).shape == (40, 60, 3)


@settings(max_examples=20, deadline=None)
@given(
    centres=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=25),
    size=st.sampled_from([(60, 80), (240, 320), (480, 640)]),
)
def test_labels_lie_inside_and_leave_the_picture_visible(centres, size):
    canvas = grey(*size)
    writer = LabelWriter(canvas, Style.of(canvas))
    for x, y in centres:
        cx, cy = int(x * (size[1] - 1)), int(y * (size[0] - 1))
        writer.at_box(
            "traffic light 0.50", (cx, cy, min(cx + 20, size[1] - 1), min(cy + 20, size[0] - 1)), (9, 9, 9)
        )
    area = 0
    for _, (x0, y0, x1, y1), _ in writer.labels:
        assert 0 <= x0 < x1 <= size[1]
        assert 0 <= y0 < y1 <= size[0]
        area += (x1 - x0) * (y1 - y0)
    assert area <= 0.35 * size[0] * size[1]
    writer.write()


def test_labels_of_neighbours_do_not_overlap():
    canvas = grey(480, 640)
    writer = LabelWriter(canvas, Style.of(canvas))
    for i in range(5):
        writer.at_box("traffic light 0.50", (300 + i, 200 + i, 360 + i, 260 + i), (9, 9, 9))
    spots = [spot for _, spot, _ in writer.labels]
    assert len(spots) == 5
    assert not any(overlap(a, b) for a, b in itertools.combinations(spots, 2))


def test_semantic_leaves_the_undecided_alone():
    labels = np.full((40, 60), -1, np.int32)
    labels[:, 30:] = 1
    drawn = draw_semantic(grey(40, 60), SemanticMap(classes=NAMES, labels=labels), labels=False)
    assert (drawn[:, :29] == 128).all()
    expected = 128 * 0.4 + colours(NAMES)[1].astype(float) * 0.6
    np.testing.assert_allclose(drawn[20, 50], expected, atol=1)


def test_things_of_one_class_differ():
    _, panoptic = maps(40, 60)
    drawn = draw_panoptic(grey(40, 60), panoptic, labels=False)
    first, third = (drawn[panoptic.ids == i] for i in (1, 3))
    assert not np.array_equal(np.median(first, axis=0), np.median(third, axis=0))


def test_heatmap():
    heat = np.zeros((40, 60), np.float32)
    heat[10, 10] = 1
    drawn = draw_heatmap(grey(40, 60), heat).astype(int)
    red, blue = drawn[10, 10], drawn[30, 30]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    same = draw_heatmap(grey(40, 60), heat * 0.5, limits=(0, 0.5))
    np.testing.assert_array_equal(same, drawn)
    np.testing.assert_array_equal(
        draw_heatmap(grey(40, 60), np.zeros((40, 60))), draw_heatmap(grey(40, 60), np.ones((40, 60)))
    )


def test_heatmaps_share_their_colours():
    there, nowhere = np.zeros((2, 40, 60), np.float32)
    there[10, 10], nowhere[10, 10] = 1, 0.25
    drawn = draw_heatmaps(grey(40, 60), {"there": there, "nowhere": nowhere})
    alone = draw_heatmaps(grey(40, 60), {"there": there})
    assert drawn.shape[0] == alone.shape[0] > 40
    gap = drawn.shape[1] - alone.shape[1] - 60
    np.testing.assert_array_equal(drawn[:, : gap + 60], alone[:, : gap + 60])
    faint = draw_heatmap(grey(40, 60), nowhere, limits=(0, 1))
    top, left = alone.shape[0] - gap - 40, alone.shape[1]
    np.testing.assert_array_equal(drawn[top : top + 40, left : left + 60], faint)
    with pytest.raises(InvalidParameter):
        draw_heatmaps(grey(40, 60), {})


def test_heatmaps_without_a_span_or_a_number():
    flat, none = np.full((8, 9), 0.5, np.float32), np.full((8, 9), np.nan, np.float32)
    drawn = draw_heatmaps(grey(8, 9), {"flat": flat, "none": none})
    assert drawn.shape[1] > 18


def test_heatmap_with_holes():
    heat = np.full((4, 6), np.nan, np.float32)
    assert draw_heatmap(grey(4, 6), heat).shape == (4, 6, 3)
    heat[0] = [-np.inf, np.inf, 0, 1, 2, 3]
    assert draw_heatmap(grey(4, 6), heat).shape == (4, 6, 3)


def test_heatmap_refuses():
    with pytest.raises(InvalidParameter, match="size"):
        draw_heatmap(grey(4, 6), np.zeros((6, 4)))
    with pytest.raises(InvalidParameter, match="ascend"):
        draw_heatmap(grey(4, 6), np.zeros((4, 6)), limits=(1, 1))


@pytest.mark.parametrize("image", [np.zeros((4, 6)), np.zeros((4, 6, 3)), np.zeros((0, 6, 3), np.uint8)])
def test_not_a_picture(image):
    with pytest.raises(InvalidImage, match="drawn"):
        draw_heatmap(image, np.zeros((4, 6)))


def test_legend():
    whole = legend(NAMES, width=200)
    assert whole.shape[1] == 200
    for colour in colours(NAMES):
        assert (whole == colour).all(axis=2).any()
    part = legend(NAMES, present=[1], width=200)
    assert not (part == colours(NAMES)[0]).all(axis=2).any()
    assert legend([]).shape[1] == 640


def test_grid():
    pictures = [grey(40, 60), grey(80, 60), grey(10, 10)]
    titled = grid(pictures, ["one", "two", "a title that is far too long for its cell"], columns=2)
    plain = grid(pictures, columns=2)
    assert titled.shape[0] > plain.shape[0]
    assert titled.shape[1] == plain.shape[1] == 2 * 60 + 3 * 4
    np.testing.assert_array_equal(plain[4:44, 4:64], pictures[0])
    assert grid([grey(40, 60)] * 5, cell=(20, 30)).shape == (2 * 20 + 3 * 4, 4 * 30 + 5 * 4, 3)


@pytest.mark.parametrize(("pictures", "titles"), [([], []), ([grey(2, 2)], ["a", "b"])])
def test_grid_refuses(pictures, titles):
    with pytest.raises(InvalidParameter):
        grid(pictures, titles)
