"""Wrong data ends a run only when asked to, and takes nothing of it along."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ovperception.errors import InvalidDataset
from ovperception.training.checkpoint import load_checkpoint
from ovperception.training.loop import Schedule, TrainingRun
from ovperception.training.wrong_data import Trouble, WrongData, WrongDataPolicy


@dataclass
class Batch:
    troubles: tuple[Trouble, ...]


class Batches:
    """The fourth has lost a picture."""

    def __getitem__(self, number: int) -> Batch:
        lost = Trouble(kind="a missing file", where="/data/3.jpg")
        return Batch(troubles=(lost,) if number == 3 else ())


@pytest.mark.parametrize("limit", [0, 9])
def test_what_was_trained_before_wrong_data_is_kept(tmp_path: Path, limit: int) -> None:
    module = torch.nn.Linear(2, 1)
    run = TrainingRun(
        folder=tmp_path,
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        schedule=Schedule(steps=5, learning_rate=0.1, warmup=1),
        wrong=WrongData(WrongDataPolicy(limit=limit)),
    )

    def losses(batch: Batch) -> dict[str, Any]:
        return {"loss": module(torch.ones(1, 2)).square().sum()}

    if limit:
        run.run(Batches(), losses)
    else:
        with pytest.raises(InvalidDataset, match=r"/data/3\.jpg"):
            run.run(Batches(), losses)
    kept = load_checkpoint(tmp_path / "last.pt")
    assert kept["step"] == (5 if limit else 3)
    assert torch.equal(kept["module"]["weight"], module.weight)
