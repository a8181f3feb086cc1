"""A server started by a command that a page tells its reader to type."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

__all__ = ["served_by"]


@contextmanager
def served_by(words: Sequence[str], port: str) -> Iterator[str]:
    """Runs ``ovp serve ...`` in a process of its own until the block ends.

    Args:
        words: of the command, ``ovp`` first.
        port: the port that the page names; a free one takes its place.

    Yields:
        The port it listens at.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
    argv = [free if word == port else word for word in words[1:]]
    assert argv != list(words[1:])
    process = subprocess.Popen(
        [sys.executable, "-m", "ovperception", *argv], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "listening" in line:
                break
        else:
            pytest.fail(f"the server did not start: {''.join(seen)}")
        yield free
        process.terminate()
        process.stderr.read()
        assert process.wait(30) in (0, 128 + signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
