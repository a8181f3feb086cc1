"""Encoded images kept for later questions: bounded by bytes, least recently used dropped first.

A scene is kept for one client and to no other it exists. Where other models stand on the same backbone, what
the backbone saw is kept as well, and they can be asked about the image without another pass.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from ovperception.errors import UnknownImage
from serving.models import ServedLook, ServedModel, ServedScene

__all__ = ["KeptScene", "KeptScenes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptScene:
    """One kept image.

    Attributes:
        image_id: Its handle.
        scene: What `model` made of it.
        model: The model it was sent to.
        client: Whom it belongs to.
        nbytes: What all of it holds.
        expires_s: On the store's clock.
        look: What the backbone saw, if other models can go on from it.
        others: What they made of it, as far as they were asked.
    """

    image_id: str
    scene: ServedScene
    model: ServedModel
    client: str
    nbytes: int
    expires_s: float
    look: ServedLook | None = None
    others: tuple[tuple[ServedModel, ServedScene], ...] = ()

    def seen_by(self, model: ServedModel) -> ServedScene | None:
        """The scene of a model; None if it has not made one."""
        known = ((self.model, self.scene), *self.others)
        return next((scene for other, scene in known if other is model), None)


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

    def keep(
        self, scene: ServedScene, model: ServedModel, *, client: str = "", look: ServedLook | None = None
    ) -> KeptScene | None:
        """Keep a scene, dropping others if it must be; None if it is larger than the whole store."""
        size = scene.nbytes + (0 if look is None else look.nbytes)
        if size > self._max_bytes:
            return None
        kept = KeptScene(
            # Where clients have no names, a handle is all it takes to ask about someone's picture: nobody
            # may guess one.
            image_id=f"images/{secrets.token_urlsafe(18)}",
            scene=scene,
            model=model,
            client=client,
            nbytes=size,
            expires_s=self._clock() + self.ttl_s,
            look=look,
        )
        with self._lock:
            self._drop_expired()
            self._make_room(size)
            self._put(kept)
        return kept

    def add(self, image_id: str, model: ServedModel, scene: ServedScene) -> None:
        """Keep what another model made of a kept image too, if there is room and the image is still kept."""
        with self._lock:
            kept = self._kept.get(image_id)
            size = scene.nbytes
            if kept is None or kept.seen_by(model) is not None or kept.nbytes + size > self._max_bytes:
                return
            self._drop(image_id)
            self._make_room(kept.nbytes + size)
            self._put(
                replace(
                    kept,
                    nbytes=kept.nbytes + size,
                    others=(*kept.others, (model, scene)),
                    expires_s=self._clock() + self.ttl_s,
                )
            )

    def get(self, image_id: str, client: str = "") -> KeptScene:
        """The scene of this handle, which lives on for another `ttl_s`.

        Raises:
            UnknownImage: It was never given out, has expired, was dropped to make room, or is another's.
        """
        with self._lock:
            self._drop_expired()
            kept = self._kept.get(image_id)
            if kept is None or kept.client != client:
                raise UnknownImage(
                    "The server does not keep this image (any more)",
                    field="image.image_id",
                    got=image_id,
                    mend="Send the picture again with keep_image",
                )
            renewed = replace(kept, expires_s=self._clock() + self.ttl_s)
            self._kept[image_id] = renewed
            self._kept.move_to_end(image_id)
        return renewed

    def forget(self, image_id: str, client: str = "") -> bool:
        """Drop one; whether it was kept for this client."""
        with self._lock:
            kept = self._kept.get(image_id)
            known = kept is not None and kept.client == client
            if known:
                self._drop(image_id)
        return known

    def forget_model(self, model: ServedModel) -> int:
        """Drop all images that a model was sent, as when it is unloaded; how many they were."""
        with self._lock:
            dropped = [image_id for image_id, kept in self._kept.items() if kept.model is model]
            for image_id in dropped:
                self._drop(image_id)
            for image_id, kept in list(self._kept.items()):
                gone = [scene.nbytes for other, scene in kept.others if other is model]
                if gone:
                    rest = tuple(pair for pair in kept.others if pair[0] is not model)
                    self._kept[image_id] = replace(kept, others=rest, nbytes=kept.nbytes - sum(gone))
                    self._bytes -= sum(gone)
        return len(dropped)

    def drop_expired(self) -> None:
        """Drop those whose time is over, as is done along with every use too."""
        with self._lock:
            self._drop_expired()

    def clear(self) -> None:
        """Drop all."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _put(self, kept: KeptScene) -> None:
        self._kept[kept.image_id] = kept
        self._bytes += kept.nbytes

    def _make_room(self, size: int) -> None:
        while self._kept and self._bytes + size > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, image_id: str) -> None:
        self._bytes -= self._kept.pop(image_id).nbytes

    def _drop_expired(self) -> None:
        # Every use renews by the same time, so the order of use is the order of expiry.
        now = self._clock()
        while self._kept and (first := next(iter(self._kept.values()))).expires_s <= now:
            self._drop(first.image_id)
