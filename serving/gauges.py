"""What a server holds at this moment, by name and labels."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from serving.engine import Engine

__all__ = ["Gauges", "read_gauges"]

Labels = tuple[tuple[str, str], ...]
# Such as ("kept_scene_bytes", ()) or ("queue_depth", (("queue", "images"),)).
Gauges = Mapping[tuple[str, Labels], float]


def read_gauges(engine: Engine) -> Gauges:
    """Queues, budgets, kept scenes and device memory."""
    found: dict[tuple[str, Labels], float] = {}
    for what, used in engine.admission.used.items():
        found["in_work", (("what", what),)] = used
        found["in_work_limit", (("what", what),)] = engine.admission.limits[what]
    for reason, count in dict(engine.admission.refused).items():
        found["refused", (("reason", reason),)] = count
    for queue, depth in engine.worker.depths().items():
        found["queue_depth", (("queue", queue),)] = depth
    counters = engine.worker.counters
    for what, count in (
        ("passes", counters.passes),
        ("images", counters.images),
        ("questions", counters.questions),
        ("out_of_memory", counters.out_of_memory),
    ):
        found["worker_done", (("what", what),)] = count
    seen: set[str] = set()
    for model in engine.models:
        if model.trunk in seen:  # which counts for both
            continue
        seen.add(model.trunk)
        for where, count in model.text_counts.items():
            found["text_cache_texts", (("model", model.name), ("found", where))] = count
    found["kept_scenes", ()] = len(engine.kept)
    found["kept_scene_bytes", ()] = engine.kept.nbytes
    return found | dict(_device_memory())


def _device_memory() -> Iterator[tuple[tuple[str, Labels], float]]:
    torch = sys.modules.get("torch")  # a server of models without torch does not load it for this
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return
    for device in range(torch.cuda.device_count()):
        for kind, read in (
            ("allocated", torch.cuda.memory_allocated),
            ("reserved", torch.cuda.memory_reserved),
        ):
            labels = (("device", f"cuda:{device}"), ("kind", kind))
            yield ("device_memory_bytes", labels), float(read(device))
