"""Who gets how much, counted."""

from collections import Counter
from dataclasses import dataclass

import pytest

from serving.fairness import FairQueue


@dataclass(eq=False)
class _Item:
    client: str
    priority: str = "normal"
    cost: float = 1.0


@pytest.fixture
def queue():
    return FairQueue()


def _fill(queue, count, client, **rest):
    for _ in range(count):
        queue.put(_Item(client, **rest))


def _taken(queue, count):
    return [queue.take() for _ in range(count)]


def test_one_clients_work_is_done_in_order(queue):
    items = [_Item("a") for _ in range(5)]
    for item in items:
        queue.put(item)
    assert _taken(queue, 6) == [*items, None]
    assert not queue


def test_a_client_with_little_is_not_behind_one_with_much(queue):
    _fill(queue, 100, "much")
    _fill(queue, 2, "little")
    assert [item.client for item in _taken(queue, 4)].count("little") == 2


def test_shares_are_counted_in_cost(queue):
    _fill(queue, 100, "large", cost=10)
    _fill(queue, 1000, "small", cost=1)
    spent = Counter()
    for item in _taken(queue, 220):
        spent[item.client] += item.cost
    assert spent["large"] / spent["small"] == pytest.approx(1, rel=0.15)


def test_priorities_share_by_weight_and_nobody_starves(queue):
    for priority in ("bulk", "normal", "interactive"):
        _fill(queue, 300, "a", priority=priority)
    counts = Counter(item.priority for item in _taken(queue, 210))
    assert counts == pytest.approx({"interactive": 160, "normal": 40, "bulk": 10}, abs=2)


def test_many_clients_of_bulk_do_not_outweigh_one_that_waits(queue):
    for number in range(50):
        _fill(queue, 4, f"bulk {number}", priority="bulk")
    _taken(queue, 20)
    _fill(queue, 3, "human", priority="interactive")
    assert [item.client for item in _taken(queue, 4)].count("human") == 3


def test_nobody_saves_up_turns(queue):
    _fill(queue, 1, "idle")
    _fill(queue, 500, "busy")
    _taken(queue, 201)
    _fill(queue, 100, "idle")
    assert [item.client for item in _taken(queue, 40)].count("busy") == pytest.approx(20, abs=1)


def test_leaving_does_not_clear_a_debt(queue):
    _fill(queue, 300, "cheap")
    spent = Counter()
    for _ in range(60):
        if not any(item.client == "dear" for item in queue):
            _fill(queue, 1, "dear", cost=50)
        item = queue.take()
        spent[item.client] += item.cost
    assert spent["dear"] <= spent["cheap"] + 2 * 50


def test_what_does_not_fit_is_left_where_it_is(queue):
    first, second = _Item("a", cost=2), _Item("b", cost=1)
    queue.put(first)
    queue.put(second)
    assert queue.take(lambda item: item.cost == 1) is second
    assert queue.take(lambda item: item.cost == 1) is None
    assert queue.take() is first


def test_what_is_removed_is_gone(queue):
    items = [_Item("a"), _Item("a"), _Item("b", priority="bulk")]
    for item in items:
        queue.put(item)
    assert queue.remove(items[0])
    assert not queue.remove(items[0])
    assert queue.remove(items[2])
    assert len(queue) == 1
    assert _taken(queue, 2) == [items[1], None]
    assert queue.ahead("c", "normal", 1) == 0


def test_how_much_is_ahead(queue):
    _fill(queue, 10, "much")
    assert queue.ahead("much", "normal", 1) == 10
    assert queue.ahead("new", "normal", 1) == 1  # its turn comes after one of the other's
    assert queue.ahead("new", "interactive", 4) == pytest.approx(1)  # a quarter of the weight
    assert queue.ahead("new", "bulk", 1) == pytest.approx(4)


def test_the_estimate_of_what_is_ahead_is_what_happens(queue):
    for client, count in (("a", 30), ("b", 5), ("c", 12)):
        _fill(queue, count, client)
    _fill(queue, 20, "d", priority="bulk")
    queue.take()
    expected = queue.ahead("b", "normal", 1)
    last = _Item("b")
    queue.put(last)
    before = 0
    while queue.take() is not last:
        before += 1
    assert before == pytest.approx(expected, abs=3)


def test_clients_that_have_gone_are_not_remembered_for_ever(queue):
    for number in range(10_000):
        queue.put(_Item(f"client {number}"))
        queue.take()
    assert len(queue._classes["normal"].turns._given) < 5000
