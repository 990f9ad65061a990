"""Logging of the operator's process: one line per record, as JSON in a cluster, as text for people."""

from __future__ import annotations

import json
import logging
import sys
import time


class JsonFormatter(logging.Formatter):
    """One JSON object per line with time (RFC 3339, UTC), level, logger, message and, if any, error."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def configure_logging(log_format: str, log_level: str) -> None:
    """Log to standard error. Replaces handlers that libraries have set up."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    # One line per request or per event is too much unless asked for.
    for chatty in ("aiohttp.access", "asyncio", "kopf.activities", "kopf.objects", "kopf._core"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
    # It warns that signals are not its business in a thread, which is what we want.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
