"""The threads in which calls are worked on."""

import threading

import pytest

from serving.call_threads import CallThreads
from tests.serving.engine_calls import wait_for


def _done(threads, work=lambda: None):
    """Have something done; the name of the thread that did it."""
    ended, names = threading.Event(), []

    def run():
        names.append(threading.current_thread().name)
        work()

    threads.submit(run).add_done_callback(lambda taken: ended.set())
    assert ended.wait(10)
    return names[0]


def _idle(threads, count):
    wait_for(lambda: len(threads._idle) == count)


def test_who_became_idle_last_works_next():
    threads = CallThreads(2, "t")
    gates, names = [threading.Event(), threading.Event()], {}

    def wait(index):
        names[index] = threading.current_thread().name
        gates[index].wait(10)

    for index in range(2):
        threads.submit(wait, index)
    wait_for(lambda: len(names) == 2)
    for index in range(2):
        gates[index].set()
        _idle(threads, index + 1)
    for _ in range(5):
        assert _done(threads) == names[1]
        _idle(threads, 2)
    threads.shutdown()


def test_there_are_as_many_threads_as_calls_but_not_more_than_the_most():
    threads = CallThreads(2, "t")
    gate, done = threading.Event(), []
    for index in range(4):
        threads.submit(lambda index=index: (gate.wait(10), done.append(index)))
    assert len(threads._threads) == 2
    gate.set()
    wait_for(lambda: sorted(done) == [0, 1, 2, 3])
    threads.shutdown()


def test_who_asks_late_is_told_once_as_well():
    threads = CallThreads(1, "t")
    taken, told = threads.submit(int), []
    _idle(threads, 1)
    taken.add_done_callback(told.append)
    assert told == [taken]
    threads.shutdown()


def test_a_call_that_fails_ends_and_leaves_its_thread(caplog):
    threads = CallThreads(1, "t")
    assert _done(threads, lambda: 1 // 0) == _done(threads)
    assert "ZeroDivisionError" in caplog.text
    threads.shutdown()


def test_what_was_taken_is_worked_on_before_the_end():
    threads = CallThreads(1, "t")
    done = []
    for index in range(50):
        threads.submit(done.append, index)
    threads.shutdown()
    assert done == list(range(50))
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(int)


def test_many_submit_at_once():
    threads = CallThreads(4, "t")
    done, lock = [0], threading.Lock()

    def count():
        with lock:
            done[0] += 1

    callers = [threading.Thread(target=lambda: [threads.submit(count) for _ in range(500)]) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    threads.shutdown()
    assert done[0] == 2000
