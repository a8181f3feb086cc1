"""Class embeddings that somebody stored, in place of what the text tower would say.

RegionCLIP publishes such files: ``lvis_1203_cls_emb_rn50.pth``, ``coco_65_cls_emb.pth``. They hold one tensor
(K, D) and no names, so the names are given beside them, in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ovperception.checkpoints import as_tensor, read_content
from ovperception.errors import InvalidVocabulary
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary

__all__ = ["classifier_from_embeddings", "classifier_from_file", "read_class_embeddings"]

_FIELD = "class_embeddings"


def classifier_from_file(path: Path, vocabulary: Vocabulary) -> TextClassifier:
    """The classifier that a file of class embeddings makes.

    Args:
        path: as for `read_class_embeddings`.
        vocabulary: K classes in the order of the rows. A row stands for its whole class: synonyms and
            templates play no part any more.

    Raises:
        MissingFile: there is no such file.
        InvalidCheckpoint: it cannot be read without executing it.
        InvalidVocabulary: it holds no such tensor, or K does not fit.
    """
    return classifier_from_embeddings(read_class_embeddings(path), vocabulary)


def read_class_embeddings(path: Path) -> Tensor:
    """(K, D) float32, as stored: a tensor or array saved by `torch.save`, bare or alone in a dict.

    Raises:
        MissingFile, InvalidCheckpoint: no file, or none that can be read without executing it.
        InvalidVocabulary: something else is in it.
    """
    content = read_content(path)
    if isinstance(content, Mapping) and len(content) == 1:
        content = next(iter(content.values()))
    tensor = as_tensor(content)
    if tensor is None or tensor.ndim != 2 or not tensor.is_floating_point():
        raise InvalidVocabulary(
            f"{path.name} holds no class embeddings",
            field=_FIELD,
            expected="one tensor (K, D) of floating point numbers, a row for every class",
            got=type(content).__name__ if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}",
        )
    return tensor.float()


def classifier_from_embeddings(embeddings: Tensor, vocabulary: Vocabulary) -> TextClassifier:
    """A classifier of given rows.

    Args:
        embeddings: (K, D), of any length; made unit length here.
        vocabulary: K classes in the order of the rows.

    Raises:
        InvalidVocabulary: another number of rows than of classes, or a row that has no direction.
    """
    if embeddings.ndim != 2 or len(embeddings) != len(vocabulary):
        raise InvalidVocabulary(
            "The class embeddings do not fit the classes",
            field=_FIELD,
            expected=f"({len(vocabulary)}, D): a row for each of {len(vocabulary)} classes",
            got=tuple(embeddings.shape),
            mend="Name as many classes as there are rows, in the same order",
        )
    rows = embeddings.detach().float().cpu()
    lengths = rows.norm(dim=1, keepdim=True)
    unusable = ~(rows.isfinite().all(1) & (lengths[:, 0] > 0))
    if unusable.any():
        index = int(unusable.nonzero()[0, 0])
        raise InvalidVocabulary(
            f"The embedding of {vocabulary.names[index]!r} has no direction",
            field=f"{_FIELD}[{index}]",
            expected="finite numbers that are not all zero",
        )
    single = tuple(replace(c, synonyms=(c.name,)) for c in vocabulary.classes)
    digest = hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()
    return TextClassifier(
        embeddings=rows / lengths,
        vocabulary=replace(vocabulary, classes=single),
        text_digest=f"class embeddings {digest}",
    )
