"""Captioned pictures from tar shards: shared out, mixed, taken up anywhere, wrong ones told."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ovperception.errors import InvalidCheckpoint, InvalidDataset, InvalidParameter, MissingFile
from ovperception.preprocess import Preprocessing
from ovperception.training import image_text_batches
from ovperception.training.augmentations import Augmentation
from ovperception.training.image_text import ImageTextTars, Place, find_shards
from ovperception.training.image_text_batches import ImageTextBatches, ImageTextState
from ovperception.training.wrong_data import WrongData

SHARDS, EACH = 5, 7
ALL = {f"caption {s} {n}" for s in range(SHARDS) for n in range(EACH)}


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def jpeg(shade: int) -> bytes:
    return cv2.imencode(".jpg", np.full((20 + shade % 5, 24, 3), shade, np.uint8))[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shard in range(SHARDS):
        with tarfile.open(tmp_path / f"{shard:05d}.tar", "w") as tar:
            for n in range(EACH):
                add(tar, f"{shard}/{n:09d}.jpg", jpeg(7 * n))
                if n % 2:
                    add(tar, f"{shard}/{n:09d}.txt", f" caption {shard} {n}\n".encode())
                else:
                    add(
                        tar, f"{shard}/{n:09d}.json", json.dumps({"caption": f"caption {shard} {n}"}).encode()
                    )
    return tmp_path


def stream(folder: Path, **more: int) -> ImageTextTars:
    return ImageTextTars(shards=find_shards(folder), seed=2, block=3, **more)


def taken(tars: ImageTextTars, count: int, place: Place | None = None) -> list[str]:
    return [sample.caption for sample in itertools.islice(tars.samples(place), count)]


def test_an_epoch_gives_every_pair_once_and_the_next_in_another_order(folder: Path) -> None:
    captions = taken(stream(folder), 2 * len(ALL))
    first, second = captions[: len(ALL)], captions[len(ALL) :]
    assert set(first) == set(second) == ALL
    assert first != second
    assert first != sorted(first)


def test_pictures_and_captions_stay_together(folder: Path) -> None:
    for sample in itertools.islice(stream(folder).samples(), len(ALL)):
        number = int(sample.caption.split()[-1])
        assert abs(int(sample.image[5, 5, 0]) - 7 * number) <= 1
        assert sample.key.endswith(f"{number:09d}")


def test_consumers_share_the_shards_without_overlap(folder: Path) -> None:
    parts = [stream(folder, consumer=k, consumers=2) for k in range(2)]
    for epoch in range(3):
        shares = [part.own_shards(epoch) for part in parts]
        assert sorted(shares[0] + shares[1]) == sorted(find_shards(folder))
    with pytest.raises(InvalidParameter, match="fewer shards"):
        stream(folder, consumer=0, consumers=SHARDS + 1)


@pytest.mark.parametrize("stopped_after", [1, 3, 7, 10, 34, 35, 40])
def test_a_stream_is_taken_up_anywhere(folder: Path, stopped_after: int) -> None:
    whole = list(itertools.islice(stream(folder).samples(), 60))
    place = whole[stopped_after - 1].after
    assert taken(stream(folder), 60 - stopped_after, place) == [s.caption for s in whole[stopped_after:]]


def damaged(folder: Path) -> None:
    """Four wrong members, and a shard that breaks off after two of its pairs."""
    with tarfile.open(folder / "00000.tar", "w") as tar:
        add(tar, "a.jpg", jpeg(1)[:50])
        add(tar, "a.txt", b"a cut picture")
        add(tar, "b.jpg", jpeg(1))
        add(tar, "c.txt", b"no picture")
        add(tar, "d.jpg", jpeg(1))
        add(tar, "d.txt", b"\xff\xfe")
        add(tar, "e.jpg", jpeg(1))
        add(tar, "e.txt", b"caption 0 0")
    second = folder / "00001.tar"
    with tarfile.open(second) as tar:
        cut = tar.getmembers()[4].offset_data + 10
    second.write_bytes(second.read_bytes()[:cut])


def test_wrong_members_are_told_and_passed_over(folder: Path) -> None:
    damaged(folder)
    troubles = []
    captions = []
    for sample in itertools.islice(stream(folder).samples(), 40):
        troubles += sample.troubles
        captions.append(sample.caption)
    assert set(captions) == {"caption 0 0", "caption 1 0", "caption 1 1"} | {
        c for c in ALL if c[8] not in "01"
    }
    wrong = WrongData()
    wrong.note(troubles)
    assert wrong.counts == {
        "a picture that cannot be decoded": 1,
        "a picture without caption": 1,
        "a member without picture": 1,
        "a caption that is none": 1,
        "a shard that breaks off": 1,
    }
    assert wrong.examples["a picture that cannot be decoded"] == [f"{folder / '00000.tar'}:a"]


def test_shards_of_which_nothing_can_be_used_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="No shards"):
        find_shards(tmp_path)
    (tmp_path / "0.tar").write_bytes(b"no tar at all")
    with pytest.raises(InvalidDataset, match="Nothing in the shards"):
        taken(ImageTextTars(shards=find_shards(tmp_path)), 1)


def batches(folder: Path, workers: int) -> ImageTextBatches:
    return ImageTextBatches(
        shards=find_shards(folder),
        augmentation=Augmentation(flip=0.5),
        preprocessing=Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), multiple=8),
        batch_size=4,
        block=3,
        workers=workers,
    )


def test_an_error_of_a_worker_is_told_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And Ctrl-C, which reaches the whole process group, is left to the main process."""

    def samples(tars: ImageTextTars, place: object) -> Iterator[Any]:
        ignores = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        raise InvalidDataset("The shard is gone", field="shards", got=ignores)
        yield

    monkeypatch.setattr(ImageTextTars, "samples", samples)
    with pytest.raises(InvalidDataset) as caught:
        next(batches(folder, workers=1).batches())
    assert (str(caught.value), caught.value.field) == ("The shard is gone. Got True.", "shards")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_taken_up_where_they_were_left(folder: Path, workers: int) -> None:
    source, state = batches(folder, workers), ImageTextState()
    whole = list(itertools.islice(source.batches(), 9))
    assert whole[0].images.shape == (4, 3, 24, 24)
    for batch in whole[:5]:
        state = state.after(batch)
    state = ImageTextState.from_dict(json.loads(json.dumps(state.to_dict())))
    for one, other in zip(whole[5:], itertools.islice(source.batches(state), 4), strict=True):
        assert one.captions == other.captions
        assert torch.equal(one.images, other.images)
    with pytest.raises(InvalidCheckpoint, match="as many workers"):
        next(batches(folder, 3 if workers == 0 else 0).batches(state))


def test_pictures_for_a_gpu_are_pinned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class Recording(DataLoader[Any]):
        def __init__(self, *args: Any, pin_memory: bool, **kwargs: Any) -> None:
            asked.append(pin_memory)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(image_text_batches, "DataLoader", Recording)
    source = batches(folder, workers=0)
    plain = next(source.batches())
    next(dataclasses.replace(source, for_gpu=True).batches())
    assert asked == [False, True]
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self + 1)  # so that it shows
    moved = plain.pin_memory()
    assert torch.equal(moved.images, plain.images + 1)
    assert moved == dataclasses.replace(plain, images=moved.images)


def test_a_broken_state_is_refused() -> None:
    with pytest.raises(InvalidCheckpoint):
        ImageTextState.from_dict({"places": {"0": {"epoch": 1, "page": 2}}, "batches": 1})
