"""What the measures of scenes are, in the words of the report."""

from __future__ import annotations

from eval.scenes.crops import CONTEXT

__all__ = ["RULES"]

RULES = {
    "crop": (
        "Zero-shot top-1 of single things with the backbone alone, among the names of all judged things; a "
        "class scores as its best synonym. `top1`: drawn crops, seeded by class and number. `top1_scene`: "
        f"cut from the scenes by the true box grown by {CONTEXT:.0%} of its side on each side, every "
        "visible thing however small, squashed to the backbone's size. Share of crops, not mean of classes."
    ),
    "region": (
        "Zero-shot naming of the true boxes of things, nothing to be found. `top1`: the nearest name of all "
        "judged things to the box's embedding, every visible thing however small; share of boxes, not mean "
        "of classes. `AP50`: the boxes given to the model's region head, its scores judged as in `box`; n/a "
        "where no head classifies given boxes."
    ),
    "box": (
        "COCO AP of boxes by hotcoco, generalised: one run with all words, then means over classes of "
        "each part that have ground truth. At most 100 detections an image are asked for, with score "
        "threshold 0; detections of stuff are dropped after that."
    ),
    "segm": "The same of masks; boxes are stripped from the records first, so areas are those of the masks.",
    "semantic": (
        "One confusion matrix over the set at the scenes' own resolution, every pixel judged; means over "
        "classes that have ground-truth pixels (detectron2's rule). Score threshold 0; a pixel left "
        "undecided is missed. Base is base things and stuff."
    ),
    "panoptic": (
        "panopticapi's rules: a match is IoU above 0.5 in one class; means over classes with TP + FP + FN "
        "above 0. The model's own thresholds. Base is base things and stuff."
    ),
    "timing": (
        "Median milliseconds an image, results as numpy arrays; `encode` from the decoded picture, one "
        "backbone pass for all questions; `text` is once for the vocabulary and includes the embedding cache."
    ),
}
