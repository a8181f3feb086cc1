"""What a recipe says of the loop, whatever is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ovperception.errors import InvalidParameter
from ovperception.training.gradients import GradientClip

__all__ = ["EvaluationSettings", "LoopSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """Evaluation during training.

    Attributes:
        every: steps between two evaluations; 0: none. The last step is always evaluated.
        by: entry point of the group ``ovperception.training_evaluators`` that does it; empty: the losses on
            held-out batches.
        metric: the number that says which state is best, as the evaluator names it.
        higher: whether more of it is better.
        patience: evaluations without a better one after which the run ends; 0: it never ends early.
        images: how many are evaluated; 0: all.
    """

    every: int = 0
    by: str = ""
    metric: str = "loss"
    higher: bool = False
    patience: int = 0
    images: int = 0

    def __post_init__(self) -> None:
        """Refuse negative counts."""
        for name in ("every", "patience", "images"):
            if getattr(self, name) < 0:
                raise InvalidParameter(
                    f"{name} counts from 0", field=f"evaluation.{name}", got=getattr(self, name)
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """How the loop goes about it.

    Attributes:
        clip: what is done to the gradients.
        accumulate: parts that a step's batch is seen in, one after the other.
        ema: decay of a moving average of the weights, which is then what is evaluated and shipped; 0: none.
        non_finite: what happens when a loss or a gradient is not finite: the step is left out (``skip``) or
            the run ends (``stop``). Either way the batch is written to ``problems.jsonl``.
        skips: steps that may be left out before the run ends all the same.
        sharded: whether several processes hold a share each of the weights, gradients and moments (FSDP), for
            a head that is too large to be held whole by each of them; one process holds everything.
        save_every: steps between two checkpoints.
        log_every: steps whose mean makes a line of ``log.jsonl``.
        deterministic: whether torch uses deterministic algorithms alone; a CPU needs it for nothing here, a
            GPU does for equal bits after a resume.
        tensorboard: whether events are written to ``tensorboard/``, where the package is installed.
        wandb: name of a Weights & Biases project; empty: none.
        evaluation: evaluation during training.
    """

    clip: GradientClip = field(default_factory=GradientClip)
    accumulate: int = 1
    ema: float = 0.0
    non_finite: Literal["skip", "stop"] = "skip"
    skips: int = 20
    sharded: bool = False
    save_every: int = 200
    log_every: int = 20
    deterministic: bool = False
    tensorboard: bool = True
    wandb: str = ""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def __post_init__(self) -> None:
        """Refuse counts that are none."""
        for name in ("accumulate", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise InvalidParameter(f"{name} counts from 1", field=name, got=getattr(self, name))
        if not 0 <= self.ema < 1:
            raise InvalidParameter(
                "The decay of the average must lie between 0 and 1", field="ema", got=self.ema
            )
        if self.non_finite not in ("skip", "stop"):
            raise InvalidParameter(
                "No such answer to a number that is not finite",
                field="non_finite",
                expected="skip or stop",
                got=self.non_finite,
            )
