"""Small random members of each family."""

import copy

import pytest
import torch

from ovperception.backbones import build_open_clip, from_open_clip

TEXT = {"context_length": 24, "vocab_size": 1514, "width": 32, "heads": 2, "layers": 2}
TOKENIZER = {"kind": "clip_bpe", "merges": 1000}
CONFIGS = {
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "patch_size": None},
    "convnext": {
        "timm_model_name": "convnext_atto",
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 64,
    },
    "convnext_mlp": {
        "timm_model_name": "convnext_atto",
        "timm_pool": "",
        "timm_proj": "mlp",
        "image_size": 64,
    },
    "vit": {"image_size": 64, "layers": 4, "width": 32, "head_width": 16, "patch_size": 16},
    "clipa": {
        **{"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
        **{"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
    },
}


def small_config(family):
    return {
        "embed_dim": 24,
        "vision_cfg": copy.deepcopy(CONFIGS[family]),
        "text_cfg": dict(TEXT),
        "tokenizer": dict(TOKENIZER),
    }


def small_model(family, seed=0):
    """An open_clip model whose every weight matters: no zero-initialised norms, no tiny layer scales."""
    torch.manual_seed(seed)
    model, tokenizer = build_open_clip(small_config(family))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("gamma", "bn3.weight")):
                parameter.uniform_(0.5, 1)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    return model.eval(), tokenizer


def small_backbone(family, seed=0):
    model, tokenizer = small_model(family, seed)
    return from_open_clip(model, f"small {family}", tokenizer=tokenizer)


@pytest.fixture(scope="package", params=list(CONFIGS))
def backbone(request):
    return small_backbone(request.param)
