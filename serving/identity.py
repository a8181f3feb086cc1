"""Who makes a call, and what callers may do."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

from ovperception.errors import InvalidParameter

__all__ = ["ANYBODY", "SCOPES", "Caller", "Scope", "caller", "read_scopes", "set_caller"]

Scope = Literal["infer", "admin"]
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls; the name is empty where nobody has to say it."""

    name: str
    scopes: frozenset[Scope]


ANYBODY = Caller(name="", scopes=SCOPES)
_caller: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)


def caller() -> Caller:
    """Who makes the call that this thread works for; gRPC runs each call in a context of its own."""
    return _caller.get()


def set_caller(who: Caller) -> None:
    """Remember who makes this call."""
    _caller.set(who)


def read_scopes(text: str, field: str, where: str) -> frozenset[Scope]:
    """Scopes with a comma between them; an error tells where they stand, not what stands there.

    Raises:
        InvalidParameter: One is not known.
    """
    asked = text.split(",")
    scopes = frozenset(scope for scope in SCOPES if scope in asked)
    if len(scopes) < len(asked):
        expected = "infer, admin, or infer,admin"
        raise InvalidParameter("A scope is not known", field=field, expected=expected, got=where)
    return scopes
