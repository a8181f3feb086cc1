"""FC-CLIP's losses and weights from two processes, whole or in shares, are those of one with the whole batch.

Pictures have none, few and many objects: a mean over processes of means over their own objects is another
number than the mean over all objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.distributed.fsdp  # both once here, not in every child
import torch.nn.functional as F
from torch import Tensor

from heads.fcclip import FCCLIP
from ovperception.backbones.base import Features
from ovperception.model import load
from ovperception.text import TextClassifier
from ovperception.training.distributed import World
from ovperception.training.loop import TrainingRun
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.schedule import Schedule
from ovperception.training.sharding import Shards
from ovperception.training.targets import Targets
from ovperception.vocabulary import Vocabulary, VocabularyClass
from tests.ovperception.training.two_processes import in_two

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SETTINGS = {
    "hidden_dim": 32,
    "mask_dim": 32,
    "queries": 6,
    "encoder_layers": 1,
    "encoder_ffn": 32,
    "decoder_layers": 2,
    "decoder_ffn": 32,
}
SIDE, CLASSES = 64, 5
OBJECTS = (4, 1, 0, 2, 6, 1)  # of picture n


@pytest.fixture(scope="module")
def backbone() -> Any:
    return load("tiny").backbone


class Pictures:
    """One random picture a batch, the same for the same number."""

    def __init__(self, backbone: Any) -> None:
        self.stages = backbone.spec.stages

    def __getitem__(self, number: int) -> tuple[int, list[Targets], Features]:
        draw = torch.Generator().manual_seed(number)
        maps = {
            name: torch.randn(1, s.channels, SIDE // s.stride, SIDE // s.stride, generator=draw)
            for name, s in self.stages.items()
        }
        count = OBJECTS[number % len(OBJECTS)]
        truth = Targets(
            class_ids=torch.randint(CLASSES, (count,), generator=draw),
            masks=torch.rand(count, SIDE, SIDE, generator=draw) > 0.5,
            boxes=torch.tensor([[0.0, 0.0, SIDE, SIDE]]).repeat(count, 1),
        )
        return number, [truth], Features(maps=maps, image_size=(SIDE, SIDE))


def train(folder: Path, world: World, backbone: Any, *, accumulate: int, sharded: bool = False) -> None:
    torch.manual_seed(0)
    head = FCCLIP.from_settings(SETTINGS, backbone.spec)
    head.loss_settings = type(head.loss_settings)(points=64)
    rows = F.normalize(torch.randn(CLASSES, backbone.spec.embed_dim), dim=-1)
    words = Vocabulary(classes=tuple(VocabularyClass(name=f"word {k}") for k in range(CLASSES)))
    text = TextClassifier(embeddings=rows, vocabulary=words, text_digest="")
    run = TrainingRun(
        folder=folder,
        module=head,
        shards=Shards(head, world, block=1) if sharded else None,
        optimizer=torch.optim.SGD(head.parameters(), lr=0.1),
        schedule=Schedule(steps=3, learning_rate=0.1, warmup=1),
        settings=LoopSettings(tensorboard=False, log_every=1, accumulate=accumulate, sharded=sharded),
        world=world,
    )

    def losses(batch: tuple[int, list[Targets], Features]) -> Mapping[str, Tensor]:
        number, targets, features = batch
        torch.manual_seed(number)  # the points that masks are compared at, whoever draws them
        return head.losses(backbone, features, targets, text)

    run.run(Pictures(backbone), losses)


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "shares"])
def test_two_processes_give_the_losses_of_the_whole_batch(
    tmp_path: Path, backbone: Any, sharded: bool
) -> None:
    train(tmp_path / "one", World(), backbone, accumulate=2)

    def work(world: World, folder: Path) -> None:
        train(folder, world, backbone, accumulate=1, sharded=sharded)

    assert in_two(work, tmp_path / "two") == [0, 0]
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    for one, two in zip(*logs, strict=True):
        mine, theirs = json.loads(one), json.loads(two)
        for name in ("class", "mask", "dice", "loss", "gradient_norm"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-4, abs=2e-5), name
    single, double = (
        torch.load(tmp_path / n / "last.pt", weights_only=True)["module"] for n in ("one", "two")
    )
    for name, value in single.items():
        torch.testing.assert_close(double[name], value, rtol=1e-3, atol=1e-5)
