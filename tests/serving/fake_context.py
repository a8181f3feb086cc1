"""A call without a wire: what the engine asks of gRPC."""

import time


class FakeContext:
    """A call of a client, which may leave.

    Args:
        timeout_s: Until when it waits; None for ever.
        machine: Where it calls from.
        priority: What its metadata says.
    """

    def __init__(self, timeout_s=None, *, machine="10.0.0.1", priority=None):
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._machine = machine
        self._metadata = () if priority is None else (("ovp-priority", priority),)
        self._callbacks = []
        self._active = True

    def time_remaining(self):
        return None if self._deadline_s is None else self._deadline_s - time.monotonic()

    def add_callback(self, callback):
        self._callbacks.append(callback)
        return True

    def is_active(self):
        return self._active

    def peer(self):
        return f"ipv4:{self._machine}:4242"

    def invocation_metadata(self):
        return self._metadata

    def leave(self):
        """End the call, as gRPC does from a thread of its own."""
        self._active = False
        for callback in self._callbacks:
            callback()
