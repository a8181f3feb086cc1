"""TLS: the server's certificate, which may be replaced while it runs, and the authorities of its clients."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import grpc

from ovperception.errors import InvalidParameter, MissingFile
from serving.config import ServerConfig
from serving.watched_file import file_stamp

__all__ = ["check_tls", "server_credentials"]

_log = logging.getLogger(__name__)


def check_tls(config: ServerConfig) -> None:
    """Look whether the TLS files are what they should be.

    Raises:
        MissingFile: One cannot be read.
        InvalidParameter: One is no PEM, or the key is not that of the certificate.
    """
    if config.tls_cert is None:
        return
    _read(config.tls_cert, "tls_cert")
    _read(config.tls_key, "tls_key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password is refused rather than asked for: nobody sits at a server's terminal.
        context.load_cert_chain(config.tls_cert, config.tls_key, password=lambda: b"")
    except (ssl.SSLError, ValueError, OSError) as error:
        raise InvalidParameter(
            "The certificate and its key do not work",
            field="tls_cert",
            expected="PEM files of a certificate chain and its unencrypted key",
            got=f"{config.tls_cert}, {config.tls_key}: {error}",
        ) from None
    if config.tls_client_ca is not None:
        _read(config.tls_client_ca, "tls_client_ca")
        try:
            context.load_verify_locations(config.tls_client_ca)
        except ssl.SSLError as error:
            raise InvalidParameter(
                "The authorities of clients are no certificates",
                field="tls_client_ca",
                expected="a PEM file",
                got=f"{config.tls_client_ca}: {error}",
            ) from None


def server_credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """TLS as `config` wants it, its files read anew when they change; None for none.

    Raises:
        MissingFile, InvalidParameter: As `check_tls`.
    """
    check_tls(config)
    if config.tls_cert is None:
        return None
    files = [path for path in (config.tls_cert, config.tls_key, config.tls_client_ca) if path is not None]
    stamp = [file_stamp(path) for path in files]

    def renew() -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks before each handshake; None for "as before"."""
        now = [file_stamp(path) for path in files]
        if now == stamp:
            return None
        stamp[:] = now
        try:
            check_tls(config)
            return _certificates(config)
        except (MissingFile, InvalidParameter) as error:
            _log.error("the certificate stays as it was: %s", error.message)
            return None

    return grpc.dynamic_ssl_server_credentials(
        _certificates(config),
        renew,  # type: ignore[arg-type] # its stub forgets that None is an answer
        require_client_authentication=config.tls_client_ca is not None,
    )


def _certificates(config: ServerConfig) -> grpc.ServerCertificateConfiguration:
    authorities = _read(config.tls_client_ca, "tls_client_ca") if config.tls_client_ca else None
    pair = (_read(config.tls_key, "tls_key"), _read(config.tls_cert, "tls_cert"))
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=authorities)


def _read(path: Path | None, field: str) -> bytes:
    try:
        return (path or Path()).read_bytes()
    except OSError as error:
        raise MissingFile("The file cannot be read", field=field, got=f"{path}: {error.strerror}") from None
