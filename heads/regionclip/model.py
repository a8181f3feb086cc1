"""The RegionCLIP head: boxes from a proposer, region features from a frozen CLIP, words at the very end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from heads.regionclip.config import RegionCLIPConfig
from heads.regionclip.losses import LossSettings, SampledRegions, box_regression_loss, sample_regions
from heads.regionclip.mask_head import MaskHead
from heads.regionclip.pretraining import detection_losses
from ovperception.backbones.resnet import roi_embeddings
from ovperception.errors import Unsupported
from ovperception.head import BoxScores, Encoding, RegionEncoding, Task, one_image
from ovperception.proposals import Proposer, TrainableProposer, build_proposer
from ovperception.proposals.anchors import decode_deltas

if TYPE_CHECKING:
    from ovperception.backbones.base import Backbone, BackboneSpec, Features
    from ovperception.text import TextClassifier
    from ovperception.training.targets import Targets

__all__ = ["RegionCLIP"]


class RegionCLIP(nn.Module):
    """Detection with any words by the region features of one frozen CLIP.

    Args:
        config: Constants.
        proposer: Finds boxes; None: nothing does, and they must be given (`encode_boxes`).
    """

    tasks: frozenset[Task] = frozenset({"detect"})

    def __init__(self, config: RegionCLIPConfig, proposer: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.proposer = proposer
        self.loss_settings = LossSettings()
        self.bbox_pred = nn.Linear(config.embed_dim, 4) if config.box_deltas else None
        self.mask_head = MaskHead(config.region_channels, config.mask_channels) if config.masks else None
        if self.bbox_pred is not None:
            nn.init.normal_(self.bbox_pred.weight, std=0.001)  # detectron2 `FastRCNNOutputLayers`
            nn.init.zeros_(self.bbox_pred.bias)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], backbone: BackboneSpec) -> Self:
        """Build a head for a backbone; what `settings` leaves out of the backbone's facts is filled in.

        Args:
            settings: Fields of `RegionCLIPConfig`.
            backbone: The CLIP it will stand on.

        Raises:
            InvalidParameter: An unknown setting, or one that no head can be built from.
        """
        last = list(backbone.stages.values())[-1]
        facts: dict[str, Any] = {
            "embed_dim": backbone.embed_dim,
            "region_channels": last.channels,
            "temperature": 1 / backbone.logit_scale,
        }
        config = RegionCLIPConfig.from_dict(facts | dict(settings))
        backbone.check_embed_dim(config.embed_dim)
        return cls(config, None if config.proposer is None else build_proposer(config.proposer, backbone))

    @property
    def proposes(self) -> bool:
        """Whether `encode` finds boxes by itself."""
        return self.proposer is not None

    @property
    def segments(self) -> bool:
        """Whether `segment_boxes` makes masks."""
        return self.mask_head is not None

    def encode(self, backbone: Backbone, features: Features) -> RegionEncoding:
        """The wordless half: propose, embed, and move the boxes where the head has learned to.

        Args:
            backbone: The CLIP the features came from; embeds the boxes.
            features: Maps of B images, with pixels if the proposer wants them.

        Returns:
            The regions of B images, all embedded in one batch; none at all without a proposer.
        """
        if self.proposer is None:
            nothing = features[next(iter(features.maps))].new_zeros(0, 4, dtype=torch.float32)
            images = len(next(iter(features.maps.values())))
            return self.encode_boxes(backbone, features, [nothing] * images)
        found = cast("Proposer", self.proposer).propose(features)
        boxes = [p.boxes for p in found]
        embeddings = backbone.embed_boxes(features, boxes)
        if self.bbox_pred is not None:
            moved = self.move_boxes(torch.cat(boxes), embeddings)
            boxes = list(moved.split([len(b) for b in boxes]))
        return _padded(embeddings, boxes, [p.objectness for p in found])

    def encode_boxes(self, backbone: Backbone, features: Features, boxes: Sequence[Tensor]) -> RegionEncoding:
        """The wordless half for given boxes, such as ground truth; they stay where they are.

        Args:
            backbone: Embeds the boxes.
            features: Maps of B images; what is kept of them will do (`Backbone.region_stages`).
            boxes: B tensors (N_i, 4), xyxy in pixels of the network input.

        Returns:
            The regions of B images, without objectness.

        Raises:
            InvalidRegions: Not one (N, 4) tensor per image.
        """
        return _padded(backbone.embed_boxes(features, boxes), boxes, None)

    def segment_boxes(self, backbone: Backbone, features: Features, boxes: Tensor) -> Tensor | None:
        """A mask inside each box.

        Args:
            backbone: Makes the boxes' region maps.
            features: Maps of one image.
            boxes: (N, 4) xyxy, pixels of the network input.

        Returns:
            (N, S, S) probabilities on a grid that covers the box; None if the head makes no masks.
        """
        if self.mask_head is None:
            return None
        masks = [self.mask_head(maps).sigmoid() for maps in backbone.box_maps(features, [boxes])]
        return torch.cat(masks) if masks else boxes.new_zeros(0, 1, 1)

    def move_boxes(self, boxes: Tensor, embeddings: Tensor) -> Tensor:
        """Boxes by the learned deltas, which read the embedding before it is normalised.

        Args:
            boxes: (..., 4) xyxy.
            embeddings: (..., D), not normalised.

        Returns:
            (..., 4) xyxy, not clipped; the boxes as they are if the head has no deltas.
        """
        if self.bbox_pred is None:
            return boxes
        return decode_deltas(boxes.float(), self.bbox_pred(embeddings), self.config.delta_weights)

    def losses(
        self, backbone: Backbone, features: Features, targets: list[Targets], text: TextClassifier
    ) -> dict[str, Tensor]:
        """Named, weighted losses of a batch for what can be trained on a frozen backbone.

        That is the proposer, if it knows its loss, and the deltas. The names of regions are among it only
        where the backbone's last stage is trained as well (`DataRecipe.tune`): else the classifier is the
        text, and the embeddings are the backbone's own, so that nothing could learn from them.

        Args:
            backbone: Embeds the regions.
            features: Maps of B images.
            targets: B truths; stuff among them is no object.
            text: Whose vocabulary tells things from stuff.

        Raises:
            Unsupported: Nothing of this head can be trained so.
        """
        thing = torch.tensor([c.is_thing for c in text.vocabulary.classes])
        truth = [t.boxes[thing.to(t.class_ids.device)[t.class_ids]] for t in targets]
        found: dict[str, Tensor] = {}
        if isinstance(self.proposer, TrainableProposer):
            found |= self.proposer.losses(features, truth)
        tower = learning_tower(backbone)
        if tower is not None:
            regions = self._sampled(features, truth)
            embeddings = roi_embeddings(tower, features["res4"], [r.boxes for r in regions]).float()
            found |= detection_losses(self, embeddings, regions, _things(targets, thing), text)
        elif self.bbox_pred is not None:
            found["box"] = self._box_loss(backbone, features, truth)
        if not found:
            raise Unsupported(
                "Nothing of this RegionCLIP head can be trained on a frozen backbone",
                field="settings",
                expected='a proposer that learns, such as {"kind": "clip-rpn"}, or box_deltas',
            )
        return found

    def _box_loss(self, backbone: Backbone, features: Features, truth: Sequence[Tensor]) -> Tensor:
        assert self.bbox_pred is not None
        with torch.no_grad():
            sampled = self._sampled(features, truth)
            embeddings = backbone.embed_boxes(features, [s.boxes for s in sampled])
        targets = [
            boxes[s.objects] if len(boxes) else s.boxes for s, boxes in zip(sampled, truth, strict=True)
        ]
        loss = box_regression_loss(
            self.bbox_pred(embeddings),
            torch.cat([s.boxes for s in sampled]),
            torch.cat(targets),
            torch.cat([s.objects for s in sampled]) >= 0,
            weights=self.config.delta_weights,
        )
        return self.loss_settings.box_weight * loss

    @torch.no_grad()
    def _sampled(self, features: Features, truth: Sequence[Tensor]) -> list[SampledRegions]:
        """Of each image some of the proposals and true boxes."""
        proposed = [] if self.proposer is None else cast("Proposer", self.proposer).propose(features)
        nothing = truth[0].new_zeros(0, 4)
        return [
            sample_regions(proposed[i].boxes if proposed else nothing, boxes, self.loss_settings)
            for i, boxes in enumerate(truth)
        ]

    def class_logits(self, embeddings: Tensor, text: TextClassifier) -> Tensor:
        """Cosine similarities over the temperature, the background's last.

        Args:
            embeddings: (..., D), of any length.
            text: K classes; a class counts by its best synonym.

        Returns:
            (..., K + 1); the last column is exactly 0, as that of a class without an embedding would be.
        """
        words = F.normalize(text.embeddings.to(embeddings), dim=-1)
        cosine = text.reduce(F.normalize(embeddings, dim=-1) @ words.T)
        return F.pad(cosine, (0, 1)) / self.config.temperature

    @torch.no_grad()
    def classify(self, encoding: Encoding, text: TextClassifier) -> BoxScores:
        """The word half: one image against its own words; never with gradients (train on `class_logits`).

        Args:
            encoding: Of one image (leading dimension 1), from `encode` or `encode_boxes`.
            text: K classes.

        Returns:
            The softmax over the classes and the background, without the background's column.

        Raises:
            InvalidParameter: More than one image, or the encoding of another kind of head.
        """
        refusal = "RegionCLIP names the regions of one image at a time"
        one = one_image(encoding, RegionEncoding, refusal)[0]  # drops padding
        return BoxScores(
            scores=self.class_logits(one.embeddings[0], text).softmax(-1)[:, :-1],
            boxes=one.boxes[0],
            objectness=None if one.objectness is None else one.objectness[0],
            rules=self.config.rules,
        )


def learning_tower(backbone: Backbone) -> Any:
    """The image tower whose last stage is being trained, or None where all of it is frozen."""
    model: Any = getattr(backbone, "model", None)
    visual = getattr(model, "visual", None)
    stage = getattr(visual, "layer4", None)
    return visual if stage is not None and any(p.requires_grad for p in stage.parameters()) else None


def _things(targets: Sequence[Targets], thing: Tensor) -> list[Targets]:
    kept = [thing.to(t.class_ids.device)[t.class_ids] for t in targets]
    return [
        replace(t, class_ids=t.class_ids[k], masks=t.masks[k], boxes=t.boxes[k])
        for t, k in zip(targets, kept, strict=True)
    ]


def _padded(
    embeddings: Tensor, boxes: Sequence[Tensor], objectness: Sequence[Tensor] | None
) -> RegionEncoding:
    """(sum N_i, D), B tensors (N_i, 4) and B of (N_i,) as one encoding of Q = max N_i regions an image."""
    counts = [len(b) for b in boxes]
    device = embeddings.device
    padding = torch.arange(max(counts), device=device) >= torch.tensor(counts, device=device)[:, None]
    return RegionEncoding(
        embeddings=pad_sequence(list(embeddings.split(counts)), batch_first=True),
        boxes=pad_sequence([b.to(device, torch.float32) for b in boxes], batch_first=True),
        objectness=None
        if objectness is None
        else pad_sequence([o.to(device) for o in objectness], batch_first=True, padding_value=-torch.inf),
        valid=None if len(set(counts)) == 1 else ~padding,
    )
