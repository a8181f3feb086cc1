"""Which batches have been too large for the device's memory, so that they are not tried again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

__all__ = ["BatchCaps"]

_GOOD_PASSES = 200
_MOST_REMEMBERED = 256


class BatchCaps:
    """The largest batch of each kind, where that is less than any may have.

    What ran out of memory is not tried again; after many passes that went well one image more is, because
    the memory may have been somebody else's for a while. Not thread-safe.
    """

    def __init__(self) -> None:
        self._caps: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()  # (images, good passes of them)

    def limit(self, kind: Hashable, most: int) -> int:
        """How many images the next batch of a kind may have, of `most`."""
        cap = self._caps.get(kind)
        return most if cap is None else min(most, cap[0])

    def failed(self, kind: Hashable, images: int) -> None:
        """A batch of so many ran out of memory."""
        self._caps[kind] = (max(1, min(images // 2, self.limit(kind, images))), 0)
        self._caps.move_to_end(kind)
        while len(self._caps) > _MOST_REMEMBERED:
            self._caps.popitem(last=False)

    def went_well(self, kind: Hashable, images: int) -> None:
        """A batch of so many did not."""
        cap = self._caps.get(kind)
        if cap is None or images < cap[0]:
            return
        most, passes = cap
        self._caps[kind] = (most, passes + 1) if passes + 1 < _GOOD_PASSES else (most + 1, 0)
