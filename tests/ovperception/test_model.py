"""The built-in model end to end: one look, many questions, and what must not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import ovperception
from ovperception import Model, Scene, errors
from ovperception.bundle import read_bundle, write_bundle
from ovperception.catalogue import locate
from ovperception.datasets import scenes
from ovperception.vocabulary import Vocabulary

WORDS = ["rooster", "toolbox", "snowman", "grass", "sky"]


@pytest.fixture(scope="module")
def model() -> Model:
    return ovperception.load("tiny")


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return scenes.scene("val", 3, (256, 320)).image


@pytest.fixture(scope="module")
def scene(model: Model, image: NDArray[np.uint8]) -> Scene:
    return model.encode(image)


@pytest.fixture
def looks(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    seen: list[torch.Size] = []
    original = model.backbone.features

    def features(images: torch.Tensor) -> object:
        seen.append(images.shape)
        return original(images)

    monkeypatch.setattr(model.backbone, "features", features)
    return seen


def test_one_look_answers_every_question(
    model: Model, image: NDArray[np.uint8], looks: list[torch.Size]
) -> None:
    scene = model.encode(image)
    assert len(looks) == 1
    for words in (WORDS, ["a red taxi"], ["cat|kitten", "dog"]):
        scene.detect(words)
        scene.semantic(words)
        scene.panoptic(words)
        scene.heatmap(words[0])
    scene.embed_regions([[0, 0, 50, 50]])
    assert len(looks) == 1


def test_answers_are_in_pixels_of_the_presented_image(scene: Scene) -> None:
    assert scene.size == (256, 320)
    found = scene.detect(WORDS, score_threshold=0)
    assert found.boxes.shape == (len(found), 4)
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] <= (320, 256)).all()
    assert found.masks is not None
    assert all(mask.decode().shape == (256, 320) for mask in found.masks)
    assert np.array_equal(np.sort(found.scores)[::-1], found.scores)
    assert scene.semantic(WORDS).labels.shape == (256, 320)
    assert scene.heatmap("sky").shape == (256, 320)
    assert np.abs(scene.heatmap("sky")).max() <= 1 + 1e-5


def test_it_finds_what_is_there(model: Model) -> None:
    truth = scenes.scene("val", 0)
    names = sorted({scenes.load_categories()[s.category_id - 1].name for s in truth.segments})
    right = model.encode(truth.image).semantic(names)
    categories = {c.id: c.name for c in scenes.load_categories()}
    wanted = np.vectorize(lambda i: names.index(categories[i]))(truth.labels)
    assert (right.labels == wanted).mean() > 0.6


def test_order_of_the_words_does_not_matter(scene: Scene) -> None:
    first, second = scene.semantic(WORDS), scene.semantic(WORDS[::-1])
    names = np.array([*WORDS])
    assert (names[first.labels] == names[::-1][second.labels]).mean() > 0.9999


def test_a_synonym_never_lowers_a_class(scene: Scene) -> None:
    plain = scene.detect(Vocabulary.from_words(["toolbox", "snowman"], background=()), score_threshold=0)
    more = scene.detect(
        Vocabulary.from_words(["toolbox|snowman man", "snowman"], background=()), score_threshold=0
    )
    best = [
        max((s for s, c in zip(d.scores, d.class_ids, strict=True) if c == 0), default=0)
        for d in (plain, more)
    ]
    assert best[1] >= best[0] - 1e-6


def test_neighbours_in_a_batch_do_not_matter(model: Model, image: NDArray[np.uint8]) -> None:
    other = scenes.scene("val", 4, (256, 320)).image
    odd = scenes.scene("val", 5, (199, 131)).image
    alone = model.encode(image).semantic(WORDS)
    together = model.encode_batch([other, image, odd])
    assert [s.size for s in together] == [(256, 320), (256, 320), (199, 131)]
    assert (together[1].semantic(WORDS).labels == alone.labels).mean() > 0.9999


def test_batched_scenes_hold_only_their_own_memory(model: Model, image: NDArray[np.uint8]) -> None:
    single = model.encode(image)
    first, _ = model.encode_batch([image, image])
    assert first.nbytes == single.nbytes
    for tensor in first._features.maps.values():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_what_is_not_there_is_not_found(model: Model) -> None:
    truth = scenes.scene("val", 0)
    scene = model.encode(truth.image)
    absent = ["violin", "bus"]
    assert not {scenes.load_categories()[s.category_id - 1].name for s in truth.segments} & set(absent)
    assert len(scene.detect(absent)) == 0
    competing = scene.detect(absent, score_threshold=0)
    alone = scene.detect(Vocabulary.from_words(absent, background=()), score_threshold=0)
    assert competing.scores.max() < alone.scores.max()


def test_background_never_shows_in_answers(scene: Scene) -> None:
    found = scene.panoptic(["toolbox"])
    assert found.classes == ("toolbox",)
    assert {s.class_id for s in found.segments} <= {0}
    assert set(np.unique(found.ids)) - {0} == {s.id for s in found.segments}
    assert [s.id for s in found.segments] == list(range(1, len(found.segments) + 1))


def test_images_of_any_size_are_answered(model: Model) -> None:
    for size in ((1, 1), (7, 300), (33, 31)):
        scene = model.encode(np.full((*size, 3), 128, np.uint8))
        assert scene.semantic(["grass", "sky"]).labels.shape == size


@pytest.mark.parametrize(
    ("arguments", "error", "field"),
    [
        ({"score_threshold": float("nan")}, errors.InvalidParameter, "score_threshold"),
        ({"score_threshold": -0.1}, errors.InvalidParameter, "score_threshold"),
        ({"score_threshold": "high"}, errors.InvalidParameter, "score_threshold"),
        ({"max_detections": 0}, errors.InvalidParameter, "max_detections"),
        ({"max_detections": "all"}, errors.InvalidParameter, "max_detections"),
        ({"max_detections": float("nan")}, errors.InvalidParameter, "max_detections"),
        ({"max_detections": float("inf")}, errors.InvalidParameter, "max_detections"),
        ({"nms_iou_threshold": 2}, errors.InvalidParameter, "nms_iou_threshold"),
    ],
)
def test_bad_numbers_are_refused_by_name(
    scene: Scene, arguments: dict[str, Any], error: type[errors.OVPError], field: str
) -> None:
    with pytest.raises(error) as caught:
        scene.detect(["cat"], **arguments)
    assert caught.value.field == field


@pytest.mark.parametrize("words", [[], "cat", [3], [""], ["cat", "cat"], ["x" * 300], ["a\0b"]])
def test_bad_words_are_refused_and_the_next_question_works(scene: Scene, words: Any) -> None:
    with pytest.raises(errors.InvalidVocabulary):
        scene.detect(words)
    assert scene.detect(["cat"]).classes == ("cat",)


@pytest.mark.parametrize(
    "boxes", [[[0, 0, 0, 0]], [[5, 5, 1, 9]], [[0, 0, np.nan, 9]], [[1, 2, 3]], "boxes", [[400, 0, 500, 9]]]
)
def test_bad_boxes_are_refused(scene: Scene, boxes: Any) -> None:
    with pytest.raises(errors.InvalidRegions):
        scene.embed_regions(boxes)


def test_embeddings_have_unit_length(model: Model, scene: Scene, image: NDArray[np.uint8]) -> None:
    for rows in (
        model.embed_text(["a cat", "a dog"]),
        scene.embed_regions([[0, 0, 60, 60], [10, 20, 300, 200]]),
        model.embed_image(image)[None],
    ):
        assert rows.shape[1] == model.spec.embed_dim
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert scene.embed_regions([]).shape == (0, model.spec.embed_dim)


def test_unknown_models_dtypes_and_devices_say_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(errors.UnknownModel, match="tiny"):
        ovperception.load("tinny")
    with pytest.raises(errors.InvalidParameter, match="float32"):
        ovperception.load("tiny", dtype="int4")
    with pytest.raises(errors.InvalidParameter, match="device"):
        ovperception.load("tiny", device="quantum")


@pytest.mark.parametrize("change", ["missing", "extra", "misshaped"])
def test_a_bundle_that_does_not_fit_its_card_is_refused(tmp_path: Path, change: str) -> None:
    bundle = read_bundle(locate("tiny"))
    tensors = dict(bundle.tensors)
    key = "head.fcclip.void_embedding"
    if change == "missing":
        del tensors[key]
    elif change == "extra":
        tensors["head.fcclip.stray"] = torch.zeros(2)
    else:
        tensors[key] = torch.zeros(3)
    path = write_bundle(tmp_path / "b.safetensors", bundle.card, tensors)
    with pytest.raises(errors.InvalidCheckpoint, match=change if change != "extra" else "unexpected"):
        ovperception.load(path)


def test_the_digest_is_of_the_weights(model: Model) -> None:
    again = ovperception.load("tiny")
    assert again.digest == model.digest
    with torch.no_grad():
        again.heads["fcclip"].get_parameter("void_embedding").add_(1)
    del again.__dict__["digest"]
    assert again.digest != model.digest


def test_the_bundle_is_small_and_readable_by_all() -> None:
    path = locate("tiny")
    assert path.stat().st_size < 40e6
    assert path.stat().st_mode & 0o444 == 0o444


def test_the_clip_is_small() -> None:
    tensors = read_bundle(locate("tiny")).part("backbone")
    counted = [v for k, v in tensors.items() if "running_" not in k and "num_batches" not in k]
    assert sum(v.numel() for v in counted) <= 8e6


@pytest.mark.parametrize("name", ["", None, 3])
def test_what_names_no_model_is_unknown(name: Any) -> None:
    with pytest.raises(errors.UnknownModel):
        ovperception.load(name)
