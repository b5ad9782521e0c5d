"""One line of JSON for each request: what was asked, by which key, how it ended and how long it took.

No vector, no name, no address with an id in it, and of an error its type and place alone: messages quote values.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

# What a record has by itself; the rest came in `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON: time, level, event, and whatever `extra` it came with."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        row: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        row |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info and record.exc_info[1]:
            row |= describe_exception(record.exc_info[1])
        return json.dumps(row, default=str)


def describe_exception(error: BaseException) -> dict[str, Any]:
    """Type and place of an error, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    return {"error": type(error).__name__, "where": [f"{f.filename}:{f.lineno} {f.name}" for f in frames[-8:]]}


class RequestLog:
    """ASGI middleware: logs each request, and answers 500 in JSON to what nobody caught."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, extra = time.perf_counter(), 0, {}

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            extra = describe_exception(error)
            if not status:
                await JSONResponse({"detail": "the server failed; its log says where"}, 500)(scope, receive, watch)
        route = scope.get("route")
        extra |= {
            "method": scope["method"],
            # The template and not the address, which may hold a person's id.
            "route": getattr(route, "path", None),
            "status": status,
            "milliseconds": round((time.perf_counter() - started) * 1000, 1),
            "key": scope.get("state", {}).get("key_id"),
        }
        log.log(logging.ERROR if status >= 500 else logging.INFO, "request", extra=extra)


def set_up_logging(level: str = "INFO") -> None:
    """Send everything that is logged, uvicorn's own lines included, to standard error as lines of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
