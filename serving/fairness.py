"""A queue in which everybody gets a share: priorities by weight, and within each the clients in turn.

Stride scheduling, twice: whoever has been given least, in proportion to its weight, is next. What is given is
counted in the cost of the work, so that a client of large pictures does not get more than one of small ones.
Who comes back after a pause begins where the others are: nobody saves up, and nobody starves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Generic, Literal, Protocol, TypeVar

__all__ = ["PRIORITIES", "FairQueue", "Priority", "Queued"]

Priority = Literal["interactive", "normal", "bulk"]

PRIORITIES: Mapping[Priority, float] = {"interactive": 16, "normal": 4, "bulk": 1}
"""How much more one gets than another, while both have work waiting."""

_MOST_REMEMBERED = 4096


class Queued(Protocol):
    """What the queue asks of the work in it."""

    @property
    def client(self) -> str:
        """Who wants it."""
        ...

    @property
    def priority(self) -> Priority:
        """How urgent it is."""
        ...

    @property
    def cost(self) -> float:
        """How much of it there is, in any unit."""
        ...


J = TypeVar("J", bound=Queued)
K = TypeVar("K", bound=Hashable)


class _Turns(Generic[K]):
    """Whose turn it is: how much each was given, in units of its weight."""

    def __init__(self) -> None:
        self._given: dict[K, float] = {}
        self._now = 0.0

    def join(self, key: K) -> None:
        """`key` has work again."""
        self._given[key] = max(self._given.get(key, 0.0), self._now)

    def order(self, waiting: Mapping[K, object]) -> list[K]:
        """Those that wait, who was given least first."""
        return sorted(waiting, key=self._given.__getitem__) if len(waiting) > 1 else list(waiting)

    def give(self, key: K, amount: float) -> None:
        """Charge `key`, whose turn it was."""
        self._now = max(self._now, self._given[key])
        self._given[key] += amount

    def forget_idle(self, waiting: Mapping[K, object]) -> None:
        """Now and then forgive those that do not wait what they had; or every client ever seen would stay."""
        if len(self._given) > _MOST_REMEMBERED:
            self._given = {k: v for k, v in self._given.items() if k in waiting}


class _Class(Generic[J]):
    """What waits of one priority: client -> its work by age."""

    def __init__(self) -> None:
        self.clients: dict[str, OrderedDict[int, J]] = {}
        self.costs: dict[str, float] = {}
        self.turns: _Turns[str] = _Turns()

    @property
    def cost(self) -> float:
        return sum(self.costs.values())

    def add(self, item: J) -> None:
        if item.client not in self.clients:
            self.clients[item.client] = OrderedDict()
            self.costs[item.client] = 0.0
            self.turns.join(item.client)
            self.turns.forget_idle(self.clients)
        self.clients[item.client][id(item)] = item
        self.costs[item.client] += item.cost

    def drop(self, item: J) -> bool:
        items = self.clients.get(item.client)
        if items is None or items.pop(id(item), None) is None:
            return False
        self.costs[item.client] -= item.cost
        if not items:
            del self.clients[item.client], self.costs[item.client]
        return True

    def first(self, fits: Callable[[J], bool]) -> J | None:
        """The oldest that fits of the client whose turn it is, or of the next one."""
        for client in self.turns.order(self.clients):
            for item in self.clients[client].values():
                if fits(item):
                    return item
        return None


class FairQueue(Generic[J]):
    """The queue. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._classes: dict[Priority, _Class[J]] = {priority: _Class() for priority in PRIORITIES}
        self._turns: _Turns[Priority] = _Turns()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[J]:
        for some in self._classes.values():
            for items in some.clients.values():
                yield from items.values()

    def put(self, item: J) -> None:
        """Queue an item behind its client's others."""
        some = self._classes[item.priority]
        if not some.clients:
            self._turns.join(item.priority)
        some.add(item)
        self._count += 1

    def remove(self, item: J) -> bool:
        """Take an item out; whether it was in."""
        dropped = self._classes[item.priority].drop(item)
        self._count -= dropped
        return dropped

    def take(self, fits: Callable[[J], bool] = lambda _: True) -> J | None:
        """The next of all items that fit; None if none does."""
        waiting = {priority: some for priority, some in self._classes.items() if some.clients}
        for priority in self._turns.order(waiting):
            some = waiting[priority]
            item = some.first(fits)
            if item is not None:
                some.drop(item)
                self._count -= 1
                some.turns.give(item.client, item.cost)
                self._turns.give(priority, item.cost / PRIORITIES[priority])
                return item
        return None

    def clear(self) -> list[J]:
        """Take everything out."""
        items = list(self)
        self._count = 0
        self._classes = {priority: _Class() for priority in PRIORITIES}
        return items

    def ahead(self, client: str, priority: Priority, cost: float) -> float:
        """About how much is served before work of this `cost` that would be put in now.

        As if all were served at once, each at the rate of its share: until this client's turn has come, no
        other of its priority is given more than it, and no other priority more than by its weight.
        """
        if not self._count:
            return 0.0
        some = self._classes[priority]
        own = some.costs.get(client, 0.0)
        before = own + sum(min(c, own + cost) for name, c in some.costs.items() if name != client)
        during = before + cost
        return before + sum(
            min(other.cost, during * PRIORITIES[name] / PRIORITIES[priority])
            for name, other in self._classes.items()
            if name != priority
        )
