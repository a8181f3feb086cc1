"""Which of a model's heads answers a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from ovperception.errors import Unsupported
from ovperception.head import Head, RegionHead, Task

if TYPE_CHECKING:  # a server of stubs knows no torch
    from torch import nn

__all__ = ["cannot_answer", "choose_head", "without_masks"]


def choose_head(
    model: str,
    heads: Mapping[str, nn.Module],
    task: Task,
    *,
    given_boxes: bool = False,
    need_masks: bool = False,
) -> tuple[str, Head]:
    """The name of the first head that answers a task, and the head.

    Args:
        model: the model's name, for what is said where there is none.
        heads: name -> head, in order.
        task: what is asked.
        given_boxes: whether the boxes are given, and only their classes asked for.
        need_masks: whether boxes alone are no answer.

    Raises:
        Unsupported: none does, or none without boxes, or none with them, or without masks.
    """
    known = [(name, cast("Head", head)) for name, head in heads.items()]
    able = [(name, head) for name, head in known if task in head.tasks]
    tasks = {task for _, head in known for task in head.tasks}
    if not able:
        raise cannot_answer(model, task, tasks)
    for name, head in able:
        if isinstance(head, RegionHead) if given_boxes else _finds_by_itself(head):
            if need_masks and isinstance(head, RegionHead) and not head.segments:
                raise without_masks(model, tasks)
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


def cannot_answer(model: str, task: Task, tasks: Iterable[Task]) -> Unsupported:
    """What is said of a task that a model has no head for; `tasks` are those that it has."""
    return Unsupported(
        f"Model {model!r} cannot answer {task!r}",
        field="task",
        expected=" or ".join(sorted(tasks)),
        got=task,
        mend="Ask for that, or ask another model",
    )


def without_masks(model: str, tasks: Iterable[Task]) -> Unsupported:
    """What is said where masks are asked of a model that gives boxes alone; `tasks` are those that it has."""
    return Unsupported(
        f"Model {model!r} gives boxes without masks",
        field="task",
        expected=" or ".join(sorted(tasks)) + ", without masks",
        mend="Ask for boxes, or a model whose head makes masks",
    )


def _finds_by_itself(head: Head) -> bool:
    return not isinstance(head, RegionHead) or head.proposes
