"""What every family promises, on small random models."""

import pytest
import torch

from ovperception.backbones import Backbone
from ovperception.errors import InvalidImage, InvalidRegions
from tests.ovperception.backbones.conftest import small_backbone

D = 24


def images(batch=2, height=96, width=128, seed=0):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def grid(backbone, features):
    return tuple(features[backbone.dense_stage].shape[-2:])


def test_is_a_backbone(backbone):
    assert isinstance(backbone, Backbone)
    assert list(backbone.spec.stages)[-1] == backbone.dense_stage


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (70, 101)])
def test_maps_have_the_promised_channels_and_strides(backbone, size):
    features = backbone.features(images(2, *size))
    assert features.image_size == size
    for name, stage in backbone.spec.stages.items():
        assert features[name].shape == (2, stage.channels, size[0] // stage.stride, size[1] // stage.stride)


def test_embeddings_have_the_promised_shapes(backbone):
    features = backbone.features(images())
    h, w = grid(backbone, features)
    dense = backbone.embed_dense(features)
    assert dense.shape == (2, D, h, w)
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(2, h, w))
    assert backbone.embed_masks(features, torch.ones(2, 3, h, w, dtype=torch.bool)).shape == (2, 3, D)
    boxes = [torch.tensor([[0.0, 0, 64, 64], [5, 7, 90, 91]]), torch.zeros(0, 4)]
    assert backbone.embed_boxes(features, boxes).shape == (2, D)
    assert backbone.embed_boxes(features, [torch.zeros(0, 4)] * 2).shape == (0, D)
    assert backbone.embed_image(images(2, 64, 64)).shape == (2, D)
    assert backbone.embed_text(["a", "b", "a"]).shape == (3, D)
    assert backbone.embed_text([]).shape == (0, D)


def test_one_image_alone_is_the_same_as_in_a_batch(backbone):
    batch = images(3)
    together = backbone.features(batch)
    masks = torch.rand(3, 4, *grid(backbone, together)) > 0.5
    boxes = [torch.tensor([[3.0, 4, 60, 70]])] * 3
    for i in range(3):
        alone = backbone.features(batch[i : i + 1])
        torch.testing.assert_close(backbone.embed_dense(alone)[0], backbone.embed_dense(together)[i])
        torch.testing.assert_close(
            backbone.embed_masks(alone, masks[i : i + 1])[0], backbone.embed_masks(together, masks)[i]
        )
        torch.testing.assert_close(
            backbone.embed_boxes(alone, boxes[:1])[0], backbone.embed_boxes(together, boxes)[i]
        )


def test_a_kept_image_answers_like_its_batch(backbone):
    features = backbone.features(images(2))
    torch.testing.assert_close(
        backbone.embed_dense(features.image(1).only(backbone.dense_stage)), backbone.embed_dense(features)[1:]
    )


def test_pixels_are_at_hand_but_not_kept(backbone):
    batch = images()
    features = backbone.features(batch)
    assert features.images is batch
    assert features.image(0).images is None
    assert features.only(backbone.dense_stage).images is None
    assert features.nbytes == sum(m.numel() * m.element_size() for m in features.maps.values())


def test_an_empty_mask_is_finite_and_disturbs_no_other(backbone):
    features = backbone.features(images(1))
    masks = torch.ones(1, 2, *grid(backbone, features), dtype=torch.bool)
    alone = backbone.embed_masks(features, masks[:, :1])
    masks[:, 1] = False
    embedded = backbone.embed_masks(features, masks)
    assert embedded.isfinite().all()
    torch.testing.assert_close(embedded[:, :1], alone)
    assert backbone.embed_masks(features, masks[:, :0]).shape == (1, 0, D)


def test_what_is_outside_a_mask_matters_not_to_a_mean(backbone):
    if backbone.spec.family == "resnet":
        pytest.skip("its query is the unmasked mean, by definition")
    features = backbone.features(images(1))
    masks = torch.zeros(1, 1, *grid(backbone, features), dtype=torch.bool)
    masks[..., :1, :2] = True
    before = backbone.embed_masks(features, masks)
    features[backbone.dense_stage][..., 1:, :] += 1
    torch.testing.assert_close(backbone.embed_masks(features, masks), before)


def test_frozen_whatever_is_asked(backbone):
    backbone.train().requires_grad_(True)
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.features(images())
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name])


def test_gradients_pass_to_a_head_s_own_inputs(backbone):
    features = backbone.features(images(1))
    dense = features[backbone.dense_stage].clone().requires_grad_(True)
    maps = {**features.maps, backbone.dense_stage: dense}
    backbone.embed_dense(type(features)(maps=maps, image_size=features.image_size)).sum().backward()
    assert dense.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 8, 64), (1, 3, 0, 64)])
def test_bad_images_are_refused(backbone, shape):
    with pytest.raises(InvalidImage, match="Expected"):
        backbone.features(torch.zeros(shape))


def test_the_global_embedding_wants_the_trained_size(backbone):
    with pytest.raises(InvalidImage, match="64"):
        backbone.embed_image(torch.zeros(1, 3, 96, 96))


def test_bad_regions_are_refused(backbone):
    features = backbone.features(images(2))
    h, w = grid(backbone, features)
    for shape in [(2, 3, h, w + 1), (1, 3, h, w), (2, h, w)]:
        with pytest.raises(InvalidRegions):
            backbone.embed_masks(features, torch.ones(shape, dtype=torch.bool))
    for boxes in [[torch.zeros(1, 4)], [torch.zeros(1, 4), torch.zeros(1, 5)], [torch.zeros(4)] * 2]:
        with pytest.raises(InvalidRegions):
            backbone.embed_boxes(features, boxes)


class TestIdentity:
    def test_same_weights_same_digest(self):
        assert small_backbone("resnet").spec == small_backbone("resnet").spec

    def test_any_weight_changes_it(self):
        spec, other = small_backbone("vit"), small_backbone("vit")
        with torch.no_grad():
            other.model.visual.proj[0, 0] += 1e-6
        assert other.spec.digest != spec.spec.digest
        assert other.spec.text_digest == spec.spec.text_digest

    def test_text_weights_change_both(self):
        spec, other = small_backbone("vit"), small_backbone("vit")
        with torch.no_grad():
            other.model.token_embedding.weight[3, 3] += 1e-6
        assert other.spec.digest != spec.spec.digest
        assert other.spec.text_digest != spec.spec.text_digest

    def test_loading_weights_renews_it(self):
        backbone, other = small_backbone("resnet", 0), small_backbone("resnet", 1)
        before = backbone.spec.digest
        backbone.model.load_state_dict(other.model.state_dict())
        assert backbone.spec.digest == other.spec.digest != before

    def test_dtype_changes_it_and_a_move_does_not(self):
        backbone = small_backbone("resnet")
        before = backbone.spec
        assert backbone.to("cpu").spec is before
        assert backbone.to(torch.bfloat16).spec.digest != before.digest

    @pytest.mark.gpu
    def test_the_device_does_not_change_it(self):
        backbone = small_backbone("resnet")
        before = backbone.spec.digest
        moved = backbone.to("cuda")
        moved._forget_spec()
        assert moved.spec.digest == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(backbone, dtype):
    import copy

    half = copy.deepcopy(backbone).to(dtype)
    features, reference = half.features(images()), backbone.features(images())
    assert features[half.dense_stage].dtype == dtype
    masks = torch.ones(2, 2, *grid(backbone, features), dtype=torch.bool)
    boxes = [torch.tensor([[3.0, 4, 60, 70]])] * 2
    for ours, theirs in [
        (half.embed_dense(features), backbone.embed_dense(reference)),
        (half.embed_masks(features, masks), backbone.embed_masks(reference, masks)),
        (half.embed_boxes(features, boxes), backbone.embed_boxes(reference, boxes)),
        (half.embed_text(["a dog"]), backbone.embed_text(["a dog"])),
    ]:
        assert ours.dtype == torch.float32
        assert (
            torch.nn.functional.cosine_similarity(ours, theirs, dim=1 if ours.ndim == 4 else -1).min() > 0.98
        )
