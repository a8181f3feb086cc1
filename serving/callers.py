"""For whom a call is, and how urgent it says it is."""

from __future__ import annotations

import grpc

from ovperception.errors import InvalidParameter
from serving.fairness import PRIORITIES, Priority
from serving.security import caller

__all__ = ["PRIORITY_KEY", "client_of", "priority_of"]

PRIORITY_KEY = "ovp-priority"
"""Metadata of a call: ``interactive``, ``normal`` or ``bulk``."""


def client_of(context: grpc.ServicerContext) -> str:
    """Whom fairness, limits and kept images go by: the name of who calls, or the machine it calls from."""
    name = caller().name
    if name:
        return f"name:{name}"
    kind, _, rest = context.peer().partition(":")
    return f"{kind}:{rest.rpartition(':')[0]}" if kind in {"ipv4", "ipv6"} else kind


def priority_of(context: grpc.ServicerContext) -> Priority:
    """What the call's metadata says.

    Raises:
        InvalidParameter: It says something else.
    """
    for key, said in context.invocation_metadata():
        if key == PRIORITY_KEY:
            return _priority(said)
    return "normal"


def _priority(said: object) -> Priority:
    for priority in PRIORITIES:
        if said == priority:
            return priority
    raise InvalidParameter(
        "No such priority", field=PRIORITY_KEY, expected=" or ".join(PRIORITIES), got=repr(said)
    )
