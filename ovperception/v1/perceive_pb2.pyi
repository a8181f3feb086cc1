import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.rpc import status_pb2 as _status_pb2
from ovperception.v1 import image_pb2 as _image_pb2
from ovperception.v1 import results_pb2 as _results_pb2
from ovperception.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OverloadPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OVERLOAD_POLICY_UNSPECIFIED: _ClassVar[OverloadPolicy]
    OVERLOAD_POLICY_DROP_OLDEST: _ClassVar[OverloadPolicy]
    OVERLOAD_POLICY_DROP_NEWEST: _ClassVar[OverloadPolicy]
    OVERLOAD_POLICY_BLOCK: _ClassVar[OverloadPolicy]

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_NEWER_FRAME: _ClassVar[DropReason]
    DROP_REASON_NO_ROOM: _ClassVar[DropReason]
    DROP_REASON_TOO_LATE: _ClassVar[DropReason]
OVERLOAD_POLICY_UNSPECIFIED: OverloadPolicy
OVERLOAD_POLICY_DROP_OLDEST: OverloadPolicy
OVERLOAD_POLICY_DROP_NEWEST: OverloadPolicy
OVERLOAD_POLICY_BLOCK: OverloadPolicy
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_NEWER_FRAME: DropReason
DROP_REASON_NO_ROOM: DropReason
DROP_REASON_TOO_LATE: DropReason

class BoxList(_message.Message):
    __slots__ = ("boxes",)
    BOXES_FIELD_NUMBER: _ClassVar[int]
    boxes: _containers.RepeatedCompositeFieldContainer[_results_pb2.Box]
    def __init__(self, boxes: _Optional[_Iterable[_Union[_results_pb2.Box, _Mapping]]] = ...) -> None: ...

class PerceiveOutput(_message.Message):
    __slots__ = ("model", "detect", "semantic", "panoptic", "heatmap")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DETECT_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_FIELD_NUMBER: _ClassVar[int]
    PANOPTIC_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_FIELD_NUMBER: _ClassVar[int]
    model: str
    detect: DetectOutput
    semantic: SemanticOutput
    panoptic: PanopticOutput
    heatmap: HeatmapOutput
    def __init__(self, model: _Optional[str] = ..., detect: _Optional[_Union[DetectOutput, _Mapping]] = ..., semantic: _Optional[_Union[SemanticOutput, _Mapping]] = ..., panoptic: _Optional[_Union[PanopticOutput, _Mapping]] = ..., heatmap: _Optional[_Union[HeatmapOutput, _Mapping]] = ...) -> None: ...

class DetectOutput(_message.Message):
    __slots__ = ("score_threshold", "max_detections", "nms_iou_threshold", "include_masks", "mask_encoding", "regions")
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    NMS_IOU_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_MASKS_FIELD_NUMBER: _ClassVar[int]
    MASK_ENCODING_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    score_threshold: float
    max_detections: int
    nms_iou_threshold: float
    include_masks: bool
    mask_encoding: _results_pb2.MaskEncoding
    regions: BoxList
    def __init__(self, score_threshold: _Optional[float] = ..., max_detections: _Optional[int] = ..., nms_iou_threshold: _Optional[float] = ..., include_masks: bool = ..., mask_encoding: _Optional[_Union[_results_pb2.MaskEncoding, str]] = ..., regions: _Optional[_Union[BoxList, _Mapping]] = ...) -> None: ...

class SemanticOutput(_message.Message):
    __slots__ = ("score_threshold", "label_encoding", "include_scores", "output_stride")
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    LABEL_ENCODING_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SCORES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_STRIDE_FIELD_NUMBER: _ClassVar[int]
    score_threshold: float
    label_encoding: _results_pb2.LabelEncoding
    include_scores: bool
    output_stride: int
    def __init__(self, score_threshold: _Optional[float] = ..., label_encoding: _Optional[_Union[_results_pb2.LabelEncoding, str]] = ..., include_scores: bool = ..., output_stride: _Optional[int] = ...) -> None: ...

class PanopticOutput(_message.Message):
    __slots__ = ("score_threshold",)
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    score_threshold: float
    def __init__(self, score_threshold: _Optional[float] = ...) -> None: ...

class HeatmapOutput(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class PerceiveAnswer(_message.Message):
    __slots__ = ("model", "objects", "semantic", "panoptic", "heatmap")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_FIELD_NUMBER: _ClassVar[int]
    PANOPTIC_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_FIELD_NUMBER: _ClassVar[int]
    model: str
    objects: _results_pb2.DetectionList
    semantic: _results_pb2.LabelMap
    panoptic: _results_pb2.PanopticMap
    heatmap: _results_pb2.FloatMap
    def __init__(self, model: _Optional[str] = ..., objects: _Optional[_Union[_results_pb2.DetectionList, _Mapping]] = ..., semantic: _Optional[_Union[_results_pb2.LabelMap, _Mapping]] = ..., panoptic: _Optional[_Union[_results_pb2.PanopticMap, _Mapping]] = ..., heatmap: _Optional[_Union[_results_pb2.FloatMap, _Mapping]] = ...) -> None: ...

class PerceiveResult(_message.Message):
    __slots__ = ("info", "classes", "answers")
    INFO_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    info: _results_pb2.ResultInfo
    classes: _containers.RepeatedCompositeFieldContainer[_results_pb2.ClassInfo]
    answers: _containers.RepeatedCompositeFieldContainer[PerceiveAnswer]
    def __init__(self, info: _Optional[_Union[_results_pb2.ResultInfo, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[_results_pb2.ClassInfo, _Mapping]]] = ..., answers: _Optional[_Iterable[_Union[PerceiveAnswer, _Mapping]]] = ...) -> None: ...

class BatchPerceiveRequest(_message.Message):
    __slots__ = ("request_id", "model", "vocabulary", "outputs", "items")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    vocabulary: _vocabulary_pb2.VocabularySpec
    outputs: _containers.RepeatedCompositeFieldContainer[PerceiveOutput]
    items: _containers.RepeatedCompositeFieldContainer[BatchItem]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularySpec, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[PerceiveOutput, _Mapping]]] = ..., items: _Optional[_Iterable[_Union[BatchItem, _Mapping]]] = ...) -> None: ...

class BatchItem(_message.Message):
    __slots__ = ("image", "keep_image", "vocabulary", "outputs")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    KEEP_IMAGE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.Image
    keep_image: bool
    vocabulary: _vocabulary_pb2.VocabularySpec
    outputs: _containers.RepeatedCompositeFieldContainer[PerceiveOutput]
    def __init__(self, image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., keep_image: bool = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularySpec, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[PerceiveOutput, _Mapping]]] = ...) -> None: ...

class BatchPerceiveResponse(_message.Message):
    __slots__ = ("request_id", "items")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    items: _containers.RepeatedCompositeFieldContainer[BatchItemResult]
    def __init__(self, request_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[BatchItemResult, _Mapping]]] = ...) -> None: ...

class BatchItemResult(_message.Message):
    __slots__ = ("result", "error")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    result: PerceiveResult
    error: _status_pb2.Status
    def __init__(self, result: _Optional[_Union[PerceiveResult, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class StreamPerceiveRequest(_message.Message):
    __slots__ = ("config", "frame", "update")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    config: StreamConfig
    frame: StreamFrame
    update: StreamUpdate
    def __init__(self, config: _Optional[_Union[StreamConfig, _Mapping]] = ..., frame: _Optional[_Union[StreamFrame, _Mapping]] = ..., update: _Optional[_Union[StreamUpdate, _Mapping]] = ...) -> None: ...

class StreamConfig(_message.Message):
    __slots__ = ("request_id", "model", "vocabulary", "outputs", "overload_policy", "max_in_flight", "frame_timeout")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    OVERLOAD_POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    FRAME_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    vocabulary: _vocabulary_pb2.VocabularySpec
    outputs: _containers.RepeatedCompositeFieldContainer[PerceiveOutput]
    overload_policy: OverloadPolicy
    max_in_flight: int
    frame_timeout: _duration_pb2.Duration
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularySpec, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[PerceiveOutput, _Mapping]]] = ..., overload_policy: _Optional[_Union[OverloadPolicy, str]] = ..., max_in_flight: _Optional[int] = ..., frame_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StreamFrame(_message.Message):
    __slots__ = ("sequence", "image")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    image: _image_pb2.Image
    def __init__(self, sequence: _Optional[int] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ...) -> None: ...

class StreamUpdate(_message.Message):
    __slots__ = ("from_sequence", "vocabulary", "outputs")
    FROM_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    from_sequence: int
    vocabulary: _vocabulary_pb2.VocabularySpec
    outputs: _containers.RepeatedCompositeFieldContainer[PerceiveOutput]
    def __init__(self, from_sequence: _Optional[int] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularySpec, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[PerceiveOutput, _Mapping]]] = ...) -> None: ...

class StreamPerceiveResponse(_message.Message):
    __slots__ = ("sequence", "accepted", "result", "error", "dropped")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    accepted: StreamAccepted
    result: PerceiveResult
    error: _status_pb2.Status
    dropped: FrameDropped
    def __init__(self, sequence: _Optional[int] = ..., accepted: _Optional[_Union[StreamAccepted, _Mapping]] = ..., result: _Optional[_Union[PerceiveResult, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., dropped: _Optional[_Union[FrameDropped, _Mapping]] = ...) -> None: ...

class StreamAccepted(_message.Message):
    __slots__ = ("model", "vocabulary", "classes", "overload_policy", "max_in_flight")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    OVERLOAD_POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    model: _results_pb2.ModelInfo
    vocabulary: _vocabulary_pb2.VocabularyInfo
    classes: _containers.RepeatedCompositeFieldContainer[_results_pb2.ClassInfo]
    overload_policy: OverloadPolicy
    max_in_flight: int
    def __init__(self, model: _Optional[_Union[_results_pb2.ModelInfo, _Mapping]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyInfo, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[_results_pb2.ClassInfo, _Mapping]]] = ..., overload_policy: _Optional[_Union[OverloadPolicy, str]] = ..., max_in_flight: _Optional[int] = ...) -> None: ...

class FrameDropped(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: DropReason
    def __init__(self, reason: _Optional[_Union[DropReason, str]] = ...) -> None: ...
