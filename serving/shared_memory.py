"""Memory that clients on the same machine share with the server, so that pixels are not sent.

The server makes each region, of a size that neither side can change, and hands out its file descriptor over a
Unix socket that only this user can reach, to whoever shows a token that is good for one time
(`serving.handover`). No name that a client gives is ever opened. What lies in a region may change while it is
read, so it is copied once, and the copy is what is checked and used.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
import mmap
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import grpc

from ovperception.errors import InvalidImage, InvalidParameter, ResourceExhausted, UnknownRegion, Unsupported
from ovperception.v1 import image_pb2
from ovperception.v1 import shared_memory_service_pb2 as pb
from ovperception.v1.shared_memory_service_pb2_grpc import SharedMemoryServiceServicer
from serving.handover import TOKEN_BYTES, Handover
from serving.security import caller

__all__ = ["SharedMemory", "SharedMemoryService", "check_local"]

_MOST_REGIONS = 256  # each takes file descriptors and a place in the address space
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Region:
    name: str
    owner: str
    memory: mmap.mmap
    size: int
    expires_s: float
    descriptor: int = -1  # until it is handed over
    token: bytes = b""


class SharedMemory:
    """The regions of a server.

    Args:
        max_bytes: Of all regions together.
        max_region: Of one.
        ttl_s: How long one lives without being used.
        clock: Seconds that only grow.
    """

    def __init__(
        self, *, max_bytes: int, max_region: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes, self._max_region, self.ttl_s = max_bytes, max_region, ttl_s
        self._clock = clock
        self._regions: dict[str, _Region] = {}
        self._lock = threading.Lock()
        self._handover: Handover | None = None

    def __len__(self) -> int:
        return len(self._regions)

    def create(self, size: int, owner: str) -> pb.CreateSharedMemoryResponse:
        """Make a region.

        Raises:
            InvalidParameter: It has no size, or is too large.
            ResourceExhausted: There is no room for it.
        """
        if not 0 < size <= self._max_region:
            raise InvalidParameter(
                "No such size", field="size", expected=f"1 to {self._max_region} bytes", got=size
            )
        with self._lock:
            self._drop_expired()
            if sum(region.size for region in self._regions.values()) + size > self._max_bytes:
                raise ResourceExhausted(
                    "There is no room for another region",
                    expected=f"at most {self._max_bytes} bytes in all",
                    mend="Give up regions that are not needed",
                )
            if len(self._regions) >= _MOST_REGIONS:
                raise ResourceExhausted(
                    "There are too many regions",
                    expected=f"at most {_MOST_REGIONS} in all",
                    mend="Have few, with room for several pictures each",
                )
            if self._handover is None:
                self._handover = Handover(self._claim, self._forget)
            region = _make(size, owner, self._clock() + self.ttl_s)
            self._regions[region.name] = region
            path = self._handover.path
        reply = pb.CreateSharedMemoryResponse(
            region=region.name, size=size, handover_socket=str(path), token=region.token
        )
        reply.expire_time.FromNanoseconds(time.time_ns() + int(1e9 * self.ttl_s))
        return reply

    def delete(self, name: str, owner: str) -> bool:
        """Give a region up; whether there was one."""
        with self._lock:
            region = self._regions.get(name)
            if region is None or region.owner != owner:
                return False
            self._drop(region)
            return True

    def image(self, image: image_pb2.Image, owner: str) -> image_pb2.Image:
        """An image with its bytes in it, copied out of the region it names.

        Raises:
            UnknownRegion: There is none of this name.
            InvalidImage: It reaches beyond the region.
        """
        given = image.shared_memory
        with self._lock:
            self._drop_expired()
            region = self._regions.get(given.region)
            if region is None or region.owner != owner:
                raise UnknownRegion(
                    "There is no such region of shared memory (any more)",
                    field="image.shared_memory.region",
                    mend="Make another one",
                )
            if not 0 < given.size <= region.size or given.offset > region.size - given.size:
                raise InvalidImage(
                    "The picture reaches beyond its region",
                    field="image.shared_memory.size",
                    expected=f"within {region.size} bytes",
                    got=f"{given.size} bytes from {given.offset}",
                )
            self._regions[region.name] = replace(region, expires_s=self._clock() + self.ttl_s)
            data = region.memory[given.offset : given.offset + given.size]
        whole = image_pb2.Image()
        whole.CopyFrom(image)
        if given.HasField("layout"):
            whole.raw.CopyFrom(given.layout)
            whole.raw.data = data
        else:
            whole.encoded = data
        return whole

    def drop_expired(self) -> None:
        """Give up those whose time is over, as is done along with every use too."""
        with self._lock:
            self._drop_expired()

    def close(self) -> None:
        """Give everything up."""
        with self._lock:
            for region in list(self._regions.values()):
                self._drop(region)
            handover, self._handover = self._handover, None
        if handover is not None:
            handover.close()

    def _claim(self, token: bytes) -> tuple[str, int] | None:
        """The name and descriptor of the region that this token is for, which it is but once."""
        with self._lock:
            for region in self._regions.values():
                if region.token and hmac.compare_digest(region.token, token):
                    self._regions[region.name] = replace(region, token=b"", descriptor=-1)
                    return region.name, region.descriptor
        return None

    def _forget(self, name: str) -> None:
        """Who held this region has ended."""
        with self._lock:
            if (region := self._regions.get(name)) is not None:
                self._drop(region)
                _log.info("a client ended with its region of %d bytes", region.size)

    def _drop(self, region: _Region) -> None:
        del self._regions[region.name]
        region.memory.close()
        if region.descriptor >= 0:
            os.close(region.descriptor)

    def _drop_expired(self) -> None:
        now = self._clock()
        for region in [region for region in self._regions.values() if region.expires_s <= now]:
            self._drop(region)


class SharedMemoryService(SharedMemoryServiceServicer):
    """Gives regions to callers on the same machine.

    Args:
        memory: Has them.
    """

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    def CreateSharedMemory(
        self, request: pb.CreateSharedMemoryRequest, context: grpc.ServicerContext
    ) -> pb.CreateSharedMemoryResponse:
        """Make a region."""
        check_local(context, "")
        return self._memory.create(request.size, caller().name)

    def DeleteSharedMemory(
        self, request: pb.DeleteSharedMemoryRequest, context: grpc.ServicerContext
    ) -> pb.DeleteSharedMemoryResponse:
        """Give a region up."""
        check_local(context, "")
        return pb.DeleteSharedMemoryResponse(deleted=self._memory.delete(request.region, caller().name))


def check_local(context: grpc.ServicerContext, field: str) -> None:
    """Refuse callers who have not come over a Unix socket.

    Raises:
        Unsupported: This one has not.
    """
    if not context.peer().startswith("unix:"):
        raise Unsupported(
            "Shared memory is for callers over a Unix socket",
            field=field,
            mend="Serve and connect on unix:PATH, or send the picture",
        )


def _make(size: int, owner: str, expires_s: float) -> _Region:
    descriptor = os.memfd_create("ovperception", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        # A region that shrank under a reader would end the process.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        memory = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    except BaseException:
        os.close(descriptor)
        raise
    return _Region(
        name=f"regions/{secrets.token_urlsafe(18)}",
        owner=owner,
        memory=memory,
        size=size,
        expires_s=expires_s,
        descriptor=descriptor,
        token=secrets.token_bytes(TOKEN_BYTES),
    )
