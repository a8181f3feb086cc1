"""Memory goes back to the machine when work is over, once, and never in between."""

from serving.memory import QuietTrimmer, allocator_trim


def test_it_trims_when_work_is_over_and_once():
    state = {"done": 0, "quiet": True}
    trims = []
    trimmer = QuietTrimmer(
        lambda: state["done"], lambda: state["quiet"], trim=lambda: trims.append(state["done"])
    )
    trimmer.look()
    assert trims == []  # nothing was done
    state.update(done=5, quiet=False)
    trimmer.look()
    assert trims == []
    state.update(quiet=True)
    trimmer.look()
    trimmer.look()
    assert trims == [5]
    state.update(done=6)
    trimmer.look()
    assert trims == [5, 6]


def test_without_such_an_allocator_nobody_is_asked_whether_it_is_quiet():
    asked = []
    trimmer = QuietTrimmer(lambda: 1, lambda: bool(asked.append(1)), trim=None)
    trimmer.look()
    assert asked == []


def test_the_allocator_of_this_machine():
    trim = allocator_trim()
    assert trim is None or trim() in (0, 1)
