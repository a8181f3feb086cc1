"""Equality with the official code, stage by stage, from its golden files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.fcclip.classify import combine, pool_masks
from ovperception.backbones import Features
from ovperception.head import MaskScores
from ovperception.images import Geometry
from ovperception.postprocess import instances, panoptic, semantic
from ovperception.structures import PanopticMap
from tests.heads.fcclip.conftest import Golden, Official, text_of, vocabulary

pytestmark = pytest.mark.parity

# Largest absolute difference, float32. The official code against itself on other kernels: up to 2e-6 before
# the mask decoder; after it a single flipped cell of a hard attention mask moves a query by 1e-3 and its mask
# by 2e-2, which is why the end has a tolerance of its own.
TOLERANCE = {
    "resnet features": 1e-5,
    "convnext features": 2e-5,
    "pixel decoder": 1e-5,
    "free-running decoder": 2e-2,
    "class logits": 5e-2,
    "probabilities": 2e-3,
    "given masks": 2e-5,
}


def assert_samples(golden: Golden, name: str, found: Tensor, tolerance: float) -> None:
    """Compare a tensor with the samples and the statistics kept of the official one."""
    assert (
        tuple(golden[f"{name}.shape"])[-found.ndim :] == tuple(found.shape)[-len(golden[f"{name}.shape"]) :]
    )
    values = found.detach().reshape(-1).numpy()
    np.testing.assert_allclose(
        values[golden[f"{name}.idx"]], golden[f"{name}.val"], rtol=0, atol=tolerance, err_msg=name
    )
    mean, deviation, _ = golden[f"{name}.mean_std_absmax"]
    assert abs(values.mean(dtype=np.float64) - mean) < tolerance
    assert abs(values.std(dtype=np.float64) - deviation) < tolerance


@pytest.mark.parametrize(
    ("variant", "kind"), [("r50", "resnet"), pytest.param("convnext", "convnext", marks=pytest.mark.slow)]
)
class TestWholeModel:
    """The picture goes in; every stage is compared."""

    @pytest.fixture
    def official(self, variant: str, request: pytest.FixtureRequest) -> Official:
        found = request.getfixturevalue(variant)
        assert isinstance(found, Official)
        return found

    def test_features(self, official: Official, kind: str) -> None:
        features = official.features()
        for stage in ("res2", "res3", "res4", "res5"):
            assert_samples(official.golden, f"feat_{stage}", features[stage], TOLERANCE[f"{kind} features"])

    @torch.inference_mode()
    def test_pixel_decoder(self, official: Official, kind: str) -> None:
        mask_features, levels = official.head.pixel_decoder(official.features().maps)
        tolerance = TOLERANCE["pixel decoder"]
        assert_samples(official.golden, "mask_features", mask_features, tolerance)
        for index, level in enumerate(levels):
            assert_samples(official.golden, f"ms_feature_{index}", level, tolerance)

    @torch.inference_mode()
    def test_decoder(self, official: Official, kind: str) -> None:
        """Most layers agree to rounding; all of them to what one flipped attention cell can do."""
        golden, head = official.golden, official.head
        states: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _m, _a, out: states.append(out))
            for layer in head.mask_decoder.layers
        ]
        proposals = head.propose(official.features())
        for hook in hooks:
            hook.remove()
        for index, state in enumerate(states):
            assert_samples(
                golden, f"decoder_out_{index + 1}", state.transpose(0, 1), TOLERANCE["free-running decoder"]
            )
        assert_samples(golden, "pred_masks", proposals.mask_logits[0, -1], TOLERANCE["free-running decoder"])
        logits = head.class_logits(proposals.query_embeddings, official.text)[0].numpy()
        reference = np.concatenate([golden["aux_pred_logits"], golden["pred_logits"][None]])
        errors = np.abs(logits - reference).max(axis=2)  # (layers, queries)
        # Pooling under a hard mask flips too, where a logit is within rounding of zero: at a scale of 100.
        assert errors.max() < TOLERANCE["class logits"]
        assert (errors > 1e-4).mean(axis=1).max() < 0.1
        assert np.median(errors.max(axis=1)) < 2e-3

    @torch.inference_mode()
    def test_encode_and_classify(self, official: Official, kind: str) -> None:
        golden = official.golden
        encoding = official.head.encode(official.backbone, official.features())
        every = golden["pred_masks_every_10th_query"]
        tolerance = TOLERANCE["free-running decoder"]
        np.testing.assert_allclose(encoding.mask_logits[0, ::10].numpy(), every, rtol=0, atol=tolerance)
        pooled = F.normalize(torch.from_numpy(golden["pooled_clip_feature"]), dim=-1)
        step = len(encoding.clip_embeddings[0]) // len(pooled)
        found = encoding.clip_embeddings[0, ::step]
        # A mask whose grid cell lies next to zero may take or leave that cell.
        different = ((found - pooled).abs().amax(dim=1) > 1e-4).float().mean()
        assert different < 0.02
        scores = official.head.classify(encoding, official.text)
        reference = torch.from_numpy(golden["mask_cls_results"]).softmax(-1)
        torch.testing.assert_close(scores.probabilities, reference, rtol=0, atol=TOLERANCE["probabilities"])

    @torch.inference_mode()
    def test_answers(self, official: Official, kind: str) -> None:
        golden = official.golden
        encoding = official.head.encode(official.backbone, official.features())
        scores = official.head.classify(encoding, official.text)
        size = (256, 320)
        geometry = Geometry(original=size, resized=size, padded=size)
        words = vocabulary()
        labels = semantic(scores, geometry, words).labels
        assert (labels != golden["sem_seg_argmax"]).mean() < 1e-4
        found = panoptic(scores, geometry, words)
        assert (found.ids != golden["panoptic_seg"]).mean() < 5e-4
        assert_segments(found, golden)
        objects = instances(scores, geometry, words, things_only=True)
        assert len(objects.scores) == int(golden["inst_n"])
        np.testing.assert_allclose(
            objects.scores, golden["inst_scores_all_sorted"], rtol=0, atol=TOLERANCE["probabilities"]
        )


def assert_segments(found: PanopticMap, golden: Golden) -> None:
    reference = json.loads(str(golden["panoptic_segments_info_json"]))
    assert [(s.id, s.is_thing, s.class_id) for s in found.segments] == [
        (s["id"], s["isthing"], s["category_id"]) for s in reference
    ]


@pytest.fixture(scope="module")
def scores(r50: Official, post: Golden) -> MaskScores:
    masks = torch.from_numpy(post["in_pred_masks"])
    dense = torch.from_numpy(post["in_clip_vis_dense"])
    text = text_of(post["in_text_classifier"])
    with torch.inference_mode():
        inside = F.interpolate(masks, size=dense.shape[-2:], mode="bilinear", align_corners=False) > 0
        features = Features(maps={r50.backbone.dense_stage: dense}, image_size=(128, 160))
        pooled = r50.backbone.embed_masks(features, inside)[0]
        valid = inside[0].flatten(1).any(dim=1)
        reference = torch.from_numpy(post["pooled_clip_feature_every_5th"])
        torch.testing.assert_close(
            pooled[::5][valid[::5]], reference[valid[::5]], rtol=0, atol=TOLERANCE["given masks"]
        )
        clip = text.reduce(100.0 * F.normalize(pooled, dim=-1) @ text.embeddings.T)
        np.testing.assert_allclose(
            clip[valid], post["out_vocab_logits"][valid.numpy(), :-1], rtol=0, atol=1e-3
        )
        probabilities = combine(
            torch.from_numpy(post["in_pred_logits"])[0],
            clip,
            torch.from_numpy(post["in_category_overlapping_mask"]) > 0,
            valid,
            config=r50.checkpoint.config,
        )
    return MaskScores(probabilities=probabilities, mask_logits=masks[0])


@pytest.fixture(scope="module")
def geometry(post: Golden) -> Geometry:
    original, resized, padded = (
        (int(h), int(w)) for h, w in (post["in_output_hw"], post["in_image_hw"], post["in_padded_hw"])
    )
    return Geometry(original=original, resized=resized, padded=padded)


class TestGivenMasks:
    """Masks and logits are injected: pooling, both branches and all answers must be exact."""

    def test_probabilities(self, scores: MaskScores, post: Golden) -> None:
        reference = torch.from_numpy(post["mask_cls_results"]).softmax(-1)
        torch.testing.assert_close(scores.probabilities, reference, rtol=0, atol=TOLERANCE["given masks"])

    def test_semantic(self, scores: MaskScores, geometry: Geometry, post: Golden) -> None:
        found = semantic(scores, geometry, vocabulary())
        np.testing.assert_array_equal(found.labels, post["sem_seg_argmax"])
        assert found.scores is not None
        np.testing.assert_allclose(
            found.scores[::5, ::5], post["sem_seg_every_5th_row_col"].max(axis=0), rtol=0, atol=1e-4
        )

    def test_panoptic(self, scores: MaskScores, geometry: Geometry, post: Golden) -> None:
        found = panoptic(scores, geometry, vocabulary())
        np.testing.assert_array_equal(found.ids, post["panoptic_seg"])
        assert_segments(found, post)
        for segment in found.segments:
            assert segment.area == (found.ids == segment.id).sum()

    def test_instances(self, scores: MaskScores, geometry: Geometry, post: Golden) -> None:
        found = instances(scores, geometry, vocabulary(), things_only=True)
        # The reference also lists masks without a pixel, with a score of 0: they can be no true positive.
        count = int((post["inst_area_sorted"] > 0).sum())
        assert post["inst_scores_sorted"][count:].max() == 0
        np.testing.assert_array_equal(found.class_ids, post["inst_labels_sorted"][:count])
        np.testing.assert_allclose(found.scores, post["inst_scores_sorted"][:count], rtol=0, atol=1e-5)
        assert found.masks is not None
        np.testing.assert_array_equal([m.area for m in found.masks], post["inst_area_sorted"][:count])


def test_pooling_is_a_mean_inside_the_mask() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    logits = torch.tensor([[[[1.0, -1.0], [0.5, 0.0]], [[-1.0, -1.0], [-1.0, -1.0]]]])
    torch.testing.assert_close(pool_masks(features, logits), torch.tensor([[[2.0], [0.0]]]))
