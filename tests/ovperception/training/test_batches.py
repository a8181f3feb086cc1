"""Batches by number, whoever prepares them; what goes wrong in a worker is told as it was raised."""

from __future__ import annotations

import pytest

from ovperception.errors import InvalidDataset
from ovperception.training.batches import numbered_batches


class Squares:
    """The third batch cannot be made."""

    def __getitem__(self, number: int) -> int:
        if number == 2:
            raise InvalidDataset(
                "No picture can be used", field="data", expected="one", got="none", mend="Look at the file"
            )
        return number * number


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_source_is_the_same_from_a_worker_and_comes_in_its_turn(workers: int) -> None:
    batches = numbered_batches(Squares(), range(5), workers=workers)
    assert [next(batches), next(batches)] == [(0, 0), (1, 1)]
    with pytest.raises(InvalidDataset) as caught:
        next(batches)
    assert caught.value.message == "No picture can be used. Expected one. Got none. Look at the file."
    assert caught.value.field == "data"
