"""Each process takes its own device, and what torch says of one is told in words of the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from ovperception.cli import app
from ovperception.errors import InvalidParameter, ResourceExhausted, Unsupported
from ovperception.training.batches import _Loaded
from ovperception.training.devices import faults_of_devices, own_device
from ovperception.training.distributed import joined_world
from ovperception.training.pinned import pinned


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers that a process made its own."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_a_process_takes_the_gpu_of_its_place(two_gpus: list[int]) -> None:
    assert own_device("cuda", local_rank=1) == "cuda:1"
    assert own_device("cuda:0", local_rank=1) == "cuda:0"  # the recipe knows better
    assert two_gpus == [1, 0]  # whose generators a checkpoint keeps
    assert own_device("cpu", local_rank=1) == "cpu"
    assert two_gpus == [1, 0]
    with pytest.raises(InvalidParameter, match="one of 2") as caught:
        own_device("cuda", local_rank=2)
    assert caught.value.field == "device"


def test_processes_on_gpus_talk_by_nccl_each_by_its_own(
    two_gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, object]] = []
    monkeypatch.setattr(
        torch.distributed,
        "init_process_group",
        lambda kind, timeout, device_id: told.append((kind, device_id)),
    )
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "3"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with joined_world("cuda") as world:
        assert (world.rank, world.size, world.device) == (3, 4, "cuda:1")
    with joined_world("cpu") as world:
        assert world.device == "cpu"
    assert told == [("nccl", torch.device("cuda:1")), ("gloo", None)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="it has a GPU")
def test_a_machine_without_a_gpu_says_so() -> None:
    with pytest.raises(InvalidParameter, match="no such GPU") as caught, joined_world("cuda"):
        pass
    assert "device=cpu" in str(caught.value)
    with pytest.raises(InvalidParameter, match="no such device"):
        own_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it has a GPU")
def test_an_export_on_a_gpu_that_is_not_there_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["features", "export", "--out", str(tmp_path), "--device", "cuda"])
    assert isinstance(done.exception, InvalidParameter)
    assert "no such GPU" in str(done.exception)


def test_a_full_device_says_what_makes_a_step_smaller() -> None:
    with pytest.raises(ResourceExhausted, match="accumulate=2"), faults_of_devices():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore")


def test_a_step_without_a_deterministic_form_says_so() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(Unsupported, match="deterministic=false"), faults_of_devices():
            torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
    finally:
        torch.use_deterministic_algorithms(False)
    with pytest.raises(RuntimeError, match="size of tensor"), faults_of_devices():
        torch.zeros(2) + torch.zeros(3)  # any other error stays what it is


@dataclass(frozen=True)
class Batch:
    images: Tensor
    truths: list[tuple[Tensor, str]]
    names: tuple[str, ...]


def test_a_batch_is_pinned_whole_and_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self + 1)  # so that it shows
    batch = Batch(images=torch.zeros(1), truths=[(torch.zeros(2), "a")], names=("b",))
    found = _Loaded(number=3, batch=(batch, torch.zeros(1))).pin_memory()
    assert found.number == 3
    assert isinstance(found.batch, tuple)  # a pair of images and targets is told by it
    first, second = found.batch
    assert (first.images.item(), first.truths[0][0].tolist(), second.item()) == (1, [1, 1], 1)
    assert (first.truths[0][1], first.names) == ("a", ("b",))
    bare = Batch(images=batch.names, truths=[], names=())  # type: ignore[arg-type]
    assert pinned(bare) is bare
