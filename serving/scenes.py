"""Encoded images kept for later questions: bounded by bytes, least recently used dropped first."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ovperception.errors import UnknownImage
from serving.models import ServedModel, ServedScene

__all__ = ["KeptScene", "KeptScenes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptScene:
    """One kept image; `expires_s` is on the store's clock."""

    image_id: str
    scene: ServedScene
    model: ServedModel
    nbytes: int
    expires_s: float


class KeptScenes:
    """The store.

    Args:
        max_bytes: Bytes the scenes hold together.
        ttl_s: How long one lives without being asked.
        clock: Seconds that only grow.
    """

    def __init__(self, *, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self.ttl_s = ttl_s
        self._clock = clock
        self._kept: OrderedDict[str, KeptScene] = OrderedDict()  # least recently used first
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    def keep(self, scene: ServedScene, model: ServedModel) -> KeptScene | None:
        """Keep a scene, dropping others if it must be; None if it is larger than the whole store."""
        size = scene.nbytes
        if size > self._max_bytes:
            return None
        # A handle is all it takes to ask about someone's picture: nobody may guess one.
        image_id = f"images/{secrets.token_urlsafe(18)}"
        kept = KeptScene(
            image_id=image_id, scene=scene, model=model, nbytes=size, expires_s=self._clock() + self.ttl_s
        )
        with self._lock:
            self._drop_expired()
            while self._bytes + size > self._max_bytes:
                self._drop(next(iter(self._kept)))
            self._kept[image_id] = kept
            self._bytes += size
        return kept

    def get(self, image_id: str) -> KeptScene:
        """The scene of this handle, which lives on for another `ttl_s`.

        Raises:
            UnknownImage: It was never given out, has expired, or was dropped to make room.
        """
        with self._lock:
            self._drop_expired()
            kept = self._kept.get(image_id)
            if kept is None:
                raise UnknownImage(
                    "The server does not keep this image (any more)",
                    field="image.image_id",
                    got=image_id,
                    mend="Send the picture again with keep_image",
                )
            renewed = KeptScene(
                image_id=image_id,
                scene=kept.scene,
                model=kept.model,
                nbytes=kept.nbytes,
                expires_s=self._clock() + self.ttl_s,
            )
            self._kept[image_id] = renewed
            self._kept.move_to_end(image_id)
        return renewed

    def forget(self, image_id: str) -> bool:
        """Drop one; whether it was kept."""
        with self._lock:
            known = image_id in self._kept
            if known:
                self._drop(image_id)
        return known

    def clear(self) -> None:
        """Drop all."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _drop(self, image_id: str) -> None:
        self._bytes -= self._kept.pop(image_id).nbytes

    def _drop_expired(self) -> None:
        # Every use renews by the same time, so the order of use is the order of expiry.
        now = self._clock()
        while self._kept and (first := next(iter(self._kept.values()))).expires_s <= now:
            self._drop(first.image_id)
