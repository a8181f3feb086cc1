"""Logs for people or for machines: a line a call, with sizes and times, without pixels and without words."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from serving.telemetry import STAGES, CallRecord

__all__ = ["AccessLog", "JSONFormatter", "set_up_logs"]

_access = logging.getLogger("serving.access")


class JSONFormatter(logging.Formatter):
    """One JSON object a line; what a record brings as `fields` becomes keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(form: str, level: str) -> None:
    """Send the logs of this process to stderr.

    Args:
        form: ``text`` or ``json``.
        level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JSONFormatter() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class AccessLog:
    """One line for every call, at level info; a call that is our fault is an error."""

    def observe(self, record: CallRecord) -> None:
        """Write the line."""
        level = logging.ERROR if record.code == "INTERNAL" else logging.INFO
        if record.is_message or not _access.isEnabledFor(level):
            return
        name = record.method.rpartition("/")[2]
        text = f"{name} {record.code} {record.duration_ms:.1f} ms {record.request_id}"
        _access.log(level, text, extra={"fields": _fields(record)})


def _fields(record: CallRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "method": record.method,
        "request_id": record.request_id,
        "client": record.client,
        "code": record.code,
        "reason": record.reason,
        "field": record.field,
        "duration_ms": round(record.duration_ms, 3),
        "request_bytes": record.request_bytes,
        "reply_bytes": record.reply_bytes,
    }
    if record.replies:
        info = record.replies[0]
        fields |= {"model": info.model.name, "vocabulary": info.vocabulary.content_hash[:16]}
        fields |= {"width": info.image.width, "height": info.image.height}
        fields |= {"batch_size": info.timing.batch_size, "results": len(record.replies)}
        fields["timing_ms"] = {
            stage: round(getattr(info.timing, name), 3)
            for stage, name in STAGES.items()
            if getattr(info.timing, name)
        }
    return {name: value for name, value in fields.items() if value not in ("", 0, None)}
