"""A bundle may leave its backbone to another model's bundle, and then insists on the very weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import ovperception
from heads.regionclip import RegionCLIP
from ovperception.bundle import BackboneCard, HeadCard, ModelCard, read_bundle, read_card, write_bundle
from ovperception.catalogue import locate
from ovperception.errors import InvalidCheckpoint, UnknownModel

WORDS = ["rooster", "toolbox"]


@pytest.fixture(scope="module")
def digest() -> str:
    return ovperception.load("tiny").spec.digest


def borrower(path: Path, backbone: BackboneCard, tensors: dict[str, Tensor] | None = None) -> Path:
    """A head without weights beside the card of `tiny`."""
    theirs = read_card(locate("tiny"))
    card = ModelCard(
        name="borrower",
        backbone=backbone,
        heads=(HeadCard(name="regionclip", config={"embed_dim": 256}),),
        preprocessing=theirs.preprocessing,
        templates=theirs.templates,
    )
    return write_bundle(path, card, tensors or {})


def test_the_backbone_is_the_lenders(tmp_path: Path, digest: str) -> None:
    path = borrower(tmp_path / "m.safetensors", BackboneCard.lent_by("tiny", digest))
    assert path.stat().st_size < 10_000
    model = ovperception.load(path)
    assert isinstance(model.heads["regionclip"], RegionCLIP)
    assert model.spec == ovperception.load("tiny").spec
    found = model.encode(np.zeros((64, 64, 3), np.uint8)).detect(WORDS, boxes=[[0, 0, 32, 32]])
    assert found.classes == tuple(WORDS)


def test_a_card_knows_its_lender(digest: str) -> None:
    lent = BackboneCard.lent_by("tiny", digest)
    assert (lent.lender, lent.included, lent.digest) == ("tiny", False, digest)
    assert BackboneCard(name="open_clip:RN50", included=False).lender == ""
    assert BackboneCard(name="bundle:of joy").lender == ""


def test_other_weights_of_the_lender_are_refused(tmp_path: Path) -> None:
    path = borrower(tmp_path / "m.safetensors", BackboneCard.lent_by("tiny", "0" * 64))
    with pytest.raises(InvalidCheckpoint, match=r"not the one the heads were trained on.*in 'tiny'"):
        ovperception.load(path)


def test_a_lender_that_borrows_is_refused(tmp_path: Path, digest: str) -> None:
    middle = borrower(tmp_path / "middle.safetensors", BackboneCard.lent_by("tiny", digest))
    path = borrower(tmp_path / "m.safetensors", BackboneCard.lent_by(str(middle), digest))
    with pytest.raises(InvalidCheckpoint, match="holds none itself"):
        ovperception.load(path)


def test_an_unknown_lender_is_named(tmp_path: Path) -> None:
    path = borrower(tmp_path / "m.safetensors", BackboneCard.lent_by("tinny", ""))
    with pytest.raises(UnknownModel, match=r"'tinny'.*tiny"):
        ovperception.load(path)


def test_the_file_holds_no_backbone(tmp_path: Path, digest: str) -> None:
    path = borrower(tmp_path / "m.safetensors", BackboneCard.lent_by("tiny", digest))
    assert read_bundle(path).tensors == {}
