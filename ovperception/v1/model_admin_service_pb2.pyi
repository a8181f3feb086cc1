import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from ovperception.v1 import results_pb2 as _results_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoadModelRequest(_message.Message):
    __slots__ = ("name", "weights_digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    weights_digest: str
    def __init__(self, name: _Optional[str] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model", "replaced", "load_time", "warm_up_time")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    LOAD_TIME_FIELD_NUMBER: _ClassVar[int]
    WARM_UP_TIME_FIELD_NUMBER: _ClassVar[int]
    model: _results_pb2.ModelInfo
    replaced: _results_pb2.ModelInfo
    load_time: _duration_pb2.Duration
    warm_up_time: _duration_pb2.Duration
    def __init__(self, model: _Optional[_Union[_results_pb2.ModelInfo, _Mapping]] = ..., replaced: _Optional[_Union[_results_pb2.ModelInfo, _Mapping]] = ..., load_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., warm_up_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ("forgotten_images",)
    FORGOTTEN_IMAGES_FIELD_NUMBER: _ClassVar[int]
    forgotten_images: int
    def __init__(self, forgotten_images: _Optional[int] = ...) -> None: ...
