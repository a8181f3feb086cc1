"""Data that cannot be learned from: told with its path, counted once, and no end of a run unless asked."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ovperception.errors import InvalidDataset, InvalidParameter

__all__ = ["Trouble", "WrongData", "WrongDataPolicy"]

_LOG = logging.getLogger(__name__)
_EXAMPLES = 5
_LOGGED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that was left out.

    Attributes:
        kind: what is wrong, the same words for the same kind.
        where: path of the picture, and what of it.
        message: everything that is known.
        harmless: whether a clean data set has such things too, as pictures without any object; these are
            counted and never end a run.
    """

    kind: str
    where: str
    message: str = ""
    harmless: bool = False

    def __str__(self) -> str:
        text = self.message or self.kind
        return text if text.startswith(self.where) else f"{self.where}: {text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongDataPolicy:
    """What a recipe says about wrong data.

    Attributes:
        policy: "stop" ends the run at the first; "skip" leaves it out and takes the next picture.
        limit: of "skip": more different ones than this end the run after all, since that many are no
            accident.
    """

    policy: Literal["skip", "stop"] = "skip"
    limit: int = 1000

    def __post_init__(self) -> None:
        if self.policy not in ("skip", "stop"):
            raise InvalidParameter(
                "Unknown policy for wrong data", field="policy", expected="skip or stop", got=self.policy
            )
        if self.limit < 0:
            raise InvalidParameter("limit counts from 0", field="limit", got=self.limit)


class WrongData:
    """What was left out so far, by kind; a picture that is met again each epoch counts once.

    Args:
        policy: when to give up.
    """

    def __init__(self, policy: WrongDataPolicy | None = None) -> None:
        self.policy = WrongDataPolicy() if policy is None else policy
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.serious = 0
        self._seen: dict[tuple[str, str], None] = {}

    @property
    def seen(self) -> tuple[tuple[str, str], ...]:
        """Kind and place of everything so far, in the order it was met."""
        return tuple(self._seen)

    def note(self, troubles: Iterable[Trouble]) -> None:
        """Count what a batch met.

        Raises:
            InvalidDataset: the policy says that this is enough; the message lists all kinds and where.
        """
        for trouble in troubles:
            if (trouble.kind, trouble.where) in self._seen:
                continue
            self._seen[trouble.kind, trouble.where] = None
            self.counts[trouble.kind] += 1
            examples = self.examples.setdefault(trouble.kind, [])
            if len(examples) < _EXAMPLES:
                examples.append(trouble.where)
            if self.counts[trouble.kind] <= _LOGGED and not trouble.harmless:
                _LOG.warning("left out: %s", trouble)
            self.serious += not trouble.harmless
            if not trouble.harmless:
                self._judge(trouble)

    def _judge(self, last: Trouble) -> None:
        if self.policy.policy == "stop":
            raise InvalidDataset(
                str(last),
                field="data",
                mend='Mend it, or train with the policy "skip"; what was trained so far is kept',
            )
        if self.serious > self.policy.limit:
            raise InvalidDataset(
                f"Too much of the data is wrong, the last one being {last.where}",
                field="data",
                expected=f"up to {self.policy.limit} that cannot be used",
                got="; ".join(self.lines()),
                mend="Mend the data or raise the limit; what was trained so far is kept",
            )

    def add(self, counts: Mapping[str, int], examples: Mapping[str, Sequence[str]]) -> None:
        """Count what was left out when the data was opened; it ends no run.

        Args:
            counts: how many of each kind.
            examples: where the first ones of each kind are.
        """
        for kind, count in counts.items():
            self.counts[kind] += count
            self.examples.setdefault(kind, []).extend(examples[kind][:_EXAMPLES])

    def lines(self) -> tuple[str, ...]:
        """One line a kind: how many, and where the first ones are."""
        return tuple(
            f"{count} x {kind}: {', '.join(self.examples[kind])}{', ...' if count > _EXAMPLES else ''}"
            for kind, count in self.counts.most_common()
        )
