"""The Unix socket over which regions of shared memory are handed to clients.

A client connects, sends the token of its region, and gets the region's file descriptor. If it then sends one
byte more, it holds the region for as long as it keeps the connection: when that ends, however its process
ended, so does the region. Other clients give theirs up, or let its time run out.
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TOKEN_BYTES", "Handover"]

TOKEN_BYTES = 32
_TIMEOUT_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Peer:
    """A client that was given a region, and whether its connection stands for its life."""

    region: str
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
            for key in list(watched.get_map().values()):
                if isinstance(key.fileobj, socket.socket) and key.data is not None:
                    key.fileobj.close()

    def _look(self, watched: selectors.BaseSelector) -> bool:
        """Serve whoever says something; False when the listener is closed."""
        for key, _ in watched.select():
            if key.data is None:
                try:
                    connection, _ = self._listener.accept()
                except OSError:  # closed
                    return False
                peer = self._greet(connection)
                if peer is None:
                    connection.close()
                else:
                    watched.register(connection, selectors.EVENT_READ, peer)
            elif isinstance(key.fileobj, socket.socket) and not self._lives(key.fileobj, key.data):
                watched.unregister(key.fileobj)
                key.fileobj.close()
        return True

    def _greet(self, connection: socket.socket) -> _Peer | None:
        """Hand a region over to whoever has its token."""
        try:
            connection.settimeout(_TIMEOUT_S)
            token = b""
            while len(token) < TOKEN_BYTES and (part := connection.recv(TOKEN_BYTES - len(token))):
                token += part
            claimed = self._claim(token)
            if claimed is None:
                return None
            region, descriptor = claimed
            try:
                socket.send_fds(connection, [b"\0"], [descriptor])
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.info("a region was not handed over: %s", error)
            return None
        return _Peer(region)

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
