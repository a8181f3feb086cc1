"""Names, configurations, files: what is built, what is refused and how it is said."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from ovperception.backbones import build_open_clip, from_open_clip, load_backbone
from ovperception.errors import (
    InvalidCheckpoint,
    InvalidParameter,
    MissingFile,
    Unavailable,
    UnknownModel,
    Unsupported,
)
from tests.ovperception.backbones.conftest import small_config, small_model


@pytest.fixture
def architecture(monkeypatch):
    """Registers a small architecture under open_clip's names, with one published tag."""
    import open_clip.factory
    import open_clip.pretrained

    config = small_config("resnet")
    config.pop("tokenizer")
    config["text_cfg"]["vocab_size"] = 49408
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", config)
    tag = {"url": "", "hf_hub": "", "quick_gelu": True, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "small", {"published": tag})
    return config


def activation(backbone):
    return type(backbone.model.transformer.resblocks[0].mlp.gelu).__name__


def test_by_name_with_random_weights(architecture):
    backbone = load_backbone("open_clip:small")
    assert backbone.spec.name == "open_clip:small"
    assert backbone.spec.family == "resnet"
    assert activation(backbone) == "GELU"
    assert backbone.spec.mean == open_clip.OPENAI_DATASET_MEAN


def test_a_file_of_weights(architecture, tmp_path):
    source = load_backbone("open_clip:small")
    save_file(source.model.state_dict(), tmp_path / "weights.safetensors")
    torch.save(source.model.state_dict(), tmp_path / "weights.pt")
    for name in ("weights.safetensors", "weights.pt"):
        assert load_backbone("open_clip:small", weights=tmp_path / name).spec.digest == source.spec.digest


def test_the_tag_brings_its_activation_and_statistics(architecture, tmp_path):
    source = load_backbone("open_clip:small")
    save_file(source.model.state_dict(), tmp_path / "w.safetensors")
    tagged = load_backbone("open_clip:small/published", weights=tmp_path / "w.safetensors")
    assert activation(tagged) == "QuickGELU"
    assert tagged.spec.mean == (0.5, 0.5, 0.5)
    assert tagged.spec.std == (0.25, 0.25, 0.25)
    # the same numbers with another activation are another tower
    assert tagged.spec.text_digest != source.spec.text_digest
    assert not torch.allclose(tagged.embed_text(["a dog"]), source.embed_text(["a dog"]))


@pytest.mark.parametrize(
    ("tag", "quick"),
    [
        ("RN50/openai", True),
        ("ViT-B-16/openai", True),
        ("ViT-B-16/dfn2b", True),
        ("ViT-B-16/laion2b_s34b_b88k", False),
        ("ViT-B-32/metaclip_400m", True),
        ("RN50-quickgelu/openai", True),
        ("convnext_base_w/laion2b_s13b_b82k", False),
    ],
)
def test_published_tags_know_their_activation(tag, quick):
    from open_clip.pretrained import get_pretrained_cfg

    arch, _, name = tag.partition("/")
    config, published = open_clip.get_model_config(arch), get_pretrained_cfg(arch, name)
    assert bool(config.get("quick_gelu") or published.get("quick_gelu")) == quick


def test_the_marks_of_openai_s_own_files_bring_quick_gelu(architecture, tmp_path, caplog):
    state = load_backbone("open_clip:small").model.state_dict()
    marks = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), torch.tensor(64))
    torch.save(state | marks, tmp_path / "RN50.pt")
    torch.save(state, tmp_path / "other.pt")
    assert activation(load_backbone("open_clip:small", weights=tmp_path / "RN50.pt")) == "QuickGELU"
    assert "QuickGELU" in caplog.text
    assert activation(load_backbone("open_clip:small", weights=tmp_path / "other.pt")) == "GELU"
    asked = load_backbone("open_clip:small", weights=tmp_path / "other.pt", quick_gelu=True)
    assert activation(asked) == "QuickGELU"


def test_offline_is_told(architecture, monkeypatch):
    import ovperception.backbones.loading as module

    def offline(_):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(module, "download_pretrained", offline)
    with pytest.raises(Unavailable, match=r"small/published could not be fetched.*weights="):
        load_backbone("open_clip:small/published")


def test_names_that_are_not_known(architecture):
    with pytest.raises(UnknownModel, match="open_clip:RN50/openai"):
        load_backbone("RN50")
    with pytest.raises(UnknownModel, match="RN50"):
        load_backbone("open_clip:RN5O")
    with pytest.raises(UnknownModel, match="published"):
        load_backbone("open_clip:small/openai")
    with pytest.raises(UnknownModel):
        load_backbone("open_clip:hf-hub:someone/something")


def test_files_that_do_not_fit(architecture, tmp_path):
    with pytest.raises(MissingFile):
        load_backbone("open_clip:small", weights=tmp_path / "none.pt")
    (tmp_path / "broken.pt").write_bytes(b"not a checkpoint")
    (tmp_path / "broken.safetensors").write_bytes(b"not a checkpoint")
    other, _ = small_model("vit")
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    for name in ("broken.pt", "broken.safetensors", "other.safetensors"):
        with pytest.raises(InvalidCheckpoint, match=name):
            load_backbone("open_clip:small", weights=tmp_path / name)


@pytest.mark.parametrize(
    "arch",
    ["ViT-B-16-SigLIP", "EVA02-B-16", "MobileCLIP-S1", "ViTamin-S", "coca_ViT-B-32", "PE-Core-T-16-384",
     "roberta-ViT-B-32", "nllb-clip-base"],
)  # fmt: skip
def test_families_that_are_not_covered(arch):
    with pytest.raises(Unsupported, match=r"convnext_base_w.*RN50.*ViT-B-16"):
        load_backbone(f"open_clip:{arch}")


def test_every_covered_architecture_is_told_from_the_others():
    from ovperception.backbones.loading import _refuse_uncovered

    covered = []
    for arch in open_clip.list_models():
        try:
            _refuse_uncovered(open_clip.get_model_config(arch))
        except Unsupported:
            continue
        covered.append(arch)
    assert {"RN50", "RN50x64", "ViT-B-32", "ViT-L-14-336", "convnext_large_d_320", "ViT-L-14-CLIPA"} <= set(
        covered
    )
    assert not [a for a in covered if a.startswith(("coca", "EVA", "ViTamin", "MobileCLIP", "PE-", "nllb"))]
    assert not [a for a in covered if "SigLIP" in a]


def test_custom_attention_blocks_are_refused():
    config = small_config("vit")
    config["vision_cfg"]["qk_norm"] = True
    model, tokenizer = build_open_clip(config)
    with pytest.raises(Unsupported, match="attention block"):
        from_open_clip(model, "custom", tokenizer=tokenizer)


class TestConfig:
    def test_plain_open_clip_can_hold_the_weights(self):
        config = json.loads(json.dumps(small_config("resnet")))
        model, tokenizer = build_open_clip(config)
        plain = open_clip.model.CLIP(
            embed_dim=config["embed_dim"], vision_cfg=config["vision_cfg"], text_cfg=config["text_cfg"]
        )
        plain.load_state_dict(model.state_dict())
        plain.eval(), model.eval()
        tokens = tokenizer(["a purple taxi"])
        assert torch.equal(plain.encode_text(tokens), model.encode_text(tokens))

    def test_the_argument_is_left_alone(self):
        config = small_config("resnet")
        before = json.dumps(config)
        build_open_clip(config)
        assert json.dumps(config) == before

    def test_open_clip_s_file_form(self):
        config = small_config("resnet")
        tokenizer = config.pop("tokenizer")
        nested = {"model_cfg": config, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}, "tokenizer": tokenizer}
        model, bpe = build_open_clip(nested)
        assert from_open_clip(model, "x", tokenizer=bpe).spec.mean == (0.1, 0.2, 0.3)

    def test_mistakes_are_named(self):
        config = small_config("resnet")
        with pytest.raises(InvalidParameter, match="wisdom"):
            build_open_clip({**config, "wisdom": 1})
        with pytest.raises(InvalidParameter, match="text_cfg"):
            build_open_clip({k: v for k, v in config.items() if k != "text_cfg"})
        with pytest.raises(InvalidParameter, match="1516"):
            build_open_clip({**config, "tokenizer": {"kind": "clip_bpe", "merges": 1002}})
        with pytest.raises(InvalidParameter, match="clip_bpe"):
            build_open_clip({**config, "tokenizer": {"kind": "words"}})

    def test_a_small_vocabulary_needs_its_tokenizer(self):
        model, _ = small_model("resnet")
        with pytest.raises(InvalidParameter, match="49408"):
            from_open_clip(model, "x")


def test_the_temperature_is_clipped_as_in_training():
    model, tokenizer = small_model("resnet")
    with torch.no_grad():
        model.logit_scale.fill_(4.7)
    assert from_open_clip(model, "x", tokenizer=tokenizer).spec.logit_scale == 100.0


def test_a_pyramid_needs_an_image_tower():
    config = small_config("vit") | {"image_tower": False, "pyramid": [2, 4]}
    model, tokenizer = build_open_clip(config)
    with pytest.raises(InvalidParameter, match=r"without its image tower.*Got \[2, 4\]") as caught:
        from_open_clip(model, "open_clip:small", tokenizer=tokenizer, config=config)
    assert caught.value.field == "config.pyramid"


@pytest.mark.parametrize("factors", [2, "24", ["2"], [True], {"2": 4}])
def test_a_pyramid_is_a_list_of_numbers(factors):
    config = small_config("resnet") | {"pyramid": factors}
    model, tokenizer = build_open_clip(config)
    with pytest.raises(InvalidParameter, match="no list of factors"):
        from_open_clip(model, "open_clip:small", tokenizer=tokenizer, config=config)
