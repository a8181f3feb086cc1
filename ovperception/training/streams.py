"""Sources that are read from front to back, such as tar shards, and can be taken up where they were.

A batch of such a source is no function of its number: what comes next depends on how far its files were read.
So the source tells its place after every batch, and the place travels in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, TypeVar, runtime_checkable

from ovperception.training.image_text_batches import CaptionedBatch, ImageTextBatches, ImageTextState
from ovperception.training.wrong_data import WrongData

__all__ = ["ImageTextStream", "StreamSource"]

_Out = TypeVar("_Out")
_NAMES_KEPT = 64


@runtime_checkable
class StreamSource(Protocol[_Out]):
    """Batches of one process in an order of their own."""

    def stream(self, state: Mapping[str, Any] | None, numbers: Sequence[int]) -> Iterator[tuple[int, _Out]]:
        """The batches from a state on, under the numbers that the loop gives them; None: from the front."""
        ...

    def after(self, state: Mapping[str, Any] | None, batch: _Out, /) -> Mapping[str, Any]:
        """The state once a batch was learned from: numbers, strings, lists and dicts of them."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageTextStream:
    """Captioned pictures from tar shards, as the loop takes them.

    Attributes:
        batches: of this process.
        wrong: counts what was left out, and may end the run.
    """

    batches: ImageTextBatches
    wrong: WrongData = field(default_factory=WrongData)
    _names: dict[int, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False)

    def stream(
        self, state: Mapping[str, Any] | None, numbers: Sequence[int]
    ) -> Iterator[tuple[int, CaptionedBatch]]:
        """As `StreamSource` says.

        Raises:
            InvalidCheckpoint: the state is of another number of workers, or no such state.
            InvalidDataset: too much was left out.
        """
        begun = None if state is None else ImageTextState.from_dict(state)
        for number, batch in zip(numbers, self.batches.batches(begun, wrong=self.wrong), strict=False):
            self._names[number] = batch.keys
            for old in list(islice(self._names, max(len(self._names) - _NAMES_KEPT, 0))):
                del self._names[old]
            yield number, batch

    def after(self, state: Mapping[str, Any] | None, batch: CaptionedBatch, /) -> Mapping[str, Any]:
        """As `StreamSource` says."""
        begun = ImageTextState() if state is None else ImageTextState.from_dict(state)
        return begun.after(batch).to_dict()

    def names(self, number: int) -> Sequence[str]:
        """Shards and names of a batch that was given lately."""
        return self._names.get(number, (f"batch {number}",))
