"""Cut, sorted and deduplicated text equals the full context; tokens equal CLIP's."""

import logging

import open_clip
import pytest
import torch
from open_clip.model import CustomTextCLIP

from ovperception.backbones import build_open_clip, from_open_clip
from ovperception.backbones.text_tower import embed_prompts, encode_tokens, is_causal
from ovperception.backbones.tokenizer import TruncatedBPE, as_tokenizer
from ovperception.errors import InvalidParameter
from tests.ovperception.backbones.conftest import small_config, small_model

PROMPTS = [
    "a photo of a dog.",
    "cat",
    "",
    "Ünïcode 日本語 taxi's 🦄 &amp; more",
    "there is the very long and winding road in the scene",
    "cat",
    "a <end_of_text> b",
]


@pytest.fixture(params=["CLIP", "CustomTextCLIP"])
def model(request):
    if request.param == "CLIP":
        return small_model("resnet")
    torch.manual_seed(0)
    built, tokenizer = build_open_clip({**small_config("resnet"), "custom_text": True})
    assert isinstance(built, CustomTextCLIP)
    return built.eval(), tokenizer


def test_equals_the_full_context(model):
    clip, tokenizer = model
    expected = clip.encode_text(tokenizer(PROMPTS))
    assert is_causal(clip)
    for batch_size in (1, 2, 128):
        ours = embed_prompts(clip, as_tokenizer(tokenizer, 24), PROMPTS, batch_size=batch_size)
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_each_prompt_is_encoded_once_at_its_own_length(model, monkeypatch):
    clip, tokenizer = model
    shapes = []
    tower = clip.text if hasattr(clip, "text") else clip
    forward = tower.transformer.forward
    monkeypatch.setattr(
        tower.transformer, "forward", lambda x, **k: (shapes.append(tuple(x.shape[:2])), forward(x, **k))[1]
    )
    embed_prompts(
        clip, as_tokenizer(tokenizer, 24), ["cat", "dog"] * 50 + ["a much longer prompt"], batch_size=2
    )
    assert [rows for rows, _ in shapes] == [2, 1]
    assert shapes[0][1] < shapes[1][1] < 24


def test_a_prompt_beyond_the_context_is_cut_with_its_end_and_told(model, caplog):
    clip, tokenizer = model
    with caplog.at_level(logging.WARNING):
        ours = embed_prompts(clip, as_tokenizer(tokenizer, 24), ["word " * 100, "short"])
    assert "1 of 2 prompts" in caplog.text
    torch.testing.assert_close(
        ours, clip.encode_text(tokenizer(["word " * 100, "short"])), rtol=1e-6, atol=1e-6
    )


def test_gradients_reach_the_text_weights():
    clip, tokenizer = small_model("resnet")
    tokens = tokenizer(["a dog"])
    encode_tokens(clip, tokens[:, : int(tokens.argmax(1).max()) + 1]).sum().backward()
    assert clip.token_embedding.weight.grad.abs().sum() > 0


def test_a_tower_without_causal_mask_runs_at_its_full_context():
    config = small_config("vit")
    config["text_cfg"] |= {"no_causal_mask": True, "pool_type": "last"}
    torch.manual_seed(0)
    # open_clip's own CLIP class cannot hold a tower without a mask.
    clip, tokenizer = build_open_clip({**config, "custom_text": True})
    backbone = from_open_clip(clip, "bidirectional", tokenizer=tokenizer)
    assert not is_causal(clip)
    torch.testing.assert_close(backbone.embed_text(PROMPTS), clip.encode_text(tokenizer(PROMPTS)))


class TestTokenizer:
    def test_all_merges_are_clips_own(self):
        ours, theirs = TruncatedBPE(), open_clip.get_tokenizer("RN50")
        assert ours.vocab_size == theirs.vocab_size == 49408
        assert torch.equal(ours(PROMPTS), theirs(PROMPTS))

    def test_fewer_merges_spell_longer(self):
        small, full = TruncatedBPE(100), TruncatedBPE()
        assert small.vocab_size == 614
        assert len(small.encode("photograph")) > len(full.encode("photograph"))
        assert small.decode(small.encode("photograph of a dog")).strip() == "photograph of a dog"
        ids = small(["a dog"])[0]
        assert ids[0] == 612
        assert int(ids.max()) == 613

    @pytest.mark.parametrize("merges", [-1, 48895])
    def test_bad_merges(self, merges):
        with pytest.raises(InvalidParameter, match="48894"):
            TruncatedBPE(merges)

    def test_a_word_cache_does_not_grow_for_ever(self, monkeypatch):
        import ovperception.backbones.tokenizer as module

        monkeypatch.setattr(module, "_WORD_CACHE_LIMIT", 10)
        bpe = TruncatedBPE(10)
        tokenizer = as_tokenizer(bpe, 24)
        before = tokenizer(["dog"]).ids
        for i in range(20):
            tokenizer([f"word{i} {'x' * i}"])
        assert len(bpe.cache) <= 20
        assert torch.equal(tokenizer(["dog"]).ids, before)

    def test_identity_tells_vocabularies_apart(self):
        identities = {as_tokenizer(TruncatedBPE(m, c), c).identity for m in (10, 11) for c in (24, 77)}
        assert len(identities) == 4
