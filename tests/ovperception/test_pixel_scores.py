"""Maps from pixel scores: cut into tiles and chunks of classes, they are what the whole would give."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception import head
from ovperception.head import PixelScores, TextPixelScores
from ovperception.images import Geometry
from ovperception.postprocess import resize, running_softmax, semantic
from ovperception.postprocess.resize import Resizer, Window, tiles
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary, VocabularyClass

GEOMETRIES = [
    Geometry(original=(64, 96), resized=(64, 96), padded=(64, 96)),
    Geometry(original=(50, 83), resized=(60, 90), padded=(64, 96)),
    Geometry(original=(150, 211), resized=(61, 86), padded=(64, 96)),
    Geometry(original=(1, 1), resized=(1, 1), padded=(64, 96)),
]


def words(classes: int, *, synonyms: bool = False) -> Vocabulary:
    return Vocabulary(
        classes=tuple(
            VocabularyClass(
                name=f"class {i}", synonyms=(f"class {i}", f"kind {i}") if synonyms and i % 3 == 0 else ()
            )
            for i in range(classes)
        )
    )


def classifier(vocabulary: Vocabulary, size: int = 8) -> TextClassifier:
    rows = F.normalize(torch.randn(sum(vocabulary.synonym_counts), size), dim=1)
    return TextClassifier(embeddings=rows, vocabulary=vocabulary, text_digest="")


def aligned(logits: Tensor, geometry: Geometry) -> Tensor:
    padded = F.interpolate(logits[None], size=geometry.padded, mode="bilinear", align_corners=True)
    picture = padded[..., : geometry.resized[0], : geometry.resized[1]]
    return F.interpolate(picture, size=geometry.original, mode="bilinear", align_corners=True)[0]


def lazy(vocabulary: Vocabulary, **options: object) -> TextPixelScores:
    embeddings = F.normalize(torch.randn(8, 16, 24), dim=0)
    return TextPixelScores(embeddings=embeddings, text=classifier(vocabulary), scale=14.0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_corners_may_be_aligned(geometry: Geometry) -> None:
    logits = torch.randn(5, 16, 24) * 4
    found = semantic(PixelScores(logits=logits, align_corners=True), geometry, words(5))
    best = aligned(logits, geometry).softmax(dim=0).max(dim=0)
    np.testing.assert_array_equal(found.labels, best.indices)
    np.testing.assert_allclose(found.scores, best.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("synonyms", [False, True])
def test_logits_that_are_made_where_they_are_read(geometry: Geometry, synonyms: bool) -> None:
    vocabulary = words(7, synonyms=synonyms)
    scores = lazy(vocabulary, align_corners=True)
    products = 14 * torch.einsum("td,dhw->thw", scores.text.embeddings, scores.embeddings)
    expected = scores.text.reduce(products, dim=0)
    torch.testing.assert_close(scores.logits, expected)
    whole = semantic(PixelScores(logits=expected, align_corners=True), geometry, vocabulary)
    found = semantic(scores, geometry, vocabulary)
    np.testing.assert_array_equal(found.labels, whole.labels)
    np.testing.assert_allclose(found.scores, whole.scores, rtol=0, atol=1e-5)


def test_refined_logits_are_parts_of_the_refined_whole() -> None:
    kernel = torch.randn(1, 1, 5, 5)

    def smooth(logits: Tensor) -> Tensor:
        return F.conv2d(logits[:, None], kernel, padding=2)[:, 0]

    scores = lazy(words(3), refine=smooth, reach=2)
    whole = scores.logits
    for rows, columns in (
        (slice(0, 4), slice(0, 24)),
        (slice(5, 9), slice(3, 8)),
        (slice(14, 16), slice(22, 24)),
    ):
        part = scores.cells(rows, columns).permute(2, 0, 1)
        torch.testing.assert_close(part, whole[:, rows, columns], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("chunk", "cache"), [(1, 2**17), (3, 40), (10, 1), (11, 100)])
def test_chunks_of_classes_and_parts_of_tiles_do_not_matter(
    chunk: int, cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.randn(10, 16, 24).mul(2).round()  # many are equal: the first of them counts
    geometry = GEOMETRIES[0]
    grid = Geometry(original=(16, 24), resized=(16, 24), padded=(16, 24))
    expected = [semantic(PixelScores(logits=logits), g, words(10)) for g in (geometry, grid)]
    monkeypatch.setattr(head, "_TOGETHER", chunk)
    monkeypatch.setattr(running_softmax, "_CACHE", cache)
    found = [semantic(PixelScores(logits=logits), g, words(10)) for g in (geometry, grid)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[1].labels, expected[1].labels)
    np.testing.assert_array_equal(found[1].labels, logits.numpy().argmax(0))


def test_a_heatmap_is_cut_the_same_way() -> None:
    geometry = GEOMETRIES[1]
    scores = lazy(words(1), align_corners=True)
    whole = Window(0, geometry.original[0], 0, geometry.original[1])
    resizer = Resizer(geometry, scores.grid, align_corners=True)
    found = resizer.one(scores.similarities, whole)
    torch.testing.assert_close(found, aligned(scores.logits / 14, geometry)[0], rtol=0, atol=1e-5)


def test_many_classes_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 words on 640 pixels would be 8 GB of maps, and 2 GB at half the resolution."""
    largest = 0
    matrix = Resizer.expand

    def watch(self: Resizer, cells: Tensor, window: Window) -> Tensor:
        nonlocal largest
        out = matrix(self, cells, window)
        largest = max(largest, cells.untyped_storage().nbytes(), out.untyped_storage().nbytes())
        return out

    monkeypatch.setattr(Resizer, "expand", watch)
    geometry = Geometry(original=(64, 128), resized=(64, 128), padded=(64, 128))
    vocabulary = words(10_000)
    scores = TextPixelScores(
        embeddings=F.normalize(torch.randn(8, 32, 64), dim=0), text=classifier(vocabulary), scale=100.0
    )
    tracemalloc.start()
    found = semantic(scores, geometry, vocabulary)
    assert largest < 40 * 2**20
    assert tracemalloc.get_traced_memory()[1] < 40 * 2**20  # what numpy holds
    tracemalloc.stop()
    assert found.labels.max() > 1000


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("synonyms", [False, True])
def test_words_in_pieces_are_the_words_at_once(
    refined: bool, synonyms: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = torch.randn(10)
    scores = lazy(words(10, synonyms=synonyms), offsets=offsets)
    torch.testing.assert_close(
        scores.logits,
        TextPixelScores(embeddings=scores.embeddings, text=scores.text, scale=14.0).logits
        + offsets[:, None, None],
    )
    if refined:
        scores = dataclasses.replace(scores, refine=lambda logits: logits - logits.amax(0), reach=1)
    monkeypatch.setattr(head, "_TOGETHER", 4)
    assert scores.together == (10 if refined else 4)
    rows, columns = slice(3, 9), slice(0, 24)
    pieces = list(scores.pieces(rows, columns))
    assert [p.shape[2] for p in pieces] == [4, 4, 2]
    torch.testing.assert_close(torch.cat(pieces, dim=2), scores.cells(rows, columns))


@pytest.mark.parametrize("most", [1, 40, 10**6])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_windows_hold_no_more_cells_than_they_may(geometry: Geometry, most: int) -> None:
    """A small picture of a large network input reads many cells a pixel, a large one few."""
    resizer = Resizer(geometry, (64, 96), align_corners=True)
    seen = np.zeros(geometry.original, int)
    for window in resizer.windows(most):
        rows, columns = resizer.region(window)
        held = (rows.stop - rows.start) * (columns.stop - columns.start)
        assert held <= most or window.size == (1, 1)
        seen[window.top : window.bottom, window.left : window.right] += 1
    assert (seen == 1).all()


def test_large_tiles_shrink_under_many_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    def area(maps: int) -> int:
        return max(w.size[0] * w.size[1] for w in tiles((2000, 2000), "cuda", maps=maps))

    assert area(1) == 256 * 512
    assert area(10_000) * 10_000 <= resize._MOST
    assert area(10**9) == 32 * 64
