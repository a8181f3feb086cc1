"""Stored class embeddings in place of words: the same answers, or a refusal that says what would fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ovperception
from ovperception import cli
from ovperception.class_embeddings import (
    classifier_from_embeddings,
    classifier_from_file,
    read_class_embeddings,
)
from ovperception.errors import InvalidCheckpoint, InvalidVocabulary, MissingFile
from ovperception.images import save_image
from ovperception.vocabulary import Vocabulary

WORDS = ["dog", "tree|oak", "car"]


def vocabulary() -> Vocabulary:
    return Vocabulary.from_words(WORDS)


def test_rows_become_unit_length_and_stand_for_whole_classes() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, -2.0], [1e-3, 0.0]])
    made = classifier_from_embeddings(rows, vocabulary())
    torch.testing.assert_close(made.embeddings, torch.tensor([[0.6, 0.8], [0.0, -1.0], [1.0, 0.0]]))
    assert made.names == ("dog", "tree", "car")
    assert made.synonym_counts == (1, 1, 1)
    logits = torch.randn(4, 3)
    assert torch.equal(made.reduce(logits), logits)


def test_published_lists_have_the_published_sizes() -> None:
    for name, count in (("lvis_v1_1203", 1203), ("ov_coco_48_17", 65)):
        assert len(classifier_from_embeddings(torch.ones(count, 8), Vocabulary.builtin(name))) == count


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_classes(count: int) -> None:
    with pytest.raises(InvalidVocabulary) as caught:
        classifier_from_embeddings(torch.ones(count, 8), vocabulary())
    assert "(3, D)" in caught.value.expected
    assert caught.value.got == f"({count}, 8)"


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_row_without_direction(value: float) -> None:
    rows = torch.ones(3, 8)
    rows[1] = value
    with pytest.raises(InvalidVocabulary, match="'tree' has no direction") as caught:
        classifier_from_embeddings(rows, vocabulary())
    assert caught.value.field == "class_embeddings[1]"


def test_files(tmp_path: Path) -> None:
    rows = torch.randn(3, 8)
    for name, content in (
        ("tensor.pth", rows),
        ("half.pth", rows.half()),
        ("array.pth", rows.numpy()),
        ("alone.pth", {"emb": rows}),
    ):
        torch.save(content, tmp_path / name)
        tolerance = 1e-2 if name == "half.pth" else 0
        torch.testing.assert_close(
            read_class_embeddings(tmp_path / name), rows, rtol=tolerance, atol=tolerance
        )
    save_file({"emb": rows}, tmp_path / "alone.safetensors")
    assert torch.equal(read_class_embeddings(tmp_path / "alone.safetensors"), rows)


def test_other_contents_are_refused(tmp_path: Path) -> None:
    for content in (
        {"a": torch.ones(3, 8), "b": torch.ones(3, 8)},
        torch.ones(3),
        torch.ones(3, 8).long(),
        "x",
    ):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(InvalidVocabulary, match="holds no class embeddings"):
            classifier_from_file(tmp_path / "other.pth", vocabulary())
    (tmp_path / "text.pth").write_text("dog")
    with pytest.raises(InvalidCheckpoint):
        classifier_from_file(tmp_path / "text.pth", vocabulary())
    with pytest.raises(MissingFile):
        classifier_from_file(tmp_path / "nowhere.pth", vocabulary())


@pytest.fixture(scope="module")
def model() -> ovperception.Model:
    return ovperception.load("tiny")


def test_a_scene_answers_as_if_asked_with_words(model: ovperception.Model) -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    scene = model.encode(image)
    words = Vocabulary.from_words(["dog", "tree", "car"], background=())
    asked = scene.detect(words, score_threshold=0.0)
    rows = 7 * model.classifier(words).embeddings
    given = scene.detect(classifier_from_embeddings(rows, words), score_threshold=0.0)
    assert given.names == asked.names
    np.testing.assert_allclose(given.scores, asked.scores, atol=1e-5)
    with pytest.raises(InvalidVocabulary, match="not of the space of 'tiny'") as caught:
        scene.detect(classifier_from_embeddings(torch.ones(3, 7), words))
    assert caught.value.expected == f"(3, {model.spec.embed_dim})"
    assert caught.value.got == "(3, 7)"


def test_the_command(model: ovperception.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, stored = tmp_path / "p.png", tmp_path / "cls_emb.pth"
    save_image(picture, np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    torch.save(model.classifier(["dog", "car"]).embeddings, stored)
    command = ["predict", str(picture), "--class-embeddings", str(stored), "--json", "--classes"]
    assert cli.main([*command, "dog,car", "--score-threshold", "0"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {d["class"] for d in answer["detections"]} <= {"dog", "car"}
    for more, field in (
        (["dog"], "class_embeddings"),
        (["dog,car", "--task", "semantic"], "task"),
        (["dog,car", "--background", "tree"], "background"),
        (["dog,car", "--server", "localhost:1"], "server"),
    ):
        assert cli.main([*command, *more]) == 2
        error = json.loads(capsys.readouterr().err)["error"]
        assert error["field"] == field, error
