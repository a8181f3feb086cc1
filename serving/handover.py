"""The Unix socket over which regions of shared memory are handed to clients.

A client connects, sends the token of its region, and gets the region's file descriptor. If it then sends one
byte more, it holds the region for as long as it keeps the connection: when that ends, however its process
ended, so does the region. Other clients give theirs up, or let its time run out. Nobody waits for one
who connects and says nothing.
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TOKEN_BYTES", "Handover"]

TOKEN_BYTES = 32
_TIMEOUT_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _Peer:
    """A client.

    Attributes:
        until_s: When it must have shown its token, on `time.monotonic`'s clock.
        token: What it has shown of it so far.
        region: What it was given; empty before.
        holds: Whether its connection stands for the life of that.
    """

    until_s: float
    token: bytes = b""
    region: str = ""
    holds: bool = False


class Handover:
    """The socket, in a folder that only this user can enter, and its thread.

    Args:
        claim: The name and file descriptor of the region of a token, which is then handed over and closed;
            None if no region waits for it.
        ended: Told the region of a client that held it and has ended.
    """

    def __init__(
        self, claim: Callable[[bytes], tuple[str, int] | None], ended: Callable[[str], None]
    ) -> None:
        self._claim, self._ended = claim, ended
        self._folder = Path(tempfile.mkdtemp(prefix="ovperception-"))
        self.path = self._folder / "handover"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._run, name="ovperception-handover", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hand nothing over any more, and let all connections go."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread up, which closing alone does not
        self._thread.join(2 * _TIMEOUT_S)
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self) -> None:
        with selectors.DefaultSelector() as watched:
            watched.register(self._listener, selectors.EVENT_READ)
            while self._look(watched):
                pass
            for connection, _ in _peers(watched):
                connection.close()

    def _look(self, watched: selectors.BaseSelector) -> bool:
        """Serve whoever says something; False when the listener is closed."""
        silent = [(peer.until_s, connection) for connection, peer in _peers(watched) if not peer.region]
        timeout_s = min(until_s for until_s, _ in silent) - time.monotonic() if silent else None
        for key, _ in watched.select(timeout_s and max(0.0, timeout_s)):
            if key.data is None:
                try:
                    connection, _ = self._listener.accept()
                except OSError:  # closed
                    return False
                connection.setblocking(False)
                peer = _Peer(until_s=time.monotonic() + _TIMEOUT_S)
                watched.register(connection, selectors.EVENT_READ, peer)
            elif isinstance(key.fileobj, socket.socket) and not self._hear(key.fileobj, key.data):
                _drop(watched, key.fileobj)
        now_s = time.monotonic()
        for connection, peer in _peers(watched):
            if not peer.region and peer.until_s <= now_s:
                _drop(watched, connection)
        return True

    def _hear(self, connection: socket.socket, peer: _Peer) -> bool:
        """Take what a client says; whether its connection lives on."""
        return self._lives(connection, peer) if peer.region else self._greet(connection, peer)

    def _greet(self, connection: socket.socket, peer: _Peer) -> bool:
        """Hand a region over to whoever has shown its token in full."""
        try:
            part = connection.recv(TOKEN_BYTES - len(peer.token))
            peer.token += part
            if not part or len(peer.token) < TOKEN_BYTES:
                return bool(part)
            claimed = self._claim(peer.token)
            if claimed is None:
                return False
            peer.region, descriptor = claimed
            try:
                socket.send_fds(connection, [b"\0"], [descriptor])
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.info("a region was not handed over: %s", error)
            return False
        return True

    def _lives(self, connection: socket.socket, peer: _Peer) -> bool:
        try:
            said = connection.recv(64)
        except OSError:
            said = b""
        if said:
            peer.holds = True
        elif peer.holds:
            self._ended(peer.region)
        return bool(said)


def _peers(watched: selectors.BaseSelector) -> list[tuple[socket.socket, _Peer]]:
    keys = watched.get_map().values()
    return [(key.fileobj, key.data) for key in keys if key.data and isinstance(key.fileobj, socket.socket)]


def _drop(watched: selectors.BaseSelector, connection: socket.socket) -> None:
    watched.unregister(connection)
    connection.close()
