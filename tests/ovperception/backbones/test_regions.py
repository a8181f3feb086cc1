import torch

from ovperception.backbones.regions import mask_boxes


def test_the_box_of_a_mask_is_tight_and_in_pixels() -> None:
    masks = torch.zeros(1, 3, 4, 8, dtype=torch.bool)
    masks[0, 0, 1, 2] = True
    masks[0, 1, 0:3, 5] = masks[0, 1, 2, 5:8] = True
    boxes = mask_boxes(masks, (16, 24))
    assert boxes[0, 0].tolist() == [6.0, 4.0, 9.0, 8.0]
    assert boxes[0, 1].tolist() == [15.0, 0.0, 24.0, 12.0]
    assert boxes[0, 2].tolist() == [0.0, 0.0, 24.0, 16.0]  # of nothing, all of it
