"""Reading the frozen CLIP: where, what is kept of it, and that words never taught keep their meaning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.lseg import LSeg, LSegConfig
from heads.lseg.config import ReadConfig
from heads.lseg.losses import LossSettings, candidates, class_map
from heads.lseg.reading import Reader
from ovperception.backbones import build_open_clip, from_open_clip
from ovperception.backbones.clip import ClipBackbone
from ovperception.errors import InvalidParameter
from ovperception.text import TextClassifier
from ovperception.training.targets import Targets
from ovperception.vocabulary import Vocabulary
from tests.heads.lseg.small import head_on
from tests.ovperception.backbones.conftest import small_config

READ: dict[str, Any] = {"stages": ["res5", "res5/1"], "key_dim": 8, "hidden": 16}


def pyramid_clip() -> ClipBackbone:
    config = small_config("resnet") | {"pyramid": [2]}
    torch.manual_seed(3)
    model, tokenizer = build_open_clip(config)
    return from_open_clip(model, "open_clip:small", tokenizer=tokenizer, config=config)


def reading_head(backbone: ClipBackbone, **settings: Any) -> LSeg:
    return head_on(backbone, stages=["res2", "res3", "res4", "res5"], grow=1, read=READ, **settings)


def synonyms(counts: dict[str, int]) -> TextClassifier:
    words = ["|".join([name, *(f"{name} {n}" for n in range(1, count))]) for name, count in counts.items()]
    rows = F.normalize(torch.randn(sum(counts.values()), 24), dim=1)
    return TextClassifier(embeddings=rows, vocabulary=Vocabulary.from_words(words), text_digest="")


def halves(size: int = 64) -> tuple[Tensor, Targets]:
    images = torch.zeros(2, 3, size, size)
    images[..., : size // 2] = 1
    masks = torch.zeros(2, size, size, dtype=torch.bool)
    masks[0, :, : size // 2] = masks[1, :, size // 2 :] = True
    return images, Targets(class_ids=torch.tensor([2, 0]), masks=masks, boxes=torch.zeros(2, 4))


@torch.no_grad()
def test_an_untrained_reader_says_what_clip_says() -> None:
    """Beginning at nothing learned, a pixel is a mean of CLIP's own embeddings, most of the nearest."""
    backbone = pyramid_clip()
    head = reading_head(backbone)
    features = backbone.features(torch.randn(2, 3, 128, 96))
    dense = head.read(backbone, features)
    assert [tuple(d.shape) for d in dense] == [(2, 24, 4, 3), (2, 24, 2, 2)]
    found, plain = head.both(features, dense, plain=True)
    assert found.shape == (2, 24, 32, 24)  # the size of the finest map
    assert plain is not None
    torch.testing.assert_close(found, plain)
    span = torch.cat([d.flatten(2) for d in dense], 2)[0]  # (D, M)
    mixed = torch.linalg.lstsq(span, found[0].flatten(1)).solution
    torch.testing.assert_close(span @ mixed, found[0].flatten(1), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_nearness_is_measured_in_cells_of_the_level() -> None:
    """With nothing but nearness, a pixel over a cell's centre reads that cell most, its neighbours alike."""
    reader = Reader(ReadConfig(stages=("res5",), channels=6, key_dim=4, hidden=4), 3, 5)
    reader.queries.weight.zero_()
    assert reader.queries.bias is not None
    reader.queries.bias.zero_()
    cells = torch.eye(5)[None, :, None]  # (1, D, 1, 5): each cell says its own number
    # 11 pixels from corner to corner: the sixth lies over the middle of the third of five cells.
    read, _ = reader(torch.zeros(1, 3, 1, 11), [torch.randn(1, 6, 1, 5)], [cells])
    weights = read[0, :, 0, 5]
    softplus = float(F.softplus(torch.tensor(0.0)))
    expected = torch.tensor([4.0, 1.0, 0.0, 1.0, 4.0]).mul(-softplus).softmax(0)
    torch.testing.assert_close(weights, expected)
    reader.windows.bias.data[2] = 10.0  # three cells to the right
    read, _ = reader(torch.zeros(1, 3, 1, 11), [torch.randn(1, 6, 1, 5)], [cells])
    assert int(read[0, :, 0, 0].argmax()) == 2  # from the left border, at 0, to 3: between cells 2 and 3


@torch.no_grad()
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = pyramid_clip()
    head = reading_head(backbone)
    features = backbone.features(torch.randn(1, 3, 64, 96))
    whole = head.encode(backbone, features).embeddings
    monkeypatch.setattr("heads.lseg.reading._PIXELS", 50)
    torch.testing.assert_close(head.encode(backbone, features).embeddings, whole)


def test_learning_keeps_near_the_clip() -> None:
    backbone = pyramid_clip()
    images, truth = halves()
    features = backbone.features(images)
    torch.manual_seed(0)
    text = synonyms({"a": 1, "b": 2, "c": 1, "d": 3})
    distances = {}
    for keep in (0.01, 20.0):
        head = reading_head(backbone).train()
        head.loss_settings = replace(
            head.loss_settings, pixels=200, balance=0.5, candidates=3, frozen=0.5, keep=keep
        )
        optimiser = torch.optim.AdamW(head.parameters(), lr=3e-3)
        torch.manual_seed(1)
        history: list[dict[str, float]] = []
        for _ in range(15):
            losses = head.losses(backbone, features, [truth, truth], text)
            assert set(losses) == {"pixel", "frozen", "keep"}
            optimiser.zero_grad()
            torch.stack([*losses.values()]).sum().backward()
            optimiser.step()
            history.append({k: float(v.detach()) for k, v in losses.items()})
        distances[keep] = history[-1]["keep"] / keep
        assert history[0]["keep"] == pytest.approx(0, abs=1e-4 * keep)
        if keep < 1:
            assert history[-1]["pixel"] < 0.7 * history[0]["pixel"]
    assert distances[20.0] < 0.5 * distances[0.01]


def test_candidates() -> None:
    text = synonyms({"a": 1, "b": 2, "c": 1, "d": 3, "e": 1})
    few, index = candidates(text, torch.tensor([1, 3]), 3)
    assert len(few) == 3
    assert {"b", "d"} < set(few.names)
    assert index[-1] == -1
    for old, name in enumerate(text.names):
        new = int(index[old])
        assert (new < 0) == (name not in few.names)
        if new >= 0:
            assert few.names[new] == name
    probe = torch.randn(4, 24)
    every = text.reduce(probe @ text.embeddings.T)
    some = few.reduce(probe @ few.embeddings.T)
    torch.testing.assert_close(some, every[:, [text.names.index(n) for n in few.names]])
    assert len(candidates(text, torch.tensor([0, 1, 2, 3]), 2)[0]) == 4
    assert len(candidates(text, torch.tensor([0]), 99)[0]) == 5


def test_what_has_no_class_is_no_negative() -> None:
    """Pixels of a class outside the vocabulary are not in the loss at all."""
    backbone = pyramid_clip()
    images, truth = halves()
    head = reading_head(backbone)
    head.loss_settings = LossSettings(candidates=2)
    features, text = backbone.features(images), synonyms({"a": 1, "b": 1, "c": 1})
    labels = class_map(truth, (64, 64))
    assert (labels == 2).sum() == (labels == 0).sum() == 2048
    half = Targets(class_ids=truth.class_ids[:1], masks=truth.masks[:1], boxes=truth.boxes[:1])
    parameters = [p for n, p in head.named_parameters() if n == "reader.adapter.2.weight"]
    losses = head.losses(backbone, features, [half, half], text)
    (grad,) = torch.autograd.grad(losses["pixel"], parameters)
    unknown = half.masks.new_zeros(1, 64, 64)
    unknown[0, :, 32:] = True
    marked = Targets(
        class_ids=torch.tensor([2, -1]), masks=torch.cat((half.masks, unknown)), boxes=torch.zeros(2, 4)
    )
    torch.manual_seed(0)
    (same,) = torch.autograd.grad(
        head.losses(backbone, features, [marked, marked], text)["pixel"], parameters
    )
    torch.manual_seed(0)
    (plain,) = torch.autograd.grad(head.losses(backbone, features, [half, half], text)["pixel"], parameters)
    torch.testing.assert_close(same, plain)
    assert grad.abs().sum() > 0


@torch.no_grad()
def test_a_discount_for_what_was_taught() -> None:
    backbone = pyramid_clip()
    text = synonyms({"cat": 2, "dog": 1, "owl": 1})
    plain = reading_head(backbone)
    fair = reading_head(backbone, seen_words=["cat 1", "owl"], seen_discount=1.5)
    encoding = plain.encode(backbone, backbone.features(torch.randn(1, 3, 64, 64)))
    before, after = plain.classify(encoding, text).logits, fair.classify(encoding, text).logits
    torch.testing.assert_close(before - after, torch.tensor([1.5, 0, 1.5])[:, None, None].expand_as(before))


@torch.no_grad()
@pytest.mark.parametrize("views", [None, {"base": 64, "crop": 64, "flip": False}])
def test_words_met_in_training_and_others_are_weighed_apart(views: dict[str, Any] | None) -> None:
    backbone = pyramid_clip()
    text = synonyms({"cat": 2, "dog": 1, "owl": 1})
    head = reading_head(
        backbone, seen_words=["cat 1", "owl"], seen_weight=0.75, unseen_weight=0.25, views=views
    )
    torch.nn.init.normal_(head.decoder.head.weight)  # what was learned
    encoding = head.encode(backbone, backbone.features(torch.randn(1, 3, 64, 64)))
    assert encoding.frozen is not None
    scale = head.config.logit_scale
    learned, frozen = (
        text.reduce(scale * torch.einsum("td,dhw->thw", text.embeddings, e[0]), dim=0)
        for e in (encoding.embeddings, encoding.frozen)
    )
    assert float((learned - frozen).abs().max()) > 1
    share = torch.tensor([0.75, 0.25, 0.75])[:, None, None]
    found = head.classify(encoding, text)
    # Of a class with synonyms the best weighed one counts, which is no better than the best of each.
    expected = share * learned + (1 - share) * frozen
    torch.testing.assert_close(found.logits[1:], expected[1:], rtol=1e-4, atol=1e-4)
    assert (found.logits[0] <= expected[0] + 1e-4).all()
    assert encoding.clone().nbytes == 2 * encoding.embeddings.numel() * 4
    alone = reading_head(backbone).encode(backbone, backbone.features(torch.randn(1, 3, 64, 64)))
    assert alone.frozen is None


def test_settings() -> None:
    backbone = pyramid_clip()
    head = reading_head(backbone)
    assert head.config.read is not None
    assert head.config.logit_scale == pytest.approx(backbone.spec.logit_scale)
    assert LSegConfig.from_dict(head.config.to_dict()) == head.config
    assert head_on(backbone, read={}).config.read == ReadConfig(
        stages=("res5",), channels=backbone.spec.stages["res5"].channels
    )
    for wrong in (
        {"read": {"stages": []}},
        {"read": {"stages": ["res5"], "hidden": 0}},
        {"read": {"surprise": 1}},
        {"read": 3},
        {"grow": 3},
        {"seen_weight": 1.5},
        {"read": None, "unseen_weight": 0.5},
        {"seen_discount": float("nan")},
        {"seen_discount": 1.0, "arch_option": 1},
    ):
        with pytest.raises(InvalidParameter):
            head_on(backbone, **wrong)
    for bad in ({"pixels": 0}, {"candidates": 0}, {"keep": -1}, {"balance": float("nan")}):
        with pytest.raises(InvalidParameter):
            LossSettings(**bad)
    missing, features = (
        head_on(backbone, read={"stages": ["res5/7"]}),
        backbone.features(torch.zeros(1, 3, 64, 64)),
    )
    with pytest.raises(InvalidParameter, match="no such stage"):
        missing.encode(backbone, features)
