"""Kept vocabularies: the store with a clock of its own, then the service through a real server."""

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo, ResourceInfo
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from ovperception.errors import (
    AlreadyExists,
    Conflict,
    InvalidParameter,
    InvalidVocabulary,
    OVPError,
    UnknownVocabulary,
    VocabularyNotFound,
)
from ovperception.images import encode_png
from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perceive_pb2, vocabulary_service_pb2
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary as VocabularyMessage
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.v1.vocabulary_service_pb2_grpc import VocabularyServiceStub
from ovperception.vocabulary import Vocabulary
from ovperception.wire_errors import error_of
from serving.vocabularies import KeptVocabularies, content_name

PICTURE = np.full((40, 50, 3), 100, np.uint8)
IMAGE = im.Image(encoded=encode_png(PICTURE))


class _Clock:
    now = 0.0

    def __call__(self):
        return self.now


def _vocabulary(*words):
    return Vocabulary.from_words(list(words))


@pytest.fixture
def clock():
    return _Clock()


@pytest.fixture
def kept(clock):
    return KeptVocabularies(max_bytes=6000, ttl_s=10, clock=clock)


def test_names_say_what_the_words_are(kept):
    first = kept.keep(_vocabulary("cat"), "")
    assert first.name == content_name(_vocabulary("cat"))
    assert first.name == f"vocabularies/sha256-{_vocabulary('cat').content_hash}"
    assert kept.keep(_vocabulary("cat"), "").name == first.name
    assert len(kept) == 1
    assert kept.get(first.name, "").words == _vocabulary("cat")


def test_use_renews_and_time_ends(kept, clock):
    name = kept.keep(_vocabulary("cat"), "").name
    short = kept.create(_vocabulary("dog"), "", identifier="dogs", ttl_s=3).name
    for _ in range(4):
        clock.now += 2.5
        kept.get(name, "")
        kept.get(short, "")
    clock.now += 3
    with pytest.raises(VocabularyNotFound):
        kept.get(short, "")
    clock.now += 7
    with pytest.raises(VocabularyNotFound, match="any more"):
        kept.get(name, "")
    assert kept.nbytes == 0


def test_expired_ones_make_room_without_being_asked_for(kept, clock):
    for word in "abcd":
        kept.create(_vocabulary(word), "", ttl_s=1)
    clock.now += 5
    kept.keep(_vocabulary("new"), "")
    assert len(kept) == 1


def test_whoever_holds_most_loses_first(kept):
    mine = kept.keep(_vocabulary("mine"), "me").name
    others = [kept.keep(_vocabulary(f"word {i}"), "other").name for i in range(20)]
    assert kept.nbytes <= 6000
    assert kept.get(mine, "me")
    with pytest.raises(VocabularyNotFound):
        kept.get(others[0], "other")
    assert kept.get(others[-1], "other")


def test_owners_do_not_see_each_other(kept):
    name = kept.create(_vocabulary("cat"), "me", identifier="pets").name
    with pytest.raises(VocabularyNotFound):
        kept.get(name, "you")
    assert kept.list("you") == []
    kept.create(_vocabulary("dog"), "you", identifier="pets")
    assert kept.get(name, "me").words.names == ("cat",)


def test_what_never_fits_is_not_kept(kept):
    large = _vocabulary(*(f"word {i}" for i in range(100)))
    assert kept.keep(large, "") is None
    with pytest.raises(InvalidParameter, match="larger"):
        kept.create(large, "", identifier="large")


def test_changes_and_etags(kept):
    made = kept.create(_vocabulary("cat"), "", identifier="pets")
    with pytest.raises(AlreadyExists):
        kept.create(_vocabulary("dog"), "", identifier="pets")
    changed = kept.update(made.name, "", words=_vocabulary("dog"), etag=made.etag)
    assert changed.etag != made.etag
    with pytest.raises(Conflict):
        kept.update(made.name, "", display_name="x", etag=made.etag)
    with pytest.raises(Conflict):
        kept.delete(made.name, "", etag=made.etag)
    kept.delete(made.name, "", etag=changed.etag)
    with pytest.raises(VocabularyNotFound):
        kept.delete(made.name, "")
    fixed = kept.keep(_vocabulary("cat"), "")
    with pytest.raises(InvalidParameter, match="are its name"):
        kept.update(fixed.name, "", words=_vocabulary("dog"))
    assert kept.update(fixed.name, "", display_name="pets").display_name == "pets"


@pytest.mark.parametrize("identifier", ["Kitchen", "1st", "a/b", "a" * 64, "sha256-x", "../x"])
def test_no_names(kept, identifier):
    with pytest.raises(InvalidParameter):
        kept.create(_vocabulary("cat"), "", identifier=identifier)


@pytest.mark.parametrize("ttl_s", [-1, 11, float("nan")])
def test_no_times(kept, ttl_s):
    with pytest.raises(InvalidParameter):
        kept.create(_vocabulary("cat"), "", ttl_s=ttl_s)


# Through a server.


@pytest.fixture
def stubs(client):
    channel = grpc.insecure_channel(client.address)
    yield PerceptionServiceStub(channel), VocabularyServiceStub(channel)
    channel.close()


def _message(*names, **rest):
    return VocabularyMessage(classes=[{"name": name} for name in names], **rest)


def _refused(method, request):
    """The error of ours a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        method(request)
    return error_of(rpc_status.from_call(caught.value))


def test_create_ask_update_list_delete(stubs):
    perception, vocabularies = stubs
    sv = vocabulary_service_pb2
    made = vocabularies.CreateVocabulary(
        sv.CreateVocabularyRequest(vocabulary=_message("cat", "dog"), vocabulary_id="pets")
    ).vocabulary
    assert made.name == "vocabularies/pets"
    assert made.expire_time.seconds > 0
    spec = VocabularySpec(name=made.name)
    reply = perception.DetectObjects(pb.DetectObjectsRequest(image=IMAGE, vocabulary=spec))
    assert [entry.name for entry in reply.classes] == ["cat", "dog"]
    assert reply.info.vocabulary.handle == made.name
    changed = vocabularies.UpdateVocabulary(
        sv.UpdateVocabularyRequest(
            vocabulary=_message("cow", name=made.name, display_name="Farm", etag=made.etag),
            update_mask=FieldMask(paths=["classes"]),
        )
    ).vocabulary
    assert changed.display_name == ""
    reply = perception.DetectObjects(pb.DetectObjectsRequest(image=IMAGE, vocabulary=spec))
    assert [entry.name for entry in reply.classes] == ["cow"]
    whole = vocabularies.GetVocabulary(sv.GetVocabularyRequest(name=made.name)).vocabulary
    assert (whole.name, whole.etag, whole.classes[0].name) == (made.name, changed.etag, "cow")
    vocabularies.CreateVocabulary(sv.CreateVocabularyRequest(vocabulary=_message("x")))
    page = vocabularies.ListVocabularies(sv.ListVocabulariesRequest(page_size=1))
    rest = vocabularies.ListVocabularies(
        sv.ListVocabulariesRequest(page_size=9, page_token=page.next_page_token)
    )
    names = [entry.name for entry in (*page.vocabularies, *rest.vocabularies)]
    assert names == sorted(names)
    assert made.name in names
    assert not rest.next_page_token
    assert "lvis_v1_1203" in page.builtin_names
    vocabularies.DeleteVocabulary(sv.DeleteVocabularyRequest(name=made.name))
    error = _refused(perception.DetectObjects, pb.DetectObjectsRequest(image=IMAGE, vocabulary=spec))
    assert isinstance(error, VocabularyNotFound)


def test_words_sent_once_are_known_by_their_handle(stubs):
    perception, _ = stubs
    inline = VocabularySpec(inline=_message("cat", "dog", name="mine"))
    info = perception.DetectObjects(pb.DetectObjectsRequest(image=IMAGE, vocabulary=inline)).info.vocabulary
    assert info.handle == f"vocabularies/sha256-{info.content_hash}"
    assert info.expire_time.seconds > 0
    again = perception.DetectObjects(
        pb.DetectObjectsRequest(image=IMAGE, vocabulary=VocabularySpec(name=info.handle))
    )
    assert again.info.vocabulary.content_hash == info.content_hash
    assert [entry.name for entry in again.classes] == ["cat", "dog"]


def test_a_handle_that_is_gone_has_a_reason_of_its_own(stubs):
    perception, _ = stubs
    spec = VocabularySpec(name="vocabularies/sha256-0")
    with pytest.raises(grpc.RpcError) as caught:
        perception.DetectObjects(pb.DetectObjectsRequest(image=IMAGE, vocabulary=spec))
    info = ErrorInfo()
    assert any(d.Unpack(info) for d in rpc_status.from_call(caught.value).details[:1])
    assert info.reason == "VOCABULARY_NOT_FOUND"
    resource = ResourceInfo()
    assert any(d.Unpack(resource) for d in rpc_status.from_call(caught.value).details)
    assert (resource.resource_type, resource.resource_name) == ("vocabulary", "vocabularies/sha256-0")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_filter_reports_some_classes_and_changes_nothing_about_them(stubs):
    perception, _ = stubs
    names = [f"w{i}" for i in range(6)]
    outputs = [perceive_pb2.PerceiveOutput(detect={}), perceive_pb2.PerceiveOutput(semantic={})]
    outputs.append(perceive_pb2.PerceiveOutput(panoptic={}))

    def ask(*wanted):
        spec = VocabularySpec(inline=_message(*names), class_filter=wanted)
        request = perceive_pb2.BatchPerceiveRequest(
            vocabulary=spec, outputs=outputs, items=[{"image": IMAGE}]
        )
        return perception.BatchPerceive(request).items[0].result

    whole, some = ask(), ask("w0", "w3")
    rows = [d for d in whole.answers[0].objects.detections if d.class_index in (0, 3)]
    assert len(rows) == 2
    assert list(some.answers[0].objects.detections) == rows
    assert len(some.classes) == 6
    assert set(some.answers[1].semantic.present_class_indices) <= {0, 3}
    assert {s.class_index for s in some.answers[2].panoptic.segments} <= {0, 3}
    spec = VocabularySpec(inline=_message("a"), class_filter=["b"])
    error = _refused(perception.DetectObjects, pb.DetectObjectsRequest(image=IMAGE, vocabulary=spec))
    assert isinstance(error, InvalidVocabulary)
    assert error.field == "vocabulary.class_filter[0]"


@pytest.mark.parametrize(
    ("method", "request_", "kind"),
    [
        ("CreateVocabulary", {"vocabulary": {}}, InvalidVocabulary),
        ("CreateVocabulary", {"vocabulary": _message(" ")}, InvalidVocabulary),
        ("CreateVocabulary", {"vocabulary": _message("a"), "vocabulary_id": "A"}, InvalidParameter),
        ("CreateVocabulary", {"vocabulary": _message("a", ttl={"seconds": 10**9})}, InvalidParameter),
        ("CreateVocabulary", {"vocabulary": _message("a", display_name="x" * 300)}, InvalidParameter),
        ("GetVocabulary", {"name": "vocabularies/none"}, VocabularyNotFound),
        ("GetVocabulary", {"name": "none"}, UnknownVocabulary),
        ("ListVocabularies", {"page_size": -1}, InvalidParameter),
        ("UpdateVocabulary", {"vocabulary": {"name": "vocabularies/none"}}, VocabularyNotFound),
        ("UpdateVocabulary", {"vocabulary": {}, "update_mask": {"paths": ["etag"]}}, InvalidParameter),
        ("DeleteVocabulary", {}, VocabularyNotFound),
    ],
)
def test_bad_requests(stubs, method, request_, kind):
    request = getattr(vocabulary_service_pb2, f"{method}Request")(**request_)
    error = _refused(getattr(stubs[1], method), request)
    assert type(error) is kind
    assert isinstance(error, OVPError)
    assert error.field


# Batches, which have words for all images and for one.


def _batch(items, **rest):
    outputs = [perceive_pb2.PerceiveOutput(detect={})]
    shared = {"vocabulary": VocabularySpec(inline=_message("cat")), "outputs": outputs}
    return perceive_pb2.BatchPerceiveRequest(items=items, **{**shared, **rest})


def test_several_outputs_take_one_pass(stubs, model):
    before = len(model.batches)
    outputs = [
        {"detect": {"mask_encoding": "MASK_ENCODING_POLYGONS"}},
        {"semantic": {"output_stride": 4}},
        {"panoptic": {}},
        {"heatmap": {"text": "x"}},
    ]
    (item,) = stubs[0].BatchPerceive(_batch([{"image": IMAGE}], outputs=outputs)).items
    answers = item.result.answers
    assert [a.WhichOneof("answer") for a in answers] == ["objects", "semantic", "panoptic", "heatmap"]
    assert answers[0].objects.detections[0].mask.polygons.polygons
    assert (answers[1].semantic.width, answers[1].semantic.height) == (13, 10)
    assert answers[1].semantic.output_stride == 4
    assert len(model.batches) == before + 1
    assert item.result.info.timing.batch_size == 1
    assert item.result.info.vocabulary.handle


def test_one_bad_image_fails_alone(stubs):
    items = [
        {"image": IMAGE},
        {"image": {"encoded": b"GIF"}},
        {},
        {"image": IMAGE, "vocabulary": VocabularySpec(inline=_message("dog", "cow"))},
        {"image": IMAGE, "outputs": [perceive_pb2.PerceiveOutput(heatmap={"text": " "})]},
        {"image": IMAGE, "keep_image": True},
    ]
    reply = stubs[0].BatchPerceive(_batch(items, request_id="mine"))
    assert reply.request_id == "mine"
    kinds = [item.WhichOneof("outcome") for item in reply.items]
    assert kinds == ["result", "error", "error", "result", "error", "result"]
    fields = [error_of(reply.items[index].error).field for index in (1, 2, 4)]
    assert fields == ["items[1].image.encoded", "items[2].image", "items[4].outputs[0].heatmap.text"]
    assert [entry.name for entry in reply.items[3].result.classes] == ["dog", "cow"]
    assert reply.items[0].result.info.request_id == "mine/0"
    assert reply.items[5].result.info.image.image_id


def test_images_of_a_batch_share_passes(stubs, model):
    model.batches.clear()
    reply = stubs[0].BatchPerceive(_batch([{"image": IMAGE}] * 24))
    assert len(reply.items) == 24
    assert max(map(len, model.batches)) > 1
    assert len(model.batches) < 24


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (_batch([]), "items"),
        (_batch([{"image": IMAGE}] * 65), "items"),
        (_batch([{"image": IMAGE}], outputs=[]), "outputs"),
        (_batch([{"image": IMAGE}], outputs=[{}] * 9), "outputs"),
        (_batch([{"image": IMAGE}], outputs=[{}]), "outputs[0]"),
        (_batch([{"image": IMAGE}], vocabulary=None), "vocabulary"),
        (_batch([{"image": IMAGE}], outputs=[{"detect": {"score_threshold": 2}}]), None),
        (_batch([{"image": IMAGE}], outputs=[{"detect": {"mask_encoding": 99}}]), None),
        (_batch([{"image": IMAGE}], outputs=[{"semantic": {"output_stride": 65}}]), None),
        (_batch([{"image": IMAGE}], outputs=[{"model": "x", "semantic": {}}]), "outputs[0].model"),
    ],
)
def test_a_batch_that_cannot_be(stubs, request_, field):
    error = _refused(stubs[0].BatchPerceive, request_)
    kind = request_.outputs[0].WhichOneof("kind") if field is None else None
    if field is None:
        ((name, _),) = ((f.name, v) for f, v in getattr(request_.outputs[0], kind).ListFields())
        field = f"outputs[0].{kind}.{name}"
    assert error.field == field


def test_reflection_knows_every_service_and_message(client):
    with grpc.insecure_channel(client.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {f"ovperception.v1.{name}Service" for name in ("Perception", "Model", "Vocabulary")} <= set(
            database.get_services()
        )
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("ovperception.v1.PerceptionService")
        method = service.methods_by_name["BatchPerceive"]
        # As grpcurl does: messages made of nothing but what the server tells of them.
        request = GetMessageClass(method.input_type)(
            vocabulary={"inline": {"classes": [{"name": "cat"}]}},
            outputs=[{"detect": {}}],
            items=[{"image": {"encoded": IMAGE.encoded}}],
        )
        call = channel.unary_unary(
            f"/{service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        assert len(call(request).items[0].result.answers[0].objects.detections) == 1


def test_the_server_tells_what_it_takes(stubs):
    info = stubs[0].GetServerInfo(pb.GetServerInfoRequest())
    assert list(info.outputs) == ["detect", "semantic", "panoptic", "heatmap"]
    assert len(info.mask_encodings) == 5
    assert len(info.pixel_formats) == 7
    assert info.limits.max_batch_items == 64
    assert info.limits.vocabulary_ttl.seconds == 3600
