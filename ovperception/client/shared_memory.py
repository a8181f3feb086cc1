"""Memory shared with a server on the same machine, so that pixels need not be sent.

The server makes it, and hands over its file descriptor for a token that is good once. It takes the memory
back when this process ends, however it does.
"""

from __future__ import annotations

import mmap
import os
import socket
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovperception.client.numbers import at_least_one
from ovperception.errors import InvalidImage, Unavailable
from ovperception.v1 import image_pb2
from ovperception.v1 import shared_memory_service_pb2 as pb

__all__ = ["SharedMemory", "SharedPicture"]

_TIMEOUT_S = 10.0
_HOLD = b"\1"  # says that the connection will stay open for as long as the memory is needed


@dataclass(frozen=True, slots=True)
class SharedPicture:
    """A picture that lies in shared memory; ask about it as about any other."""

    message: image_pb2.Image


class SharedMemory:
    """A few places for pictures, used in turn. Made by `Client.shared_memory`.

        with client.shared_memory(1920 * 1080 * 3, slots=4) as memory:
            for frame in camera:
                client.detect(memory.put(frame), ["cup"])

    A picture stays where it is until as many others were put as there are places: have fewer in work at once.

    Args:
        region: What the server made.
        slots: How many places.

    Raises:
        Unavailable: The server does not hand it over.
    """

    def __init__(self, region: pb.CreateSharedMemoryResponse, slots: int) -> None:
        self.name = region.region
        self._slot_bytes = region.size // slots
        self._slots = slots
        self._next = 0
        descriptor, self._hold = _fetch(region)
        try:
            self._memory = mmap.mmap(descriptor, region.size)
        except BaseException:
            self._hold.close()
            raise
        finally:
            os.close(descriptor)

    def put(self, pixels: NDArray[np.uint8]) -> SharedPicture:
        """Copy an (H, W, 3) RGB picture to the next place.

        Raises:
            InvalidImage: It is no such picture, or larger than a place.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise InvalidImage(
                "Shared memory takes pixels",
                expected="(H, W, 3) uint8 RGB",
                got=f"{pixels.shape} {pixels.dtype}",
            )
        if pixels.nbytes > self._slot_bytes:
            raise InvalidImage(
                "The picture is larger than its place in shared memory",
                expected=f"at most {self._slot_bytes} bytes",
                got=pixels.nbytes,
                mend="Ask for larger slots",
            )
        offset = self._next * self._slot_bytes
        self._next = (self._next + 1) % self._slots
        place = np.frombuffer(self._memory, np.uint8, pixels.nbytes, offset).reshape(pixels.shape)
        np.copyto(place, pixels)
        height, width = pixels.shape[:2]
        layout = image_pb2.RawImage(width=width, height=height, format=image_pb2.PIXEL_FORMAT_RGB8)
        where = image_pb2.SharedMemoryRef(region=self.name, offset=offset, size=pixels.nbytes, layout=layout)
        return SharedPicture(image_pb2.Image(shared_memory=where))

    def close(self) -> None:
        """Give this side's view up, and the memory with it."""
        self._memory.close()
        self._hold.close()


def create_request(slot_bytes: int, slots: int) -> pb.CreateSharedMemoryRequest:
    """For the server.

    Raises:
        InvalidParameter: There is no such memory.
    """
    size = at_least_one(slot_bytes, "slot_bytes") * at_least_one(slots, "slots")
    return pb.CreateSharedMemoryRequest(size=size)


def _fetch(region: pb.CreateSharedMemoryResponse) -> tuple[int, socket.socket]:
    """The file descriptor of a region, and the connection that it lives as long as."""
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.settimeout(_TIMEOUT_S)
        peer.connect(region.handover_socket)
        peer.sendall(region.token)
        descriptors = socket.recv_fds(peer, 1, 1)[1]
        if descriptors:
            peer.sendall(_HOLD)
    except OSError as error:
        peer.close()
        raise Unavailable(
            "The server's shared memory cannot be reached",
            got=error,
            mend="Run the client on the server's machine, as its user",
        ) from None
    if not descriptors:
        peer.close()
        raise Unavailable("The server did not hand its shared memory over", mend="Try again")
    return descriptors[0], peer
