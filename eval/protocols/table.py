"""All named protocols."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache

from eval.protocols.detection import detection_protocols
from eval.protocols.other_metric import with_metric
from eval.protocols.protocol import EvaluationProtocol
from eval.protocols.scenes import scenes_protocols
from eval.protocols.segmentation import segmentation_protocols
from ovperception.errors import NotFound

__all__ = ["protocol", "protocol_names", "protocols"]


@cache
def _table() -> Mapping[str, EvaluationProtocol]:
    rows = (*detection_protocols(), *segmentation_protocols(), *scenes_protocols())
    table = {row.name: row for row in rows}
    assert len(table) == len(rows), "two protocols share a name"
    return table


def protocols() -> tuple[EvaluationProtocol, ...]:
    """All protocols: detection, segmentation, then those of scenes."""
    return tuple(_table().values())


def protocol_names() -> tuple[str, ...]:
    """Their names, in the order of `protocols`."""
    return tuple(_table())


def protocol(name: str) -> EvaluationProtocol:
    """The protocol of a name; ``<name>:<metric>`` is one with another metric, see `with_metric`.

    Raises:
        NotFound: there is none; the message has the nearest names.
        InvalidParameter: the metric is not known, or not of what the protocol asks for.
    """
    name, _, metric = name.partition(":")
    found = _table().get(name)
    if found is None:
        near = difflib.get_close_matches(name, _table(), n=5, cutoff=0.4)
        raise NotFound(
            "There is no such protocol",
            field="protocol",
            expected=f"one of {', '.join(near or protocol_names())}",
            got=repr(name),
            mend="`ovp eval --protocols` lists them all",
        )
    return with_metric(found, metric) if metric else found
