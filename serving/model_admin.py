"""The methods of `ModelAdminService`: load a model beside those that answer, warm it up, then swap.

Whatever fails before the swap leaves everything as it was. One change at a time: two models in the making
would be twice the memory that a swap needs already.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from ovperception.errors import InvalidCheckpoint, InvalidParameter, OVPError, Unavailable, UnknownModel
from ovperception.v1 import model_admin_service_pb2 as pb
from ovperception.v1.model_admin_service_pb2_grpc import ModelAdminServiceServicer
from serving.engine import Engine
from serving.models import ServedModel

__all__ = ["HealthReport", "ModelAdminService", "ModelLoader"]

ModelLoader = Callable[[str], ServedModel]
"""Makes a model of a name in the catalogue."""

HealthReport = Callable[[str, bool], None]
"""Is told a model's name, and whether it answers."""

# Of the catalogue; a path could name anything on this machine.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_log = logging.getLogger(__name__)


class ModelAdminService(ModelAdminServiceServicer):
    """Changes the models of a server.

    Args:
        engine: Has them.
        load: Makes one.
        report: Is told when one begins or ceases to answer.
    """

    def __init__(self, engine: Engine, load: ModelLoader, report: HealthReport) -> None:
        self._engine = engine
        self._load = load
        self._report = report
        self._changing = threading.Lock()

    def LoadModel(self, request: pb.LoadModelRequest, context: grpc.ServicerContext) -> pb.LoadModelResponse:
        """Load a model, warm it up, and let it answer."""
        if not _NAME.fullmatch(request.name):
            raise InvalidParameter(
                "A model is loaded by its name in the catalogue",
                field="name",
                expected="letters, digits, '.', '_' and '-', 64 at most",
                got=request.name,
            )
        with self._one_at_a_time():
            begun = time.monotonic()
            model = self._make(request.name, request.weights_digest)
            loaded = time.monotonic()
            self._warm_up(model)
            warm = time.monotonic()
            replaced = self._engine.models.put(model)
            reply = pb.LoadModelResponse(model=self._engine.models.info(model))
            if replaced is not None:
                reply.replaced.CopyFrom(self._engine.models.info(replaced))
                # They hold what the old weights saw; their senders are told to send the picture again.
                self._engine.kept.forget_model(replaced)
            self._report(model.name, True)
        reply.load_time.FromNanoseconds(int(1e9 * (loaded - begun)))
        reply.warm_up_time.FromNanoseconds(int(1e9 * (warm - loaded)))
        _log.info("loaded %s in %.1f s", model.name, warm - begun)
        return reply

    def UnloadModel(
        self, request: pb.UnloadModelRequest, context: grpc.ServicerContext
    ) -> pb.UnloadModelResponse:
        """Forget a model; calls that have it already end as they would have."""
        with self._one_at_a_time():
            if not request.name:
                raise UnknownModel("Say which model to unload", field="name", got="nothing")
            forgotten = self._engine.unload(request.name)
            self._report(request.name, False)
        _log.info("unloaded %s", request.name)
        return pb.UnloadModelResponse(forgotten_images=forgotten)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if not self._changing.acquire(blocking=False):
            raise Unavailable("Another model is being loaded or unloaded", mend="Try again when it is done")
        try:
            yield
        finally:
            self._changing.release()

    def _make(self, name: str, digest: str) -> ServedModel:
        model = self._load(name)
        if digest and model.digest != digest.lower():
            raise InvalidCheckpoint(
                "These are other weights than were asked for",
                field="weights_digest",
                expected=digest,
                got=model.digest,
                mend="Pull the model again, or leave weights_digest empty",
            )
        return model

    def _warm_up(self, model: ServedModel) -> None:
        try:
            self._engine.warm_up([model])
        except OVPError:
            raise
        except Exception as error:
            _log.exception("the model %s failed to warm up", model.name)
            raise InvalidCheckpoint(
                f"The model {model.name} fails on its first image; the server's log says why", field="name"
            ) from error
