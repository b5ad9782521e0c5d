"""The server's process: a socket that is open before anybody is told of it, and uvicorn behind it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from threadpoolctl import threadpool_limits

from ffem_jax.errors import FfemError

# Requests under way at once; more are answered with 503 at once instead of waiting for memory.
MAX_CONCURRENCY = 256
STOP_SECONDS = 10


class ListenError(FfemError):
    """An address that cannot be listened at. The message is one line."""


def listen(app: FastAPI, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve `app` until the process is asked to stop; on_ready(address) once requests are taken.

    port 0 takes a free one. Raises ListenError where host and port cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise ListenError(
            f"--host {host} --port {port}: {getattr(error, 'strerror', None) or error}; choose another"
        ) from None
    # Requests run side by side; products that each take every core as well get in each other's way.
    with listener, threadpool_limits(1, user_api="blas"):
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        on_ready(f"http://{shown}:{listener.getsockname()[1]}")
        config = uvicorn.Config(
            app,
            # Addresses hold people's ids; RequestLog writes what may be written.
            access_log=False,
            log_config=None,
            server_header=False,
            limit_concurrency=MAX_CONCURRENCY,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
