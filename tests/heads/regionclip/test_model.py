"""The head by its contract: shapes, batches, words, masks, refusals."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from heads.regionclip import PRESETS, RegionCLIP, RegionCLIPConfig
from ovperception.backbones import ClipBackbone, Features
from ovperception.errors import InvalidParameter, InvalidRegions, Unsupported
from ovperception.head import Head, RegionEncoding, RegionHead
from ovperception.proposals import Proposals
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary, VocabularyClass
from tests import synth
from tests.heads.regionclip.conftest import synthetic_backbone, text_of
from tests.heads.regionclip.small import MASKED, small_backbone
from tests.ovperception.backbones.conftest import small_model

DIM = 24


class Uneven(nn.Module):
    """Proposes another number of boxes for each image: its pixels decide, so that order cannot."""

    def __init__(self, least: int = 0) -> None:
        super().__init__()
        self.least = least

    def propose(self, features: Features) -> list[Proposals]:
        assert features.images is not None
        return [self._of(image, features.image_size) for image in features.images]

    def _of(self, image: Tensor, size: tuple[int, int]) -> Proposals:
        generator = torch.Generator().manual_seed(int(image.abs().sum()))
        count = self.least + int(torch.randint(6, (), generator=generator))
        low = torch.rand(count, 2, generator=generator) * 40
        sides = 8 + torch.rand(count, 2, generator=generator) * 40
        return Proposals(
            boxes=torch.cat((low, low + sides), dim=1),
            objectness=torch.randn(count, generator=generator),
        )


@pytest.fixture(scope="module")
def backbone() -> ClipBackbone:
    return small_backbone()


@pytest.fixture
def head() -> RegionCLIP:
    torch.manual_seed(1)
    made = RegionCLIP(RegionCLIPConfig(embed_dim=DIM, **MASKED), Uneven()).eval()  # type: ignore[arg-type]
    assert made.bbox_pred is not None
    nn.init.normal_(made.bbox_pred.weight, std=0.3)
    return made


@torch.no_grad()
def features(backbone: ClipBackbone, images: int = 3, size: tuple[int, int] = (96, 117)) -> Features:
    return backbone.features(torch.randn(images, 3, *size, generator=torch.Generator().manual_seed(8)))


def text(*words: str) -> TextClassifier:
    vocabulary = Vocabulary(
        classes=tuple(VocabularyClass(name=w.split("|")[0], synonyms=tuple(w.split("|"))) for w in words)
    )
    rows = [
        torch.randn(DIM, generator=torch.Generator().manual_seed(sum(map(ord, s)))) for s in vocabulary.texts
    ]
    return TextClassifier(
        embeddings=F.normalize(torch.stack(rows), dim=-1), vocabulary=vocabulary, text_digest=""
    )


def test_is_a_head_for_regions(head: RegionCLIP) -> None:
    assert isinstance(head, Head)
    assert isinstance(head, RegionHead)
    assert head.tasks == {"detect"}
    assert head.proposes
    assert not RegionCLIP(RegionCLIPConfig(embed_dim=DIM)).proposes


@torch.no_grad()
def test_a_batch_equals_its_images_and_padding_is_dropped(head: RegionCLIP, backbone: ClipBackbone) -> None:
    maps = features(backbone, 5)
    together = head.encode(backbone, maps)
    assert maps.images is not None
    counts = [len(p.boxes) for p in head.proposer.propose(maps)]  # type: ignore[union-attr,operator]
    assert len(set(counts)) > 2
    assert together.boxes.shape == (5, max(counts), 4)
    assert together.valid is not None
    assert together.valid.sum(1).tolist() == counts
    assert together.objectness is not None
    assert bool((together.objectness[~together.valid] == -torch.inf).all())
    for index, count in enumerate(counts):
        image = backbone.features(maps.images[index : index + 1])
        alone, mine = head.encode(backbone, image), together[index]
        assert alone.valid is None
        assert mine.valid is None
        assert mine.embeddings.shape == (1, count, DIM)
        torch.testing.assert_close(mine.embeddings, alone.embeddings, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.boxes, alone.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(mine.objectness, alone.objectness)
        words = text("cat", "dog")
        torch.testing.assert_close(
            head.classify(mine, words).scores, head.classify(alone, words).scores, rtol=1e-3, atol=1e-5
        )


@torch.no_grad()
def test_one_batch_of_regions_for_all_images(
    head: RegionCLIP, backbone: ClipBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    embed = backbone.embed_boxes

    def embed_boxes(maps: Features, boxes: list[Tensor]) -> Tensor:
        calls.append(sum(map(len, boxes)))
        return embed(maps, boxes)

    monkeypatch.setattr(backbone, "embed_boxes", embed_boxes)
    encoding = head.encode(backbone, features(backbone, 5))
    assert encoding.valid is not None
    assert calls == [int(encoding.valid.sum())]


@torch.no_grad()
@pytest.mark.parametrize("given", [True, False])
def test_no_boxes_at_all(backbone: ClipBackbone, given: bool) -> None:
    head = RegionCLIP(RegionCLIPConfig(embed_dim=DIM)).eval()
    maps = features(backbone, 2)
    nothing = torch.zeros(0, 4)
    encoding = head.encode_boxes(backbone, maps, [nothing] * 2) if given else head.encode(backbone, maps)
    assert encoding.boxes.shape == (2, 0, 4)
    scores = head.classify(encoding[1], text("cat", "dog"))
    assert scores.scores.shape == (0, 2)


@torch.no_grad()
def test_given_boxes_stay_where_they_are(head: RegionCLIP, backbone: ClipBackbone) -> None:
    boxes = torch.tensor([[3.0, 4, 50, 60], [-10, -5, 200, 40]])
    maps = features(backbone, 2)
    encoding = head.encode_boxes(backbone, maps.only(*backbone.region_stages), [boxes, boxes[:1]])
    assert torch.equal(encoding[0].boxes[0], boxes)
    assert encoding.objectness is None
    assert len(encoding[1].boxes[0]) == 1
    torch.testing.assert_close(encoding[0].embeddings[0], backbone.embed_boxes(maps.image(0), [boxes]))
    with pytest.raises(InvalidRegions):
        head.encode_boxes(backbone, maps, [boxes])


@torch.no_grad()
def test_many_boxes_need_bounded_memory(head: RegionCLIP, backbone: ClipBackbone) -> None:
    seen: list[int] = []
    maps = features(backbone, 1)
    hook = backbone.model.visual.layer4[0].conv3.register_forward_pre_hook(
        lambda _, given: seen.append(len(given[0]))
    )
    boxes = torch.tensor([[3.0, 4, 50, 60]]).repeat(300, 1)
    encoding = head.encode_boxes(backbone, maps, [boxes])
    hook.remove()
    assert sum(seen) == 300
    assert max(seen) <= 128
    torch.testing.assert_close(encoding.embeddings[0, 0], encoding.embeddings[0, -1])


def test_probabilities(head: RegionCLIP) -> None:
    encoding = RegionEncoding(embeddings=3 * torch.randn(1, 4, DIM), boxes=torch.zeros(1, 4, 4))
    words = text("cat", "dog", "taxi|cab")
    logits = head.class_logits(encoding.embeddings[0], words)
    assert logits.shape == (4, 4)
    assert bool((logits[:, -1] == 0).all())
    cosine = F.cosine_similarity(encoding.embeddings[0, 1], words.embeddings[0], dim=0)
    torch.testing.assert_close(logits[1, 0], cosine / 0.01, rtol=1e-4, atol=1e-4)
    scores = head.classify(encoding, words)
    assert scores.scores.shape == (4, 3)
    rest = logits.softmax(-1)[:, -1]
    torch.testing.assert_close(scores.scores.sum(1) + rest, torch.ones(4))
    assert scores.rules.objectness == "sqrt_sigmoid"


def test_what_was_encoded_for_inference_is_classified_anywhere(
    head: RegionCLIP, backbone: ClipBackbone
) -> None:
    with torch.inference_mode():
        encoding = head.encode(backbone, features(backbone, 2))[0]
    assert not head.classify(encoding, text("cat")).scores.requires_grad


def test_permuting_the_words_permutes_the_answer(head: RegionCLIP) -> None:
    encoding = RegionEncoding(embeddings=torch.randn(1, 7, DIM), boxes=torch.zeros(1, 7, 4))
    words = ("cat", "dog|hound", "taxi|cab", "tree")
    straight = head.classify(encoding, text(*words)).scores
    for order in itertools.islice(itertools.permutations(range(4)), 1, None, 5):
        found = head.classify(encoding, text(*(words[i] for i in order))).scores
        torch.testing.assert_close(found, straight[:, list(order)], rtol=1e-4, atol=1e-6)


def test_a_synonym_never_lowers_the_logit(head: RegionCLIP) -> None:
    embeddings = torch.randn(13, DIM)
    few = head.class_logits(embeddings, text("cat", "dog"))
    more = head.class_logits(embeddings, text("cat", "dog|hound|puppy"))
    assert bool((more[..., 1] >= few[..., 1] - 1e-4).all())
    torch.testing.assert_close(more[..., [0, 2]], few[..., [0, 2]])


@pytest.mark.parametrize("classes", [1, 1203])
def test_few_and_many_words(head: RegionCLIP, classes: int) -> None:
    encoding = RegionEncoding(embeddings=torch.randn(1, 5, DIM), boxes=torch.zeros(1, 5, 4))
    scores = head.classify(encoding, text(*(f"word {i}" for i in range(classes))))
    assert scores.scores.shape == (5, classes)
    assert bool(scores.scores.isfinite().all())


def test_every_parameter_learns(head: RegionCLIP, backbone: ClipBackbone) -> None:
    maps = features(backbone, 1)
    boxes = torch.tensor([[3.0, 4, 50, 60], [10, 8, 40, 70]])
    embeddings = head.encode_boxes(backbone, maps, [boxes]).embeddings[0]
    masks = head.segment_boxes(backbone, maps, boxes)
    assert masks is not None
    (head.move_boxes(boxes, embeddings).sum() + masks.square().sum()).backward()
    silent = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@torch.no_grad()
def test_masks_by_hand(head: RegionCLIP, backbone: ClipBackbone) -> None:
    maps = features(backbone, 1)
    boxes = torch.tensor([[3.0, 4, 50, 60], [10, 8, 40, 70]])
    visual, mask_head = backbone.model.visual, head.mask_head
    assert mask_head is not None
    rois = torch.cat((torch.zeros(2, 1), boxes), dim=1)
    crops = roi_align(maps["res4"], rois, 4, spatial_scale=1 / 16, aligned=True)
    hidden = F.relu(mask_head.deconv(visual.layer4(crops)))  # type: ignore[operator,union-attr]
    expected = mask_head.predictor(hidden).sigmoid()[:, 0]
    found = head.segment_boxes(backbone, maps, boxes)
    assert found is not None
    assert found.shape == (2, 4, 4)
    torch.testing.assert_close(found, expected)
    none = head.segment_boxes(backbone, maps, boxes[:0])
    assert none is not None
    assert len(none) == 0
    assert RegionCLIP(RegionCLIPConfig(embed_dim=DIM)).segment_boxes(backbone, maps, boxes) is None


@torch.no_grad()
def test_other_families_name_boxes_but_make_no_masks(head: RegionCLIP) -> None:
    from ovperception.backbones import from_open_clip

    model, tokenizer = small_model("vit")
    vit = from_open_clip(model, "open_clip:small", tokenizer=tokenizer)
    maps = features(vit, 1)
    boxes = torch.tensor([[3.0, 4, 50, 60]])
    assert head.encode_boxes(vit, maps, [boxes]).embeddings.shape == (1, 1, DIM)
    with pytest.raises(Unsupported, match="ModifiedResNet"):
        head.segment_boxes(vit, maps, boxes)


def test_wrong_inputs_are_named(head: RegionCLIP) -> None:
    encoding = RegionEncoding(embeddings=torch.randn(2, 5, DIM), boxes=torch.zeros(2, 5, 4))
    with pytest.raises(InvalidParameter, match="one image at a time"):
        head.classify(encoding, text("cat"))


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": 0},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"objectness": "multiply"},
        {"report": "both"},
        {"suppression": "mild"},
        {"masks": True},
        {"masks": 1},
        {"delta_weights": (1.0, 2.0)},
        {"proposer": "rpn"},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter):
        RegionCLIPConfig.from_dict({"embed_dim": 8, **change})


def test_settings_survive_json() -> None:
    config = RegionCLIPConfig(embed_dim=8, proposer={"kind": "rpn", "variant": "c4"}, suppression="soft")
    assert RegionCLIPConfig.from_dict(config.to_dict()) == config
    with pytest.raises(InvalidParameter, match="Unknown"):
        RegionCLIPConfig.from_dict({**config.to_dict(), "depth": 3})
    with pytest.raises(InvalidParameter, match="Missing"):
        RegionCLIPConfig.from_dict({"temperature": 0.1})


def test_settings_are_completed_from_the_backbone(backbone: ClipBackbone) -> None:
    head = RegionCLIP.from_settings({"masks": True}, backbone.spec)
    assert (head.config.embed_dim, head.config.region_channels) == (24, 512)
    with pytest.raises(InvalidParameter, match="CLIP space"):
        RegionCLIP.from_settings({"embed_dim": 8}, backbone.spec)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_heads(name: str, backbone: ClipBackbone) -> None:
    preset = PRESETS[name]
    settings = {**preset.head_settings(), "proposer": preset.proposer_settings()}
    with torch.device("meta"):
        head = RegionCLIP.from_settings(settings, backbone.spec)
    assert head.config.rules.suppression == preset.suppression
    names = {k.split(".")[0] for k in head.state_dict()}
    assert names == {
        "proposer",
        *(("bbox_pred",) if preset.box_deltas else ()),
        *(("mask_head",) if preset.masks else ()),
    }
    assert all(0 <= value <= 1 for k, value in preset.defaults().items() if "threshold" in k)


def test_the_table_of_presets() -> None:
    """Source: the official configurations and scripts, as they were published."""
    rows = {
        name: (p.score_threshold, p.nms_iou_threshold, p.max_detections, p.objectness, p.proposal_nms_iou)
        for name, p in PRESETS.items()
    }
    assert rows == {
        "coco_zero_shot": (0.001, 0.5, 100, "sqrt_raw", 0.9),
        "lvis_zero_shot": (0.02, 0.5, 300, "sqrt_raw", 0.9),
        "custom_images": (0.02, 0.3, 300, "sqrt_raw", 0.9),
        "coco_finetuned": (0.001, 0.5, 100, "none", 0.7),
        "lvis_finetuned": (0.02, 0.5, 300, "sqrt_raw", 0.7),
    }


@pytest.mark.parity
@pytest.mark.slow
@torch.no_grad()
def test_rn50x4_by_its_own_pooling() -> None:
    """81 cells and 18 x 18 crops: the same as open_clip's layers and its pool on each region."""
    backbone = synthetic_backbone("RN50x4")
    visual = backbone.model.visual
    maps = backbone.features(torch.randn(1, 3, 160, 192, generator=torch.Generator().manual_seed(0)))
    boxes = torch.tensor([[3.0, 4, 150, 120], [100, 60, 140, 155], [-20, 10, 400, 90]])
    rois = torch.cat((torch.zeros(3, 1), boxes), dim=1)
    crops = roi_align(maps["res4"], rois, 18, spatial_scale=1 / 16, sampling_ratio=0, aligned=True)
    expected = visual.attnpool(visual.layer4(crops))  # type: ignore[operator,union-attr]
    settings = {"masks": True, "box_deltas": True}
    head = RegionCLIP.from_settings(settings, backbone.spec).eval()
    manifest = {
        "mask_head.deconv.weight": (2560, 256, 2, 2),
        "mask_head.predictor.weight": (1, 256, 1, 1),
        "bbox_pred.weight": (4, 640),
    }
    assert {k: tuple(head.state_dict()[k].shape) for k in manifest} == manifest
    synth.fill(head, prefix="roi_heads.")
    encoding = head.encode_boxes(backbone, maps, [boxes])
    assert encoding.embeddings.shape == (1, 3, 640)
    torch.testing.assert_close(
        encoding.embeddings[0], expected, rtol=0, atol=1e-5 * float(expected.abs().max())
    )
    masks = head.segment_boxes(backbone, maps, boxes)
    assert masks is not None
    assert masks.shape == (3, 18, 18)
    rows = torch.randn(6, 640, generator=torch.Generator().manual_seed(1)).numpy()
    scores = head.classify(encoding, text_of(rows)).scores
    reference = (F.normalize(expected, dim=-1) @ F.normalize(torch.from_numpy(rows), dim=-1).T) / 0.01
    torch.testing.assert_close(scores, F.pad(reference, (0, 1)).softmax(-1)[:, :-1], rtol=1e-3, atol=1e-6)


@pytest.mark.gpu
def test_on_a_gpu(head: RegionCLIP, backbone: ClipBackbone) -> None:
    boxes = [torch.tensor([[3.0, 4, 50, 60], [10, 8, 40, 70]])]
    maps = features(backbone, 1)
    expected = head.encode_boxes(backbone, maps, boxes)
    masks = head.segment_boxes(backbone, maps, boxes[0])
    gpu = small_backbone().to("cuda")
    head.cuda()
    found = head.encode_boxes(gpu, maps.to("cuda"), [boxes[0].cuda()])
    torch.testing.assert_close(found.embeddings.cpu(), expected.embeddings, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(
        head.segment_boxes(gpu, maps.to("cuda"), boxes[0].cuda()).cpu(),  # type: ignore[union-attr]
        masks,
        rtol=1e-2,
        atol=1e-3,
    )
