"""Who may call: tokens, scopes, certificates, and what is said to everybody else."""

import hashlib
import os
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ovperception.errors import InvalidParameter, MissingFile, PermissionDenied, Unauthenticated
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.model_admin_service_pb2 import LoadModelRequest, UnloadModelRequest
from ovperception.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.wire_errors import error_of
from serving import Server, ServerConfig
from serving.certificate_scopes import CertificateScopes
from serving.security import caller, warnings_of
from serving.tokens import Tokens
from tests.serving.certificates import needs_openssl
from tests.serving.fake_model import FakeModel

ROBOT, OPERATOR = "robot-token-0123456789", "operator-token-0123456789"
ASK = pb.EmbedTextRequest(texts=["cat"])


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "tokens.txt"
    digest = hashlib.sha256(ROBOT.encode()).hexdigest()
    path.write_text(f"# who: what: how\n\nrobot:infer:sha256:{digest}\noperator:admin:{OPERATOR}\n")
    path.chmod(0o600)
    return path


def _error(call):
    from grpc_status import rpc_status

    with pytest.raises(grpc.RpcError) as caught:
        call()
    return error_of(rpc_status.from_call(caught.value))


def _bearer(token, scheme="Bearer"):
    return [("authorization", f"{scheme} {token}")]


@pytest.mark.parametrize(
    ("metadata", "kind", "words"),
    [
        ([], Unauthenticated, "brought no token"),
        (_bearer("wrong-token-0123456789"), Unauthenticated, "not known"),
        (_bearer(ROBOT, "Basic"), Unauthenticated, "brought no token"),
        (_bearer(ROBOT[:-1]), Unauthenticated, "not known"),
        (_bearer(hashlib.sha256(ROBOT.encode()).hexdigest()), Unauthenticated, "not known"),
        (_bearer(OPERATOR), PermissionDenied, "does not allow"),
    ],
)
def test_callers_who_may_not(serve, tokens_file, metadata, kind, words):
    server = serve(tokens_file=tokens_file)
    with grpc.insecure_channel(server.address) as channel:
        error = _error(lambda: PerceptionServiceStub(channel).EmbedText(ASK, metadata=metadata))
    assert type(error) is kind
    assert words in error.what
    assert ROBOT not in str(error)


def test_a_caller_who_may(serve, tokens_file):
    seen = []
    model = FakeModel()
    server = serve(model, tokens_file=tokens_file)
    models = server.engine.models
    get, server.engine.models.get = models.get, lambda *rest: seen.append(caller()) or get(*rest)
    with grpc.insecure_channel(server.address) as channel:
        for scheme in ("Bearer", "bearer"):
            reply = PerceptionServiceStub(channel).EmbedText(ASK, metadata=_bearer(ROBOT, scheme))
            assert reply.embeddings.count == 1
    assert [(one.name, one.scopes) for one in seen] == [("robot", {"infer"})] * 2
    assert caller().name == ""  # of this thread


def test_health_needs_no_token_and_reflection_does(serve, tokens_file):
    server = serve(tokens_file=tokens_file)
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        assert isinstance(_error(lambda: list(stub.ServerReflectionInfo(iter(asked)))), Unauthenticated)
        (reply,) = stub.ServerReflectionInfo(iter(asked), metadata=_bearer(ROBOT))
        of_today = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        assert isinstance(_error(lambda: list(of_today(iter(asked)))), Unauthenticated)
        assert list(of_today(iter(asked), metadata=_bearer(ROBOT))) == [reply]
    names = {service.name for service in reply.list_services_response.service}
    assert "ovperception.v1.PerceptionService" in names


def test_tokens_follow_their_file(tokens_file, monkeypatch):
    monkeypatch.setattr("serving.watched_file._LOOK_AGAIN_S", 0)
    tokens = Tokens(tokens_file)
    assert tokens.find(ROBOT).name == "robot"
    tokens_file.write_text("robot:infer:another-token-0123456789\n")
    os.utime(tokens_file, ns=(1, 1))
    assert tokens.find(ROBOT) is None
    assert tokens.find("another-token-0123456789").name == "robot"


def test_a_broken_file_leaves_the_tokens_as_they_were(tokens_file, caplog):
    tokens = Tokens(tokens_file)
    tokens_file.write_text("nonsense")
    tokens.reload()
    assert tokens.find(ROBOT).name == "robot"
    assert "stay as they were" in caplog.text
    tokens_file.unlink()
    tokens.reload()
    assert tokens.find(OPERATOR).scopes == {"admin"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no token"),
        ("# nothing", "no token"),
        ("robot:infer", "name:scopes:token"),
        ("robot::secret-secret-secret", "name:scopes:token"),
        ("robot:root:secret-secret-secret", "infer, admin"),
        ("robot:infer,root:secret-secret-secret", "infer, admin"),
        ("robot:infer:secret", "16 characters"),
        ("robot:infer:sha256:abcd", "64 hexadecimal"),
        ("robot:infer:sha256:" + "x" * 64, "64 hexadecimal"),
    ],
)
def test_wrong_lines_are_told_without_the_secret(tmp_path, text, words):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(InvalidParameter, match=words) as caught:
        Tokens(path)
    assert "secret" not in str(caught.value)


def test_no_file_of_tokens(tmp_path, serve):
    with pytest.raises(MissingFile, match="tokens"):
        serve(tokens_file=tmp_path / "none")


def _channel(server, pki, who=None, authority="ca", port=None):
    cert, key = (path.read_bytes() for path in pki[who]) if who else (None, None)
    credentials = grpc.ssl_channel_credentials(pki[authority][0].read_bytes(), key, cert)
    return grpc.secure_channel(f"localhost:{port or server.port}", credentials)


def _ask(channel):
    return PerceptionServiceStub(channel).EmbedText(ASK, timeout=3).embeddings.count


def _refused(channel):
    with pytest.raises(grpc.RpcError) as caught:
        _ask(channel)
    return caught.value.code() == grpc.StatusCode.UNAVAILABLE


@needs_openssl
def test_tls(serve, pki):
    cert, key = pki["server"]
    server = serve(tls_cert=cert, tls_key=key)
    with _channel(server, pki) as known, _channel(server, pki, authority="other") as unknown:
        assert _ask(known) == 1
        assert _refused(unknown)
    with grpc.insecure_channel(server.address) as clear:
        assert _refused(clear)


@needs_openssl
def test_mutual_tls_names_the_caller(serve, pki):
    cert, key = pki["server"]
    seen = []
    server = serve(tls_cert=cert, tls_key=key, tls_client_ca=pki["ca"][0])
    models = server.engine.models
    get, server.engine.models.get = models.get, lambda *rest: seen.append(caller().name) or get(*rest)
    with _channel(server, pki, "robot") as robot:
        assert _ask(robot) == 1
    assert seen == ["robot"]
    with _channel(server, pki) as nobody, _channel(server, pki, "stranger") as stranger:
        assert _refused(nobody)
        assert _refused(stranger)


def _is_denied(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.PERMISSION_DENIED and "certificate" in error.details()
    return False


@needs_openssl
def test_who_may_administer_by_certificate_is_listed(pki, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.watched_file._LOOK_AGAIN_S", 0)
    cert, key = pki["server"]
    listed = tmp_path / "certificates"

    def denied(config):
        """Whether the robot may not load models, and whether it may not ask."""
        with Server([FakeModel()], config, load=FakeModel) as server:
            server.engine.models.put(FakeModel("second"))
            with (
                _channel(server, pki, "robot", port=server.admin_port) as admin,
                _channel(server, pki, "robot") as channel,
            ):
                gone = UnloadModelRequest(name="second")
                calls = (lambda: ModelAdminServiceStub(admin).UnloadModel(gone), lambda: _ask(channel))
                return [_is_denied(call) for call in calls]

    base = {"port": 0, "admin_port": 0, "tls_cert": cert, "tls_key": key, "tls_client_ca": pki["ca"][0]}
    config = ServerConfig(**base)
    assert "nobody may use admin_port" in "".join(warnings_of(config))
    assert denied(config) == [True, False]
    config = ServerConfig(**base, certificates_file=listed)
    for text, expected in (
        ("robot:infer,admin", [False, False]),
        ("other:admin\n*:infer", [True, False]),
        ("robot:\n*:infer,admin", [True, True]),
        ("other:infer", [True, True]),
    ):
        listed.write_text(text)
        assert denied(config) == expected
        assert not warnings_of(config)


def test_scopes_of_certificates_follow_their_file(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("serving.watched_file._LOOK_AGAIN_S", 0)
    path = tmp_path / "certificates"
    path.write_text("robot:infer\n")
    scopes = CertificateScopes(path)
    path.write_text("robot:infer,admin\n")
    os.utime(path, ns=(1, 1))
    assert scopes.of("robot") == {"infer", "admin"}
    path.write_text("robot:root\n")
    scopes.reload()
    assert scopes.of("robot") == {"infer", "admin"}
    assert "stay as they were" in caplog.text
    for text, words in (
        ("robot", "name:scopes"),
        (":infer", "name:scopes"),
        ("a:infer\na:admin", "two lines"),
    ):
        path.write_text(text)
        with pytest.raises(InvalidParameter, match=words):
            CertificateScopes(path)
    with pytest.raises(MissingFile):
        CertificateScopes(tmp_path / "none")
    with pytest.raises(InvalidParameter, match="certificates decide"):
        ServerConfig(certificates_file=path)


@needs_openssl
def test_a_certificate_is_replaced_while_serving(serve, pki, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def put(name):
        for target, source in zip((cert, key), pki[name], strict=True):
            target.write_bytes(source.read_bytes())
            os.utime(target, ns=(time.time_ns(), time.time_ns()))

    put("server")
    server = serve(tls_cert=cert, tls_key=key)
    assert _subject(server, pki) == "server"
    cert.write_text("half a certifi")
    assert _subject(server, pki) == "server"
    put("next")
    assert _subject(server, pki) == "next"


def _subject(server, pki):
    """The name in the certificate that a server shows."""
    import socket
    import ssl

    context = ssl.create_default_context(cafile=pki["ca"][0])
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("localhost", server.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return dict(pair[0] for pair in secured.getpeercert()["subject"])["commonName"]


@needs_openssl
@pytest.mark.parametrize(
    ("change", "kind", "field"),
    [
        ({"tls_cert": "none.pem"}, MissingFile, "tls_cert"),
        ({"tls_key": "other-key"}, InvalidParameter, "tls_cert"),
        ({"tls_client_ca": "empty"}, InvalidParameter, "tls_client_ca"),
        ({"tls_client_ca": "none.pem"}, MissingFile, "tls_client_ca"),
    ],
)
def test_tls_files_are_checked_before_a_port_is_taken(serve, pki, tmp_path, change, kind, field):
    cert, key = pki["server"]
    (tmp_path / "empty").touch()
    (tmp_path / "other-key").write_bytes(pki["robot"][1].read_bytes())
    changed = {name: tmp_path / value for name, value in change.items()}
    with pytest.raises(kind) as caught:
        serve(**{"tls_cert": cert, "tls_key": key, **changed})
    assert caught.value.field == field


def test_warnings(tmp_path, tokens_file):
    assert warnings_of(ServerConfig()) == []
    assert warnings_of(ServerConfig(host="localhost", tokens_file=tokens_file)) == []
    text = "\n".join(warnings_of(ServerConfig(host="0.0.0.0", metrics_port=1, metrics_host="::")))
    assert "anyone can listen" in text
    assert "anyone may call" in text
    assert "metrics_host" in text
    tokens_file.chmod(0o644)
    text = "\n".join(warnings_of(ServerConfig(host="0.0.0.0", tokens_file=tokens_file)))
    assert "chmod 600" in text
    assert "in clear" in text
    assert "admin_host" in "".join(warnings_of(ServerConfig(admin_host="10.0.0.1", admin_port=0)))


def test_models_are_loaded_by_admins_on_a_port_of_their_own(tokens_file):
    loaded = FakeModel("second")
    config = ServerConfig(port=0, admin_port=0, tokens_file=tokens_file)
    request = LoadModelRequest(name="second")
    with (
        Server([FakeModel()], config, load=lambda name: loaded) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.admin_port}") as channel,
        grpc.insecure_channel(server.address) as public,
    ):
        admin, health = ModelAdminServiceStub(channel), health_pb2_grpc.HealthStub(public)
        assert isinstance(_error(lambda: admin.LoadModel(request)), Unauthenticated)
        assert isinstance(_error(lambda: admin.LoadModel(request, metadata=_bearer(ROBOT))), PermissionDenied)
        with pytest.raises(grpc.RpcError) as caught:  # not served where everybody is
            ModelAdminServiceStub(public).LoadModel(request, metadata=_bearer(OPERATOR))
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert _health(health, "models/fake") == "SERVING"
        reply = admin.LoadModel(request, metadata=_bearer(OPERATOR))
        assert reply.model.name == "second"
        assert _health(health, "models/second") == "SERVING"
        admin.UnloadModel(UnloadModelRequest(name="second"), metadata=_bearer(OPERATOR))
        assert _health(health, "models/second") == "NOT_SERVING"


def _health(stub, name):
    reply = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
