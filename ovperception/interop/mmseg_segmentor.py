"""A model as mmsegmentation calls one: a registered segmentor.

In a configuration file::

    custom_imports = dict(imports=["ovperception.interop.mmseg_segmentor"])
    model = dict(type="OVPerceptionSegmentor", model="tiny", words="ade20k_150")

Importing this module registers the segmentor where mmengine and mmseg are installed, and does nothing where
they are not. It needs neither ``mmseg.models`` nor compiled mmcv operations, and works in a ``Runner``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovperception.dependencies import missing
from ovperception.errors import MissingDependency, Unsupported
from ovperception.interop.presented import channel_order, look_at, picture
from ovperception.model import load
from ovperception.vocabulary import Vocabulary

__all__ = ["Segmenter", "segmentor"]

NAME = "OVPerceptionSegmentor"


class Segmenter:
    """What the segmentor does, without its framework.

    Args:
        model: name in the catalogue, or path of a bundle.
        words: a list of words, or the name of a class list.
        device: where to run.
        input_format: order of the channels; mmcv reads BGR.

    Raises:
        UnknownModel, MissingFile, UnknownVocabulary: there is no such model or list.
        Unsupported: the model gives no maps.
    """

    def __init__(
        self,
        model: str | Path,
        words: str | Sequence[str],
        *,
        device: str = "cpu",
        input_format: str = "BGR",
    ) -> None:
        self.model = load(model, device=device)
        if "semantic" not in self.model.tasks:
            raise Unsupported(f"Model {self.model.name!r} gives no maps", field="model", got=model)
        self.vocabulary = (
            Vocabulary.builtin(words) if isinstance(words, str) else Vocabulary.from_words(words)
        )
        self._order = channel_order(input_format)

    def labels(self, image: Any, size: tuple[int, int] | None) -> torch.Tensor:
        """(1, H, W) int64 class of each pixel.

        Args:
            image: (3, H, W) tensor, 0 to 255.
            size: (height, width) of the answer; None for the image's own.

        Raises:
            InvalidImage: the image is not (3, H, W), 0 to 255.
        """
        pixels = picture(image, self._order)
        scene = look_at(self.model, pixels, size or (pixels.shape[0], pixels.shape[1]))
        found = scene.semantic(self.vocabulary, score_threshold=0.0)
        return torch.from_numpy(found.labels.astype(np.int64))[None]


@cache
def segmentor() -> type:
    """The class that mmengine's registry knows as ``OVPerceptionSegmentor``; registers it.

    Raises:
        MissingDependency: mmengine or mmseg is not installed.
    """
    try:
        from mmengine.model import BaseModel
        from mmengine.structures import PixelData
        from mmseg.registry import MODELS
    except ModuleNotFoundError as error:
        raise missing(error, NAME) from error

    class OVPerceptionSegmentor(BaseModel):  # type: ignore[misc]  # mmengine has no types
        """See the module; `Segmenter` tells the arguments."""

        def __init__(
            self,
            model: str,
            words: str | Sequence[str],
            device: str = "cpu",
            input_format: str = "BGR",
            data_preprocessor: Mapping[str, Any] | None = None,
        ) -> None:
            super().__init__(data_preprocessor=data_preprocessor)
            self.segmenter = Segmenter(model, words, device=device, input_format=input_format)

        def forward(
            self, inputs: Sequence[Any], data_samples: Sequence[Any] | None = None, mode: str = "predict"
        ) -> list[Any]:
            """The samples with ``pred_sem_seg``, of the size each picture had on disk."""
            if mode != "predict":
                raise Unsupported(
                    "This segmentor only predicts",
                    field="mode",
                    expected="predict",
                    got=mode,
                    mend="`ovp train` trains heads",
                )
            samples = [_new_sample() for _ in inputs] if data_samples is None else list(data_samples)
            for image, sample in zip(inputs, samples, strict=True):
                shape = sample.metainfo.get("ori_shape")
                size = None if shape is None else (int(shape[0]), int(shape[1]))
                sample.set_data({"pred_sem_seg": PixelData(data=self.segmenter.labels(image, size))})
            return samples

    MODELS.register_module(name=NAME, module=OVPerceptionSegmentor, force=True)
    return OVPerceptionSegmentor


def _new_sample() -> Any:
    from mmseg.structures import SegDataSample

    return SegDataSample()


def _register() -> None:
    """Registers, where there is something to register with."""
    try:
        segmentor()
    except MissingDependency:
        return


_register()
