import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from ovperception.v1 import image_pb2 as _image_pb2
from ovperception.v1 import perceive_pb2 as _perceive_pb2
from ovperception.v1 import results_pb2 as _results_pb2
from ovperception.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SegmentationTask(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEGMENTATION_TASK_UNSPECIFIED: _ClassVar[SegmentationTask]
    SEGMENTATION_TASK_SEMANTIC: _ClassVar[SegmentationTask]
    SEGMENTATION_TASK_INSTANCE: _ClassVar[SegmentationTask]
    SEGMENTATION_TASK_PANOPTIC: _ClassVar[SegmentationTask]
SEGMENTATION_TASK_UNSPECIFIED: SegmentationTask
SEGMENTATION_TASK_SEMANTIC: SegmentationTask
SEGMENTATION_TASK_INSTANCE: SegmentationTask
SEGMENTATION_TASK_PANOPTIC: SegmentationTask

class DetectObjectsRequest(_message.Message):
    __slots__ = ("request_id", "model", "image", "keep_image", "vocabulary", "score_threshold", "max_detections", "nms_iou_threshold", "include_masks", "regions", "mask_encoding")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    KEEP_IMAGE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    NMS_IOU_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_MASKS_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    MASK_ENCODING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    image: _image_pb2.Image
    keep_image: bool
    vocabulary: _vocabulary_pb2.VocabularySpec
    score_threshold: float
    max_detections: int
    nms_iou_threshold: float
    include_masks: bool
    regions: Regions
    mask_encoding: _results_pb2.MaskEncoding
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., keep_image: bool = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularySpec, _Mapping]] = ..., score_threshold: _Optional[float] = ..., max_detections: _Optional[int] = ..., nms_iou_threshold: _Optional[float] = ..., include_masks: bool = ..., regions: _Optional[_Union[Regions, _Mapping]] = ..., mask_encoding: _Optional[_Union[_results_pb2.MaskEncoding, str]] = ...) -> None: ...

class Regions(_message.Message):
    __slots__ = ("boxes",)
    BOXES_FIELD_NUMBER: _ClassVar[int]
    boxes: _containers.RepeatedCompositeFieldContainer[_results_pb2.Box]
    def __init__(self, boxes: _Optional[_Iterable[_Union[_results_pb2.Box, _Mapping]]] = ...) -> None: ...

class DetectObjectsResponse(_message.Message):
    __slots__ = ("info", "classes", "objects")
    INFO_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    info: _results_pb2.ResultInfo
    classes: _containers.RepeatedCompositeFieldContainer[_results_pb2.ClassInfo]
    objects: _results_pb2.DetectionList
    def __init__(self, info: _Optional[_Union[_results_pb2.ResultInfo, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[_results_pb2.ClassInfo, _Mapping]]] = ..., objects: _Optional[_Union[_results_pb2.DetectionList, _Mapping]] = ...) -> None: ...

class SegmentImageRequest(_message.Message):
    __slots__ = ("request_id", "model", "image", "keep_image", "vocabulary", "task", "score_threshold", "max_detections", "label_encoding", "include_scores", "mask_encoding", "output_stride")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    KEEP_IMAGE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    LABEL_ENCODING_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SCORES_FIELD_NUMBER: _ClassVar[int]
    MASK_ENCODING_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_STRIDE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    image: _image_pb2.Image
    keep_image: bool
    vocabulary: _vocabulary_pb2.VocabularySpec
    task: SegmentationTask
    score_threshold: float
    max_detections: int
    label_encoding: _results_pb2.LabelEncoding
    include_scores: bool
    mask_encoding: _results_pb2.MaskEncoding
    output_stride: int
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., keep_image: bool = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularySpec, _Mapping]] = ..., task: _Optional[_Union[SegmentationTask, str]] = ..., score_threshold: _Optional[float] = ..., max_detections: _Optional[int] = ..., label_encoding: _Optional[_Union[_results_pb2.LabelEncoding, str]] = ..., include_scores: bool = ..., mask_encoding: _Optional[_Union[_results_pb2.MaskEncoding, str]] = ..., output_stride: _Optional[int] = ...) -> None: ...

class SegmentImageResponse(_message.Message):
    __slots__ = ("info", "classes", "semantic", "instances", "panoptic")
    INFO_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    PANOPTIC_FIELD_NUMBER: _ClassVar[int]
    info: _results_pb2.ResultInfo
    classes: _containers.RepeatedCompositeFieldContainer[_results_pb2.ClassInfo]
    semantic: _results_pb2.LabelMap
    instances: _results_pb2.DetectionList
    panoptic: _results_pb2.PanopticMap
    def __init__(self, info: _Optional[_Union[_results_pb2.ResultInfo, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[_results_pb2.ClassInfo, _Mapping]]] = ..., semantic: _Optional[_Union[_results_pb2.LabelMap, _Mapping]] = ..., instances: _Optional[_Union[_results_pb2.DetectionList, _Mapping]] = ..., panoptic: _Optional[_Union[_results_pb2.PanopticMap, _Mapping]] = ...) -> None: ...

class ComputeHeatmapRequest(_message.Message):
    __slots__ = ("request_id", "model", "image", "keep_image", "text")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    KEEP_IMAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    image: _image_pb2.Image
    keep_image: bool
    text: str
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., keep_image: bool = ..., text: _Optional[str] = ...) -> None: ...

class ComputeHeatmapResponse(_message.Message):
    __slots__ = ("info", "heatmap")
    INFO_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_FIELD_NUMBER: _ClassVar[int]
    info: _results_pb2.ResultInfo
    heatmap: _results_pb2.FloatMap
    def __init__(self, info: _Optional[_Union[_results_pb2.ResultInfo, _Mapping]] = ..., heatmap: _Optional[_Union[_results_pb2.FloatMap, _Mapping]] = ...) -> None: ...

class EncodeImageRequest(_message.Message):
    __slots__ = ("request_id", "model", "image")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    image: _image_pb2.Image
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ...) -> None: ...

class EncodeImageResponse(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: _results_pb2.ResultInfo
    def __init__(self, info: _Optional[_Union[_results_pb2.ResultInfo, _Mapping]] = ...) -> None: ...

class ForgetImageRequest(_message.Message):
    __slots__ = ("request_id", "image_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image_id: str
    def __init__(self, request_id: _Optional[str] = ..., image_id: _Optional[str] = ...) -> None: ...

class ForgetImageResponse(_message.Message):
    __slots__ = ("forgotten",)
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    forgotten: bool
    def __init__(self, forgotten: bool = ...) -> None: ...

class EmbedTextRequest(_message.Message):
    __slots__ = ("request_id", "model", "texts")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class EmbedTextResponse(_message.Message):
    __slots__ = ("info", "embeddings")
    INFO_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    info: _results_pb2.ResultInfo
    embeddings: _results_pb2.EmbeddingMatrix
    def __init__(self, info: _Optional[_Union[_results_pb2.ResultInfo, _Mapping]] = ..., embeddings: _Optional[_Union[_results_pb2.EmbeddingMatrix, _Mapping]] = ...) -> None: ...

class EmbedImageRequest(_message.Message):
    __slots__ = ("request_id", "model", "image")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    image: _image_pb2.Image
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ...) -> None: ...

class EmbedImageResponse(_message.Message):
    __slots__ = ("info", "embedding")
    INFO_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    info: _results_pb2.ResultInfo
    embedding: _results_pb2.EmbeddingMatrix
    def __init__(self, info: _Optional[_Union[_results_pb2.ResultInfo, _Mapping]] = ..., embedding: _Optional[_Union[_results_pb2.EmbeddingMatrix, _Mapping]] = ...) -> None: ...

class EmbedRegionsRequest(_message.Message):
    __slots__ = ("request_id", "model", "image", "keep_image", "boxes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    KEEP_IMAGE_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    image: _image_pb2.Image
    keep_image: bool
    boxes: _containers.RepeatedCompositeFieldContainer[_results_pb2.Box]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., keep_image: bool = ..., boxes: _Optional[_Iterable[_Union[_results_pb2.Box, _Mapping]]] = ...) -> None: ...

class EmbedRegionsResponse(_message.Message):
    __slots__ = ("info", "embeddings")
    INFO_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    info: _results_pb2.ResultInfo
    embeddings: _results_pb2.EmbeddingMatrix
    def __init__(self, info: _Optional[_Union[_results_pb2.ResultInfo, _Mapping]] = ..., embeddings: _Optional[_Union[_results_pb2.EmbeddingMatrix, _Mapping]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "models", "limits", "image_formats", "pixel_formats", "label_encodings", "mask_encodings", "outputs", "shared_memory", "scaled_decode")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FORMATS_FIELD_NUMBER: _ClassVar[int]
    PIXEL_FORMATS_FIELD_NUMBER: _ClassVar[int]
    LABEL_ENCODINGS_FIELD_NUMBER: _ClassVar[int]
    MASK_ENCODINGS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    SCALED_DECODE_FIELD_NUMBER: _ClassVar[int]
    version: str
    models: _containers.RepeatedCompositeFieldContainer[_results_pb2.ModelInfo]
    limits: ServerLimits
    image_formats: _containers.RepeatedScalarFieldContainer[str]
    pixel_formats: _containers.RepeatedScalarFieldContainer[_image_pb2.PixelFormat]
    label_encodings: _containers.RepeatedScalarFieldContainer[_results_pb2.LabelEncoding]
    mask_encodings: _containers.RepeatedScalarFieldContainer[_results_pb2.MaskEncoding]
    outputs: _containers.RepeatedScalarFieldContainer[str]
    shared_memory: bool
    scaled_decode: bool
    def __init__(self, version: _Optional[str] = ..., models: _Optional[_Iterable[_Union[_results_pb2.ModelInfo, _Mapping]]] = ..., limits: _Optional[_Union[ServerLimits, _Mapping]] = ..., image_formats: _Optional[_Iterable[str]] = ..., pixel_formats: _Optional[_Iterable[_Union[_image_pb2.PixelFormat, str]]] = ..., label_encodings: _Optional[_Iterable[_Union[_results_pb2.LabelEncoding, str]]] = ..., mask_encodings: _Optional[_Iterable[_Union[_results_pb2.MaskEncoding, str]]] = ..., outputs: _Optional[_Iterable[str]] = ..., shared_memory: bool = ..., scaled_decode: bool = ...) -> None: ...

class ServerLimits(_message.Message):
    __slots__ = ("max_message_bytes", "max_pixels", "max_classes", "max_texts", "max_requests", "max_kept_bytes", "kept_ttl", "max_batch_items", "max_outputs", "max_in_flight", "max_streams", "max_vocabulary_bytes", "vocabulary_ttl")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_CLASSES_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXTS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_KEPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEPT_TTL_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_VOCABULARY_BYTES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_TTL_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_pixels: int
    max_classes: int
    max_texts: int
    max_requests: int
    max_kept_bytes: int
    kept_ttl: _duration_pb2.Duration
    max_batch_items: int
    max_outputs: int
    max_in_flight: int
    max_streams: int
    max_vocabulary_bytes: int
    vocabulary_ttl: _duration_pb2.Duration
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_pixels: _Optional[int] = ..., max_classes: _Optional[int] = ..., max_texts: _Optional[int] = ..., max_requests: _Optional[int] = ..., max_kept_bytes: _Optional[int] = ..., kept_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_batch_items: _Optional[int] = ..., max_outputs: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., max_streams: _Optional[int] = ..., max_vocabulary_bytes: _Optional[int] = ..., vocabulary_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
