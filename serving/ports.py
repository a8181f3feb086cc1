"""Whether a port is free, asked before models are loaded: that takes minutes, and to be refused none."""

from __future__ import annotations

import errno
import socket

from ovperception.errors import Unavailable

__all__ = ["check_port", "port_in_use"]


def check_port(host: str, port: int) -> None:
    """Refuse a port that somebody listens on; all else is left to who listens there.

    Raises:
        Unavailable: The port is in use.
    """
    if not port or host.startswith("unix:"):
        return
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        return
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as gRPC: one that closes is no hindrance
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:  # all else gRPC may see otherwise: it tries every address
                raise port_in_use(f"{host}:{port}", error.strerror) from error


def port_in_use(address: str, got: object) -> Unavailable:
    """What is told where one cannot listen."""
    return Unavailable(
        f"The server cannot listen on {address}",
        got=got,
        mend="Stop what uses the port, take another one, or --port 0 for a free one",
    )
