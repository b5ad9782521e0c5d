"""What stands before a request: a body of a few KB that comes in time, a key with the scope, a rate that is kept."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Annotated

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from sqlalchemy import Engine
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ffem_jax.errors import FfemError
from ffem_jax.serve.keys import ApiKey, check_key

BODY_SECONDS = 10.0


class GuardError(FfemError):
    """A setting of a guard that means nothing. The message is one line."""


def compute_body_limit(length: int) -> int:
    """Bytes that a request may have: 32 for each of a vector's `length` numbers, and 2,048 for the rest."""
    return 32 * length + 2048


class BodyLimit:
    """ASGI middleware: reads the body, at most `limit` bytes of it and for at most `seconds`, before it is parsed.

    More is answered with 413 and slower with 408, announced by Content-Length or not.
    """

    def __init__(self, app: ASGIApp, limit: int, seconds: float = BODY_SECONDS):
        self.app, self.limit, self.seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        body: bytes | None
        try:
            async with asyncio.timeout(self.seconds):
                too_much = announced.isdigit() and int(announced[:20]) > self.limit
                body = None if too_much else await self._read(receive)
        except TimeoutError:
            await _refuse(408, f"the body did not come within {self.seconds:g} seconds")(scope, receive, send)
            return
        if body is None:
            await _refuse(413, f"a request has at most {self.limit:,} bytes")(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or None where it is too long. What a client that left has sent is its body."""
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            part = message.get("body", b"")
            size += len(part)
            if size > self.limit:
                return None
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)


def _refuse(status: int, detail: str) -> JSONResponse:
    # The rest of the body is still under way: nothing else can come over this connection.
    return JSONResponse({"detail": detail}, status, {"Connection": "close"})


class RateLimit:
    """So many requests per key in a moving window, counted in this process's memory."""

    def __init__(self, rate: str):
        """rate: such as `120/minute`. Raises GuardError for another form."""
        try:
            self.item: RateLimitItem = parse(rate)
        except ValueError:
            raise GuardError(f"--rate {rate}: give requests and a time, such as 120/minute or 10/second") from None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def hit(self, key_id: str) -> int | None:
        """Count a request. None where it is within the rate, else the seconds to wait."""
        if self._limiter.hit(self.item, key_id):
            return None
        return max(1, math.ceil(self._limiter.get_window_stats(self.item, key_id).reset_time - time.time()))


_bearer = HTTPBearer(auto_error=False, description="an API key, as `ffem serve keys add` prints it")


def require_scope(scope: str, engine: Engine, rate: RateLimit) -> Callable[..., ApiKey]:
    """A dependency that gives the request's key: 401 without a valid one, 403 without the scope, 429 over the rate."""

    def authorise(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> ApiKey:
        key = check_key(engine, credentials.credentials) if credentials else None
        if key is None:
            detail = "give a valid API key: Authorization: Bearer KEY"
            raise HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})
        request.state.key_id = key.key_id
        wait = rate.hit(key.key_id)
        if wait is not None:
            detail = f"this key may ask {rate.item}; wait {wait} s"
            raise HTTPException(429, detail, {"Retry-After": str(wait)})
        if scope not in key.scopes:
            raise HTTPException(403, f"this key has no scope {scope}; it has {', '.join(key.scopes)}")
        return key

    return authorise
