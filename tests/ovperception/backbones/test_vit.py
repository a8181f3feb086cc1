"""open_clip's own ViT: other sizes, the last block's value path."""

import pytest
import torch
import torch.nn.functional as F

from ovperception.backbones.vit import embed_tokens, project, resize_positions, value_path
from tests.ovperception.backbones.conftest import small_backbone


@pytest.fixture(scope="module", params=["vit", "clipa"])
def backbone(request):
    return small_backbone(request.param)


def test_dense_is_what_enters_the_last_block(backbone):
    visual, seen = backbone.model.visual, []
    hook = visual.transformer.resblocks[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = torch.randn(2, 3, 64, 64)
    visual(image)
    hook.remove()
    features = backbone.features(image)
    torch.testing.assert_close(features["dense"].flatten(2).transpose(1, 2), seen[0][:, 1:])
    torch.testing.assert_close(features["cls"][..., 0, 0], seen[0][:, 0])


def test_constant_tokens_dense_equals_global(backbone):
    """K: where all tokens are alike, attending to oneself and to everyone is the same."""
    visual = backbone.model.visual
    token = torch.randn(1, 1, 32)
    block = visual.transformer.resblocks[-1]
    pooled, _ = visual._pool(block(token.expand(1, 17, 32)))
    maps = {"dense": token[0, 0].view(1, 32, 1, 1).expand(1, 32, 4, 4)}
    dense = backbone.trunk.embed_dense(maps)
    expected = (pooled @ visual.proj)[..., None, None]
    torch.testing.assert_close(dense, expected.expand_as(dense), rtol=1e-4, atol=1e-5)


def test_one_token_takes_the_value_path(backbone):
    block = backbone.model.visual.transformer.resblocks[-1]
    token = torch.randn(5, 1, 32)
    torch.testing.assert_close(value_path(block, token), block(token))


def test_masks_pool_tokens_before_the_final_norm(backbone):
    features = backbone.features(torch.randn(1, 3, 64, 96))
    masks = torch.rand(1, 3, 4, 6) > 0.5
    visual = backbone.model.visual
    tokens = value_path(visual.transformer.resblocks[-1], features["dense"].flatten(2).transpose(1, 2))[0]
    expected = torch.stack([project(visual, tokens[m.flatten()].mean(0)) for m in masks[0]])
    torch.testing.assert_close(backbone.embed_masks(features, masks)[0], expected, rtol=1e-4, atol=1e-5)


class TestPositions:
    table = torch.arange(17 * 3, dtype=torch.float32).reshape(17, 3).sin()

    def test_the_trained_size_is_untouched(self):
        assert resize_positions(self.table, (4, 4), (4, 4)) is self.table

    @pytest.mark.parametrize("size", [(6, 5), (3, 9), (1, 1), (8, 8)])
    @pytest.mark.parametrize("antialias", [False, True])
    def test_resized_as_torch_does(self, size, antialias):
        grid = self.table[1:].T.reshape(1, 3, 4, 4)
        expected = F.interpolate(grid, size, mode="bicubic", align_corners=False, antialias=antialias)
        ours = resize_positions(self.table, (4, 4), size, antialias=antialias)
        assert torch.equal(ours[0], self.table[0])
        torch.testing.assert_close(ours[1:], expected.flatten(2)[0].T)

    def test_antialiasing_is_a_choice_that_matters(self):
        plain = resize_positions(self.table, (4, 4), (3, 7))
        smooth = resize_positions(self.table, (4, 4), (3, 7), antialias=True)
        assert (plain - smooth).abs().max() > 0.01

    def test_at_the_trained_size_tokens_are_the_model_s(self, backbone):
        image = torch.randn(2, 3, 64, 64)
        tokens, size = embed_tokens(backbone.model.visual, image)
        assert size == (4, 4)
        torch.testing.assert_close(tokens, backbone.model.visual._embeds(image))


def test_stages_are_outputs_at_the_quarters():
    backbone = small_backbone("vit")
    assert list(backbone.spec.stages) == ["block1", "block2", "block3", "dense"]
    features = backbone.features(torch.randn(1, 3, 64, 64))
    assert torch.equal(features["block3"], features["dense"])  # four blocks: the third feeds the last
