"""The head by its contract: shapes, batches, words, refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.fcclip import FCCLIP, FCCLIPConfig, FCCLIPEncoding
from heads.fcclip.classify import class_logits, combine
from heads.fcclip.mask_decoder import _attendable, _resize
from heads.fcclip.position import reference_points, sine_encoding
from ovperception.backbones import Features
from ovperception.backbones.regions import mask_boxes
from ovperception.errors import InvalidParameter
from ovperception.head import Head
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary, VocabularyClass

SMALL = FCCLIPConfig(
    embed_dim=24,
    stage_channels=(8, 12, 16, 20),
    hidden_dim=64,
    mask_dim=64,
    queries=13,
    encoder_layers=2,
    encoder_ffn=48,
    decoder_layers=4,
    decoder_ffn=48,
    ensemble_on_valid_mask=True,
    seen_words=("cat", "cab"),
)


class MeanBackbone:
    """Embeds a mask as a fixed projection of the mean under it."""

    dense_stage = "res5"

    def __init__(self, channels: int = 20, dim: int = 24) -> None:
        self.projection = torch.randn(channels, dim, generator=torch.Generator().manual_seed(3))

    def embed_masks(self, features: Features, masks: Tensor) -> Tensor:
        weights = masks.flatten(2).float()
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-8)
        return weights @ features["res5"].flatten(2).transpose(1, 2) @ self.projection

    def embed_boxes(self, features: Features, boxes: Sequence[Tensor]) -> Tensor:
        corners = torch.cat(list(boxes)) / 64
        return torch.cat((corners, corners.square(), corners.sin()), dim=-1).repeat(1, 2)


def features(images: int = 2, size: tuple[int, int] = (64, 96)) -> Features:
    channels = zip(SMALL.stages, SMALL.stage_channels, (4, 8, 16, 32), strict=True)
    maps = {
        stage: torch.randn(images, c, math.ceil(size[0] / s), math.ceil(size[1] / s))
        for stage, c, s in channels
    }
    return Features(maps=maps, image_size=size)


def text(*words: str) -> TextClassifier:
    vocabulary = Vocabulary(
        classes=tuple(VocabularyClass(name=w.split("|")[0], synonyms=tuple(w.split("|"))) for w in words)
    )
    rows = [
        torch.randn(24, generator=torch.Generator().manual_seed(sum(map(ord, s)))) for s in vocabulary.texts
    ]
    return TextClassifier(
        embeddings=F.normalize(torch.stack(rows), dim=-1), vocabulary=vocabulary, text_digest=""
    )


@pytest.fixture
def head() -> FCCLIP:
    return FCCLIP(SMALL).eval()


@torch.no_grad()
def encode(head: FCCLIP, maps: Features) -> FCCLIPEncoding:
    return head.encode(MeanBackbone(), maps)  # type: ignore[arg-type]


def test_is_a_head(head: FCCLIP) -> None:
    assert isinstance(head, Head)
    assert head.tasks == {"detect", "semantic", "panoptic"}


def test_shapes_and_unit_lengths(head: FCCLIP) -> None:
    encoding = encode(head, features())
    assert encoding.mask_logits.shape == (2, 13, 16, 24)
    assert encoding.valid.shape == (2, 13)
    assert encoding.valid.dtype == torch.bool
    for embeddings in (encoding.query_embeddings, encoding.clip_embeddings):
        assert embeddings.shape == (2, 13, 24)
    torch.testing.assert_close(encoding.query_embeddings.norm(dim=-1), torch.ones(2, 13))


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (33, 70), (160, 32)])
def test_any_size(head: FCCLIP, size: tuple[int, int]) -> None:
    encoding = encode(head, features(1, size))
    assert encoding.mask_logits.shape[-2:] == (math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert all(bool(t.float().isfinite().all()) for t in (encoding.mask_logits, encoding.query_embeddings))


def test_a_batch_equals_its_images(head: FCCLIP) -> None:
    maps = features(3)
    together = encode(head, maps)
    for index in range(3):
        alone = encode(head, maps.image(index))
        torch.testing.assert_close(together[index].mask_logits, alone.mask_logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            together[index].query_embeddings, alone.query_embeddings, rtol=0, atol=1e-5
        )


def test_inference_equals_the_last_training_layer(head: FCCLIP) -> None:
    maps = features(2, (64, 64))
    encoding = encode(head, maps)
    proposals = head(maps)
    assert proposals.mask_logits.shape[1] == SMALL.decoder_layers + 1
    torch.testing.assert_close(proposals.mask_logits[:, -1], encoding.mask_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        proposals.query_embeddings[:, -1], encoding.query_embeddings, rtol=0, atol=1e-5
    )
    every = [torch.arange(13) + 13 * SMALL.decoder_layers] * 2
    torch.testing.assert_close(
        proposals.masks_of(every), encoding.mask_logits.flatten(0, 1), rtol=0, atol=1e-5
    )


def test_attention_masks_from_few_logits_equal_those_from_all(head: FCCLIP) -> None:
    decoder = head.mask_decoder
    mask_features, state = torch.randn(2, 64, 32, 48), torch.randn(2, 13, 64)
    everything = decoder.mask_logits(state, mask_features)
    for factor in (2, 4, 8):
        size = (32 // factor, 48 // factor)
        found = decoder._attendable_from(state, mask_features, size)
        assert torch.equal(found, _attendable(_resize(everything, size)))


def test_every_parameter_learns() -> None:
    head = FCCLIP(SMALL)
    for layer in head.pixel_decoder.layers:
        # They start at zero, which would hide what lies before them.
        torch.nn.init.normal_(layer.attention.offsets.weight)  # type: ignore[union-attr,arg-type]
    words = text("cat", "dog|hound")
    proposals = head(features())
    every = [torch.arange(13 * (SMALL.decoder_layers + 1))] * 2
    named = head.class_logits(proposals.query_embeddings, words)
    (proposals.masks_of(every).square().mean() + named.square().mean()).backward()
    silent = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_products_in_bfloat16_leave_positions_and_names_in_float32() -> None:
    head, maps, words = FCCLIP(SMALL), features(), text("cat", "dog|hound")
    kinds: dict[str, torch.dtype] = {}
    layer = head.pixel_decoder.layers[0]
    for name, module in (("offsets", layer.attention.offsets), ("expand", layer.expand)):  # type: ignore[union-attr]
        module.register_forward_hook(lambda _m, _a, out, name=name: kinds.update({name: out.dtype}))
    exact = head.propose(maps)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = head.propose(maps)
        named = head.class_logits(exact.query_embeddings, words)
        assert kinds == {"offsets": torch.float32, "expand": torch.bfloat16}
        with torch.no_grad():
            head.propose(maps)
    assert kinds["expand"] == torch.float32  # without gradients as it always was
    torch.testing.assert_close(named, head.class_logits(exact.query_embeddings, words))
    first, last = (p.mask_features.detach().flatten().float() for p in (exact, rounded))
    assert float(F.cosine_similarity(first, last, dim=0)) > 0.999
    rounded.query_embeddings.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


def test_cached_positions_serve_inference_and_training() -> None:
    head = FCCLIP(SMALL)
    maps = features(1, (96, 96))
    with torch.inference_mode():
        head.propose(maps)
    head(maps).query_embeddings.sum().backward()
    assert head.mask_decoder.query_features.grad is not None


def test_probabilities(head: FCCLIP) -> None:
    encoding = encode(head, features())
    scores = head.classify(encoding[1], text("cat", "dog", "taxi|cab"))
    assert scores.probabilities.shape == (13, 4)
    torch.testing.assert_close(scores.probabilities.sum(dim=1), torch.ones(13))
    assert torch.equal(scores.mask_logits, encoding.mask_logits[1])


def test_what_was_encoded_for_inference_is_classified_anywhere(head: FCCLIP) -> None:
    with torch.inference_mode():
        encoding = encode(head, features(1))
    assert not head.classify(encoding, text("cat")).probabilities.requires_grad


def test_permuting_the_words_permutes_the_answer(head: FCCLIP) -> None:
    encoding = encode(head, features(1))
    words = ("cat", "dog|hound", "taxi|cab", "tree")
    straight = head.classify(encoding, text(*words)).probabilities
    for order in itertools.islice(itertools.permutations(range(4)), 1, None, 5):
        found = head.classify(encoding, text(*(words[i] for i in order))).probabilities
        torch.testing.assert_close(found, straight[:, [*order, 4]], rtol=1e-4, atol=1e-6)


def test_a_synonym_never_lowers_the_logit(head: FCCLIP) -> None:
    embeddings = F.normalize(torch.randn(13, 24), dim=-1)
    few = head.class_logits(embeddings[None], text("cat", "dog"))
    more = head.class_logits(embeddings[None], text("cat", "dog|hound|puppy"))
    assert bool((more[..., 1] >= few[..., 1] - 1e-5).all())
    torch.testing.assert_close(more[..., [0, 2]], few[..., [0, 2]])


@pytest.mark.parametrize("classes", [1, 1203])
def test_few_and_many_words(head: FCCLIP, classes: int) -> None:
    encoding = encode(head, features(1))
    scores = head.classify(encoding, text(*(f"word {i}" for i in range(classes))))
    assert scores.probabilities.shape == (13, classes + 1)
    assert bool(scores.probabilities.isfinite().all())


def test_combination_by_hand() -> None:
    learned = torch.tensor([[2.0, 0.0, 1.0], [2.0, 0.0, 1.0]])
    clip = torch.tensor([[0.0, 3.0], [0.0, 3.0]])
    config = replace(SMALL, seen_weight=0.4, unseen_weight=0.8)
    found = combine(learned, clip, torch.tensor([True, False]), torch.tensor([True, False]), config=config)
    p_in, p_clip = learned[0, :2].softmax(0), clip[0].softmax(0)
    mixed = torch.stack((p_in[0] ** 0.6 * p_clip[0] ** 0.4, p_in[1] ** 0.2 * p_clip[1] ** 0.8))
    void = learned[0].softmax(0)[2]
    torch.testing.assert_close(found[0, :2], mixed / mixed.sum() * (1 - void), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found[0, 2], void, rtol=1e-5, atol=1e-7)
    # Where CLIP saw nothing, the learned branch stands alone.
    torch.testing.assert_close(found[1, :2], p_in * (1 - void), rtol=1e-5, atol=1e-7)


def test_certain_branches_that_disagree_stay_finite() -> None:
    learned = torch.tensor([[200.0, 0.0, 0.0]])
    clip = torch.tensor([[0.0, 200.0]])
    found = combine(learned, clip, torch.tensor([True, True]), None, config=SMALL)
    assert bool(found.isfinite().all())


def test_void_comes_last_and_ignores_the_words() -> None:
    embeddings, void = torch.eye(24)[:2], torch.eye(24)[1]
    logits = class_logits(embeddings, void, text("cat"), 10.0)
    torch.testing.assert_close(logits[:, 1], torch.tensor([0.0, 10.0]))


def test_wrong_inputs_are_named(head: FCCLIP) -> None:
    encoding = encode(head, features(2))
    with pytest.raises(InvalidParameter, match="one image at a time"):
        head.classify(encoding, text("cat"))
    wrong = features(1)
    with pytest.raises(InvalidParameter, match="no such stage"):
        encode(head, wrong.only("res3", "res4", "res5"))
    with pytest.raises(InvalidParameter, match="8 channels"):
        encode(head, replace(wrong, maps={**wrong.maps, "res2": torch.zeros(1, 9, 16, 24)}))


@pytest.mark.parametrize(
    "change",
    [
        {"stage_channels": (8, 12)},
        {"levels": 5},
        {"levels": 0},
        {"mask_dim": 32},
        {"hidden_dim": 40, "mask_dim": 40},
        {"queries": 0},
        {"seen_weight": 1.5},
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_settings_survive_json() -> None:
    assert FCCLIPConfig.from_dict(SMALL.to_dict()) == SMALL
    with pytest.raises(InvalidParameter, match="Unknown"):
        FCCLIPConfig.from_dict({**SMALL.to_dict(), "depth": 3})
    with pytest.raises(InvalidParameter, match="Missing"):
        FCCLIPConfig.from_dict({"embed_dim": 3})


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_fewer_or_more_levels(levels: int) -> None:
    head = FCCLIP(replace(SMALL, levels=levels)).eval()
    assert encode(head, features(1)).mask_logits.shape == (1, 13, 16, 24)


def test_positions_by_hand() -> None:
    encoding = sine_encoding(2, 4, 8, torch.device("cpu")).view(2, 4, 8)
    turn = 2 * math.pi
    y, x = encoding[0, 2, :4], encoding[0, 2, 4:]
    expected = [
        (math.sin(p), math.cos(p), math.sin(p / 100), math.cos(p / 100)) for p in (turn / 2, turn * 0.75)
    ]
    torch.testing.assert_close(y, torch.tensor(expected[0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(x, torch.tensor(expected[1]), rtol=0, atol=1e-5)
    points = reference_points([(1, 2), (2, 1)], torch.device("cpu"))
    torch.testing.assert_close(points, torch.tensor([[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]))


@pytest.mark.gpu
def test_on_a_gpu(head: FCCLIP) -> None:
    maps = features(2)
    expected = head.mask_decoder(*head.pixel_decoder(maps.maps))[0]
    head.cuda()
    on_gpu = maps.to("cuda")
    found = head.mask_decoder(*head.pixel_decoder(on_gpu.maps))[0]
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-2)


def test_a_small_mask_is_given_the_cell_it_covers_most():
    from ovperception.backbones.regions import most_covered

    masks = torch.zeros(1, 3, 16, 16, dtype=torch.bool)
    masks[0, 0, 6:9, 1:3] = True  # two rows of cell (0, 0), one of cell (1, 0)
    masks[0, 1, 12:14, 9:15] = True
    cells = most_covered(masks, (2, 2))
    assert cells[0].tolist() == [
        [[True, False], [False, False]],
        [[False, False], [False, True]],
        [[False, False], [False, False]],  # an empty mask covers nothing
    ]


def test_the_box_of_a_mask_has_its_share_in_the_clip_embedding() -> None:
    seen, backbone = features(), MeanBackbone()
    torch.manual_seed(0)
    plain = FCCLIP(SMALL).eval()
    with torch.no_grad():
        masks = plain.encode(backbone, seen)
        found = {}
        for share in (0.25, 1.0):
            head = FCCLIP(replace(SMALL, box_share=share)).eval()
            head.load_state_dict(plain.state_dict())
            found[share] = head.encode(backbone, seen).clip_embeddings
    boxes = mask_boxes(masks.mask_logits > 0, (64, 96))
    by_box = F.normalize(backbone.embed_boxes(seen, boxes.unbind()), dim=-1).view_as(masks.clip_embeddings)
    torch.testing.assert_close(found[1.0], by_box)
    mixed = F.normalize(0.75 * masks.clip_embeddings + 0.25 * by_box, dim=-1)
    torch.testing.assert_close(found[0.25], mixed)
    with pytest.raises(InvalidParameter, match="box_share"):
        replace(SMALL, box_share=1.5)
