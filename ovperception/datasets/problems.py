"""What is wrong with a data set: stop at the first fault, or leave it out and count it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from ovperception.errors import InvalidDataset

__all__ = ["OnProblem", "Problems"]

OnProblem = Literal["stop", "skip"]
_EXAMPLES = 5


class Problems:
    """Faults by kind, with the first few of each.

    Args:
        path: the file they are in; lists of several files' faults are put together, so each fault names it.
        on_problem: "stop" raises at the first fault that would change a number; "skip" leaves the entry out
            and counts it.
    """

    def __init__(self, path: Path, on_problem: OnProblem = "stop") -> None:
        self.path = path
        self.on_problem = on_problem
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def fault(self, kind: str, where: str, *, expected: str = "", got: object = None, mend: str = "") -> None:
        """An entry that cannot be used.

        Raises:
            InvalidDataset: unless such entries are to be skipped.
        """
        if self.on_problem == "stop":
            raise InvalidDataset(
                f"{self.path}: {where}: {kind}",
                field=where,
                expected=expected,
                got=got,
                mend=mend or 'Mend the file, or open it with on_problem="skip" to leave such entries out',
            )
        self.note(kind, where)

    def note(self, kind: str, where: str) -> None:
        """Something odd that is used as it is."""
        self.counts[kind] += 1
        seen = self.examples.setdefault(kind, [])
        if len(seen) < _EXAMPLES:
            seen.append(f"{where} of {self.path}")

    def __bool__(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.counts)

    def lines(self) -> tuple[str, ...]:
        """One line a kind: how many, and where the first ones are."""
        return tuple(
            f"{count} x {kind}: {', '.join(self.examples[kind])}{', ...' if count > _EXAMPLES else ''}"
            for kind, count in self.counts.most_common()
        )
