from google.protobuf import field_mask_pb2 as _field_mask_pb2
from ovperception.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateVocabularyRequest(_message.Message):
    __slots__ = ("vocabulary", "vocabulary_id")
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_ID_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.Vocabulary
    vocabulary_id: str
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.Vocabulary, _Mapping]] = ..., vocabulary_id: _Optional[str] = ...) -> None: ...

class CreateVocabularyResponse(_message.Message):
    __slots__ = ("vocabulary",)
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.Vocabulary
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.Vocabulary, _Mapping]] = ...) -> None: ...

class GetVocabularyRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetVocabularyResponse(_message.Message):
    __slots__ = ("vocabulary",)
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.Vocabulary
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.Vocabulary, _Mapping]] = ...) -> None: ...

class ListVocabulariesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListVocabulariesResponse(_message.Message):
    __slots__ = ("vocabularies", "next_page_token", "builtin_names")
    VOCABULARIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    BUILTIN_NAMES_FIELD_NUMBER: _ClassVar[int]
    vocabularies: _containers.RepeatedCompositeFieldContainer[_vocabulary_pb2.Vocabulary]
    next_page_token: str
    builtin_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, vocabularies: _Optional[_Iterable[_Union[_vocabulary_pb2.Vocabulary, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., builtin_names: _Optional[_Iterable[str]] = ...) -> None: ...

class UpdateVocabularyRequest(_message.Message):
    __slots__ = ("vocabulary", "update_mask")
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.Vocabulary
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.Vocabulary, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateVocabularyResponse(_message.Message):
    __slots__ = ("vocabulary",)
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.Vocabulary
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.Vocabulary, _Mapping]] = ...) -> None: ...

class DeleteVocabularyRequest(_message.Message):
    __slots__ = ("name", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class DeleteVocabularyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
