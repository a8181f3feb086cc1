"""Whether two evaluations may be compared at all, and in what they differ beside their numbers."""

from __future__ import annotations

from eval.outcome import Outcome
from ovperception.errors import InvalidParameter

__all__ = ["check_comparable", "differences"]


def check_comparable(first: Outcome, second: Outcome) -> None:
    """Two runs can be compared if protocol, data, words, images and classes are the same.

    Raises:
        InvalidParameter: something of that differs; the message says what.
    """
    for name, one, other in (
        ("protocol", first.protocol, second.protocol),
        ("kind of the numbers", first.kind, second.kind),
        ("data", first.facts.data, second.facts.data),
        ("split", first.facts.split, second.facts.split),
        ("words", first.facts.vocabulary_hash, second.facts.vocabulary_hash),
    ):
        if one != other and (one and other):
            raise _apart(name, one, other)
    ids = [[image.image_id for image in run.images] for run in (first, second)]
    if set(ids[0]) != set(ids[1]):
        only = sorted(set(ids[0]) ^ set(ids[1]), key=str)
        raise _apart("images", f"{len(ids[0])} images", f"{len(ids[1])}; in one run alone: {only[:3]}")
    classes = [{(row.id, row.name) for row in run.per_class} for run in (first, second)]
    if classes[0] != classes[1]:
        strange = sorted(classes[0] ^ classes[1])[:3]
        raise _apart("classes", f"{len(classes[0])} classes", f"{len(classes[1])}; in one alone: {strange}")


def _apart(name: str, one: str, other: str) -> InvalidParameter:
    return InvalidParameter(
        f"These evaluations differ in their {name}, so their numbers cannot be compared",
        field=name,
        expected=f"the same {name} as A: {one}",
        got=f"B: {other}",
        mend="Measure both with the same protocol and data",
    )


_REASONS = (
    *("model", "model_digest", "backbone", "backbone_digest"),
    *("templates", "resolution", "augmentation", "commit", "server", "device"),
)


def differences(first: Outcome, second: Outcome) -> tuple[tuple[str, str, str], ...]:
    """What differs and may well be the reason: name, A's, B's."""
    rows = [
        (name.replace("_", " "), getattr(first.facts, name), getattr(second.facts, name)) for name in _REASONS
    ]
    rules = sorted({*first.rules, *second.rules})
    rows += [(f"rule: {name}", first.rules.get(name, ""), second.rules.get(name, "")) for name in rules]
    return tuple(row for row in rows if row[1] != row[2])
