"""Tokens and certificates from the client's side: the SDK and `ovp predict` against a guarded server."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from ovperception.cli import app, main
from ovperception.client import TLS, AsyncClient, Client
from ovperception.errors import InvalidParameter, MissingFile, Unauthenticated, Unavailable
from ovperception.images import encode_png
from tests.serving.certificates import needs_openssl

TOKEN = "robot-token-0123456789"


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "tokens.txt"
    path.write_text(f"robot:infer:{TOKEN}\n")
    return path


@pytest.fixture
def guarded(serve, pki, tokens_file):
    """A server that wants a certificate and a token."""
    cert, key = pki["server"]
    return serve(tls_cert=cert, tls_key=key, tls_client_ca=pki["ca"][0], tokens_file=tokens_file)


def _tls(pki, name="robot", authority="ca"):
    cert, key = pki[name]
    return TLS(root_certificates=pki[authority][0], certificate=cert, key=key)


def _ask(server, picture, **options):
    with Client(server.address, **{"timeout_s": 5, **options}) as client:
        return len(client.detect(picture, ["cat"]))


@needs_openssl
def test_a_client_that_shows_both(guarded, pki, picture):
    assert _ask(guarded, picture, tls=_tls(pki), token=TOKEN) == 1
    pem = TLS(
        root_certificates=pki["ca"][0].read_text(),
        certificate=pki["robot"][0].read_bytes(),
        key=str(pki["robot"][1]),
    )
    with Client(guarded.address, timeout_s=5, tls=pem, token=TOKEN) as client:
        with client.stream(["cat"], policy="block") as stream:
            stream.send(picture)
            assert next(stream).perception
        assert client.vocabularies.create(["cat"], name="pets").name == "vocabularies/pets"


@needs_openssl
def test_a_load_that_shows_both(guarded, pki, tmp_path, capfd):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    cert, key = map(str, pki["robot"])
    load = ["bench", "--server", guarded.address, "--duration", "0.2", "--warm-up", "0", "--sizes", "32x24"]
    shown = ["--tls-ca", str(pki["ca"][0]), "--tls-cert", cert, "--tls-key", key]
    assert main([*load, *shown, "--token-file", str(token), "--json"]) == 0
    assert set(json.loads(capfd.readouterr().out)["result"]["codes"]) == {"OK"}
    assert main([*load, *shown]) == 1  # no token
    assert "UNAUTHENTICATED" in capfd.readouterr().err
    assert main([*load, *shown[:2], "--token-file", str(token)]) == 1  # no certificate
    assert "does not answer" in capfd.readouterr().err
    assert main([*load, *shown[:4]]) == 2
    assert "needs its key" in capfd.readouterr().err


def test_a_load_of_its_own_needs_no_token(tmp_path, capfd):
    assert main(["bench", "--tls"]) == 2
    assert "--server" in capfd.readouterr().err


@needs_openssl
def test_a_client_that_does_not(guarded, pki, picture):
    for options in (
        {"tls": _tls(pki)},
        {"tls": _tls(pki), "token": "another-token-0123456789"},
    ):
        with pytest.raises(Unauthenticated):
            _ask(guarded, picture, **options)
    for options in (
        {"tls": None, "token": TOKEN},
        {"tls": TLS(root_certificates=pki["ca"][0]), "token": TOKEN},
        {"tls": _tls(pki, "stranger"), "token": TOKEN},
        {"tls": _tls(pki, authority="other"), "token": TOKEN},
    ):
        with pytest.raises(Unavailable):
            _ask(guarded, picture, timeout_s=1, **options)


@needs_openssl
def test_what_is_wrong_with_a_connection_is_told(guarded, serve, pki, picture):
    elsewhere = TLS(
        root_certificates=pki["ca"][0], certificate=pki["robot"][0], key=pki["robot"][1], server_name="moon"
    )
    for server, tls, words in (
        (guarded, None, "tls=True"),
        (guarded, TLS(root_certificates=pki["ca"][0]), r"certificate=\.\.\."),
        (guarded, _tls(pki, authority="other"), "root_certificates"),
        (guarded, elsewhere, "server_name"),
        (serve(), _tls(pki), "without tls"),
    ):
        with pytest.raises(Unavailable, match=words):
            _ask(server, picture, timeout_s=5, tls=tls)


@needs_openssl
def test_awaited(guarded, pki, picture):
    async def main():
        async with AsyncClient(guarded.address, timeout_s=5, tls=_tls(pki), token=TOKEN) as client:
            assert len(await client.detect(picture, ["cat"])) == 1
            async with client.stream(["cat"]) as stream:
                await stream.send(picture)
                assert (await anext(stream)).perception
        async with AsyncClient(guarded.address, timeout_s=5, tls=_tls(pki)) as client:
            with pytest.raises(Unauthenticated):
                await client.detect(picture, ["cat"])

    asyncio.run(main())


def test_a_token_does_not_travel_in_clear():
    with pytest.raises(InvalidParameter, match="in clear"):
        Client("robot:50051", token=TOKEN)


@needs_openssl
def test_predict_shows_what_it_is_given(guarded, pki, picture, tmp_path):
    image, token = tmp_path / "a.png", tmp_path / "token"
    image.write_bytes(encode_png(picture))
    token.write_text(TOKEN + "\n")
    cert, key = pki["robot"]
    shown = ["--tls-ca", pki["ca"][0], "--tls-cert", cert, "--tls-key", key, "--token-file", token]
    asked = ["predict", image, "--classes", "cat", "--server", guarded.address, "--json", "--timeout", 10]
    done = CliRunner().invoke(app, [str(part) for part in (*asked, *shown)], catch_exceptions=False)
    assert done.exit_code == 0
    assert len(json.loads(done.stdout)["detections"]) == 1


def test_predict_refuses_what_nobody_reads(tmp_path):
    ask = ["predict", "a.png", "--classes", "cat"]
    (tmp_path / "empty").write_text("\n")
    runner = CliRunner()
    local = runner.invoke(app, [*ask, "--token-file", str(tmp_path / "empty")])
    assert isinstance(local.exception, InvalidParameter)
    for name in ("empty", "none"):
        served = runner.invoke(app, [*ask, "--server", "127.0.0.1:1", "--token-file", str(tmp_path / name)])
        assert isinstance(served.exception, MissingFile)
