"""Which of a model's heads answers a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import nn

from ovperception.errors import Unsupported
from ovperception.head import Head, RegionHead, Task

__all__ = ["choose_head"]


def choose_head(
    model: str, heads: Mapping[str, nn.Module], task: Task, *, given_boxes: bool = False
) -> tuple[str, Head]:
    """The name of the first head that answers a task, and the head.

    Args:
        model: the model's name, for what is said where there is none.
        heads: name -> head, in order.
        task: what is asked.
        given_boxes: whether the boxes are given, and only their classes asked for.

    Raises:
        Unsupported: none does, or none without boxes, or none with them.
    """
    known = [(name, cast("Head", head)) for name, head in heads.items()]
    able = [(name, head) for name, head in known if task in head.tasks]
    if not able:
        tasks = {task for _, head in known for task in head.tasks}
        raise Unsupported(
            f"Model {model!r} cannot answer {task!r}",
            field="task",
            expected=" or ".join(sorted(tasks)),
            got=task,
        )
    for name, head in able:
        if isinstance(head, RegionHead) if given_boxes else _finds_by_itself(head):
            return name, head
    if given_boxes:
        raise Unsupported(
            f"No head of model {model!r} classifies given boxes",
            field="boxes",
            mend="Leave them out, or ask a model with a region head, such as regionclip",
        )
    raise Unsupported(
        f"Model {model!r} finds no boxes by itself",
        field="boxes",
        expected="the boxes to classify",
        mend="Give boxes, or ask a model with proposals",
    )


def _finds_by_itself(head: Head) -> bool:
    return not isinstance(head, RegionHead) or head.proposes
