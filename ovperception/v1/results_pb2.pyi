from ovperception.v1 import image_pb2 as _image_pb2
from ovperception.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MaskEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_ENCODING_UNSPECIFIED: _ClassVar[MaskEncoding]
    MASK_ENCODING_COCO_RLE: _ClassVar[MaskEncoding]
    MASK_ENCODING_CROPPED_RLE: _ClassVar[MaskEncoding]
    MASK_ENCODING_PNG: _ClassVar[MaskEncoding]
    MASK_ENCODING_PACKED_BITS: _ClassVar[MaskEncoding]
    MASK_ENCODING_POLYGONS: _ClassVar[MaskEncoding]

class LabelEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_ENCODING_UNSPECIFIED: _ClassVar[LabelEncoding]
    LABEL_ENCODING_PNG8: _ClassVar[LabelEncoding]
    LABEL_ENCODING_PNG16: _ClassVar[LabelEncoding]
    LABEL_ENCODING_RAW8: _ClassVar[LabelEncoding]
    LABEL_ENCODING_RAW16: _ClassVar[LabelEncoding]

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_UNSPECIFIED: _ClassVar[Task]
    TASK_DETECT: _ClassVar[Task]
    TASK_SEMANTIC: _ClassVar[Task]
    TASK_PANOPTIC: _ClassVar[Task]
MASK_ENCODING_UNSPECIFIED: MaskEncoding
MASK_ENCODING_COCO_RLE: MaskEncoding
MASK_ENCODING_CROPPED_RLE: MaskEncoding
MASK_ENCODING_PNG: MaskEncoding
MASK_ENCODING_PACKED_BITS: MaskEncoding
MASK_ENCODING_POLYGONS: MaskEncoding
LABEL_ENCODING_UNSPECIFIED: LabelEncoding
LABEL_ENCODING_PNG8: LabelEncoding
LABEL_ENCODING_PNG16: LabelEncoding
LABEL_ENCODING_RAW8: LabelEncoding
LABEL_ENCODING_RAW16: LabelEncoding
TASK_UNSPECIFIED: Task
TASK_DETECT: Task
TASK_SEMANTIC: Task
TASK_PANOPTIC: Task

class Box(_message.Message):
    __slots__ = ("x_min", "y_min", "x_max", "y_max")
    X_MIN_FIELD_NUMBER: _ClassVar[int]
    Y_MIN_FIELD_NUMBER: _ClassVar[int]
    X_MAX_FIELD_NUMBER: _ClassVar[int]
    Y_MAX_FIELD_NUMBER: _ClassVar[int]
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    def __init__(self, x_min: _Optional[float] = ..., y_min: _Optional[float] = ..., x_max: _Optional[float] = ..., y_max: _Optional[float] = ...) -> None: ...

class ClassInfo(_message.Message):
    __slots__ = ("name", "is_thing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_THING_FIELD_NUMBER: _ClassVar[int]
    name: str
    is_thing: bool
    def __init__(self, name: _Optional[str] = ..., is_thing: bool = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("class_index", "score", "box", "mask")
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    class_index: int
    score: float
    box: Box
    mask: Mask
    def __init__(self, class_index: _Optional[int] = ..., score: _Optional[float] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., mask: _Optional[_Union[Mask, _Mapping]] = ...) -> None: ...

class Mask(_message.Message):
    __slots__ = ("rle", "png", "packed_bits", "polygons", "region")
    RLE_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    PACKED_BITS_FIELD_NUMBER: _ClassVar[int]
    POLYGONS_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    rle: CocoRle
    png: bytes
    packed_bits: bytes
    polygons: PolygonList
    region: PixelRegion
    def __init__(self, rle: _Optional[_Union[CocoRle, _Mapping]] = ..., png: _Optional[bytes] = ..., packed_bits: _Optional[bytes] = ..., polygons: _Optional[_Union[PolygonList, _Mapping]] = ..., region: _Optional[_Union[PixelRegion, _Mapping]] = ...) -> None: ...

class PixelRegion(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: int
    y: int
    width: int
    height: int
    def __init__(self, x: _Optional[int] = ..., y: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class PolygonList(_message.Message):
    __slots__ = ("polygons",)
    POLYGONS_FIELD_NUMBER: _ClassVar[int]
    polygons: _containers.RepeatedCompositeFieldContainer[Polygon]
    def __init__(self, polygons: _Optional[_Iterable[_Union[Polygon, _Mapping]]] = ...) -> None: ...

class Polygon(_message.Message):
    __slots__ = ("points",)
    POINTS_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, points: _Optional[_Iterable[int]] = ...) -> None: ...

class CocoRle(_message.Message):
    __slots__ = ("height", "width", "counts")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    counts: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., counts: _Optional[bytes] = ...) -> None: ...

class DetectionList(_message.Message):
    __slots__ = ("detections", "has_masks")
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    HAS_MASKS_FIELD_NUMBER: _ClassVar[int]
    detections: _containers.RepeatedCompositeFieldContainer[Detection]
    has_masks: bool
    def __init__(self, detections: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ..., has_masks: bool = ...) -> None: ...

class LabelMap(_message.Message):
    __slots__ = ("width", "height", "encoding", "data", "void_value", "present_class_indices", "scores", "output_stride")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    VOID_VALUE_FIELD_NUMBER: _ClassVar[int]
    PRESENT_CLASS_INDICES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_STRIDE_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    encoding: LabelEncoding
    data: bytes
    void_value: int
    present_class_indices: _containers.RepeatedScalarFieldContainer[int]
    scores: FloatMap
    output_stride: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., encoding: _Optional[_Union[LabelEncoding, str]] = ..., data: _Optional[bytes] = ..., void_value: _Optional[int] = ..., present_class_indices: _Optional[_Iterable[int]] = ..., scores: _Optional[_Union[FloatMap, _Mapping]] = ..., output_stride: _Optional[int] = ...) -> None: ...

class PanopticMap(_message.Message):
    __slots__ = ("width", "height", "id_map_png", "segments")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    ID_MAP_PNG_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    id_map_png: bytes
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., id_map_png: _Optional[bytes] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("id", "class_index", "score", "area", "is_thing")
    ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    IS_THING_FIELD_NUMBER: _ClassVar[int]
    id: int
    class_index: int
    score: float
    area: int
    is_thing: bool
    def __init__(self, id: _Optional[int] = ..., class_index: _Optional[int] = ..., score: _Optional[float] = ..., area: _Optional[int] = ..., is_thing: bool = ...) -> None: ...

class FloatMap(_message.Message):
    __slots__ = ("width", "height", "deflated")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DEFLATED_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    deflated: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., deflated: _Optional[bytes] = ...) -> None: ...

class EmbeddingMatrix(_message.Message):
    __slots__ = ("count", "dimension", "data")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    count: int
    dimension: int
    data: bytes
    def __init__(self, count: _Optional[int] = ..., dimension: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "version", "weights_digest", "tasks", "backbone", "embedding_dimension")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    weights_digest: str
    tasks: _containers.RepeatedScalarFieldContainer[Task]
    backbone: str
    embedding_dimension: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., weights_digest: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[Task, str]]] = ..., backbone: _Optional[str] = ..., embedding_dimension: _Optional[int] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("queue_ms", "decode_ms", "preprocess_ms", "trunk_ms", "head_ms", "classify_ms", "postprocess_ms", "encode_ms", "total_ms", "batch_size", "backbone_passes")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    PREPROCESS_MS_FIELD_NUMBER: _ClassVar[int]
    TRUNK_MS_FIELD_NUMBER: _ClassVar[int]
    HEAD_MS_FIELD_NUMBER: _ClassVar[int]
    CLASSIFY_MS_FIELD_NUMBER: _ClassVar[int]
    POSTPROCESS_MS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_PASSES_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    decode_ms: float
    preprocess_ms: float
    trunk_ms: float
    head_ms: float
    classify_ms: float
    postprocess_ms: float
    encode_ms: float
    total_ms: float
    batch_size: int
    backbone_passes: int
    def __init__(self, queue_ms: _Optional[float] = ..., decode_ms: _Optional[float] = ..., preprocess_ms: _Optional[float] = ..., trunk_ms: _Optional[float] = ..., head_ms: _Optional[float] = ..., classify_ms: _Optional[float] = ..., postprocess_ms: _Optional[float] = ..., encode_ms: _Optional[float] = ..., total_ms: _Optional[float] = ..., batch_size: _Optional[int] = ..., backbone_passes: _Optional[int] = ...) -> None: ...

class ResultInfo(_message.Message):
    __slots__ = ("request_id", "model", "image", "vocabulary", "timing", "truncated", "warnings")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: ModelInfo
    image: _image_pb2.ImageInfo
    vocabulary: _vocabulary_pb2.VocabularyInfo
    timing: Timing
    truncated: bool
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[_Union[ModelInfo, _Mapping]] = ..., image: _Optional[_Union[_image_pb2.ImageInfo, _Mapping]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyInfo, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., truncated: bool = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...
