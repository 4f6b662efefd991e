"""How a process of the service writes its log: text for people, or a JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Literal

from timedb.contract.times import format_time

__all__ = ["JsonLines", "log_to_stderr"]

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_REQUEST_ID = re.compile(r" request_id=([A-Za-z0-9._,-]+)")


class JsonLines(logging.Formatter):
    """``{"time", "level", "logger", "message", "request_id"?, "error"?}``; ``error`` is a traceback.

    ``request_id`` is what the message says of it, which it then no longer does.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line = {
            "time": format_time(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if found := _REQUEST_ID.search(message):
            line["request_id"] = found[1]
            message = message[: found.start()] + message[found.end() :]
        line["message"] = message
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def log_to_stderr(level: str, form: Literal["text", "json"]) -> None:
    """Send this process's log to standard error."""
    # Lines say nothing of where in the code they come from, so it need not be found out for each.
    logging._srcfile = None  # as the HOWTO of logging has it, under "Optimization"
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
