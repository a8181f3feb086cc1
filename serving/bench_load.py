"""Load on a server: a closed loop, an open loop, streams; every reply with when it was due and when it came.

In the open loop a request is due at a time that does not depend on the replies before it, and its latency
counts from then: a server that stalls makes all requests late that were due meanwhile, not only the one it
stalled on (what is otherwise left out is known as coordinated omission).
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import numpy as np

from ovperception.v1 import perceive_pb2 as pp
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1 import results_pb2
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from serving.telemetry import STAGES

__all__ = ["Load", "Sample", "closed_loop", "open_loop", "streams"]

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request: seconds after the beginning, milliseconds of latency, what the reply said of itself."""

    due_s: float
    latency_ms: float
    code: str = "OK"
    batch_size: int = 0
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    reply_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class Load:
    """What is asked of whom.

    Attributes:
        channels: Connections to the server.
        requests: Asked in turn, over and over.
        duration_s: For how long.
        timeout_s: Deadline of each request.
        metadata: Sent with each, such as a token.
    """

    channels: Sequence[grpc.Channel]
    requests: Sequence[pb.DetectObjectsRequest]
    duration_s: float
    timeout_s: float = 30.0
    metadata: Metadata = ()


def closed_loop(load: Load, concurrency: int) -> list[Sample]:
    """`concurrency` callers, each of whom asks again as soon as it was answered, and once at least."""
    samples: list[Sample] = []
    turns = itertools.count()
    began = time.monotonic()

    def call(stub: PerceptionServiceStub) -> None:
        due = time.monotonic() - began
        while True:
            request = load.requests[next(turns) % len(load.requests)]
            try:
                reply = stub.DetectObjects(request, timeout=load.timeout_s, metadata=load.metadata)
            except grpc.RpcError as error:
                samples.append(_failed(error, due, began))
            else:
                samples.append(_answered(reply.info, reply.ByteSize(), due, began))
            due = time.monotonic() - began
            if due >= load.duration_s:
                return

    threads = [
        threading.Thread(target=call, args=(PerceptionServiceStub(channel),), daemon=True)
        for channel, _ in zip(itertools.cycle(load.channels), range(concurrency), strict=False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return samples


def open_loop(load: Load, rate: float, *, seed: int = 0) -> list[Sample]:
    """Requests that come at random at `rate` a second, whether or not others were answered."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(3 * rate * load.duration_s) + 16)
    dues = [due for due in np.cumsum(gaps).tolist() if due < load.duration_s]
    samples: list[Sample] = []
    done = threading.Semaphore(0)
    stubs = [PerceptionServiceStub(channel) for channel in load.channels]
    began = time.monotonic()

    def note(due: float, future: Any) -> None:  # a grpc.Future of a reply
        try:
            reply = future.result()
        except grpc.RpcError as error:
            samples.append(_failed(error, due, began))
        except grpc.FutureCancelledError:
            samples.append(
                Sample(due_s=due, latency_ms=1e3 * (time.monotonic() - began - due), code="CANCELLED")
            )
        else:
            samples.append(_answered(reply.info, reply.ByteSize(), due, began))
        done.release()

    for turn, due in enumerate(dues):
        wait = due - (time.monotonic() - began)
        if wait > 0:
            time.sleep(wait)
        request = load.requests[turn % len(load.requests)]
        method = stubs[turn % len(stubs)].DetectObjects
        future = method.future(request, timeout=load.timeout_s, metadata=load.metadata)
        future.add_done_callback(partial(note, due))
    for _ in dues:
        done.acquire()
    return samples


def streams(load: Load, count: int, in_flight: int = 4) -> list[Sample]:
    """`count` streams, each of one frame at least and with up to `in_flight` that have no reply yet."""
    samples: list[Sample] = []
    threads = [
        threading.Thread(target=_stream, args=(load, channel, number, in_flight, samples), daemon=True)
        for number, channel in zip(range(count), itertools.cycle(load.channels), strict=False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return samples


def _stream(load: Load, channel: grpc.Channel, number: int, in_flight: int, samples: list[Sample]) -> None:
    first = load.requests[number % len(load.requests)]
    credit: queue.SimpleQueue[None] = queue.SimpleQueue()
    sent: dict[int, float] = {}
    began = time.monotonic()

    def messages() -> Iterator[pp.StreamPerceiveRequest]:
        config = pp.StreamConfig(
            model=first.model,
            vocabulary=first.vocabulary,
            outputs=[pp.PerceiveOutput(detect=pp.DetectOutput(include_masks=first.include_masks))],
            overload_policy=pp.OVERLOAD_POLICY_BLOCK,
            max_in_flight=in_flight,
        )
        yield pp.StreamPerceiveRequest(config=config)
        for sequence in itertools.count(1):
            credit.get()
            if sequence > 1 and time.monotonic() - began >= load.duration_s:
                return
            image = load.requests[(number + sequence) % len(load.requests)].image
            sent[sequence] = time.monotonic() - began
            yield pp.StreamPerceiveRequest(frame=pp.StreamFrame(sequence=sequence, image=image))

    try:
        stub = PerceptionServiceStub(channel)
        for reply in stub.StreamPerceive(messages(), metadata=load.metadata):
            kind = reply.WhichOneof("message")
            if kind == "accepted":
                for _ in range(min(in_flight, reply.accepted.max_in_flight or in_flight)):
                    credit.put(None)
                continue
            due = sent.pop(reply.sequence)
            if kind == "result":
                samples.append(_answered(reply.result.info, reply.ByteSize(), due, began))
            else:
                latency_ms = 1e3 * (time.monotonic() - began - due)
                samples.append(Sample(due_s=due, latency_ms=latency_ms, code=kind.upper()))
            credit.put(None)
    except grpc.RpcError as error:
        samples.append(_failed(error, time.monotonic() - began, began))
        credit.put(None)


def _answered(info: results_pb2.ResultInfo, nbytes: int, due: float, began: float) -> Sample:
    latency_ms = 1e3 * (time.monotonic() - began - due)
    stages = {stage: getattr(info.timing, name) for stage, name in STAGES.items()}
    stages["outside"] = max(0.0, latency_ms - info.timing.total_ms)  # the network, and waiting to be sent
    return Sample(
        due_s=due,
        latency_ms=latency_ms,
        batch_size=info.timing.batch_size,
        stages_ms=stages,
        reply_bytes=nbytes,
    )


def _failed(error: grpc.RpcError, due: float, began: float) -> Sample:
    code = error.code().name if isinstance(error, grpc.Call) else "UNKNOWN"
    return Sample(due_s=due, latency_ms=1e3 * (time.monotonic() - began - due), code=code)
