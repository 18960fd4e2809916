"""A request's body, read whole within limits, and the answer, sent whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ray_apps.serving.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from ray_apps.serving.access import Limits

CLOSE = ((b"connection", b"close"),)


class ClientGone(Exception):
    """The client closed its connection; there is nobody to answer."""


async def read_body(
    headers: Iterable[tuple[bytes, bytes]],
    receive: Callable[[], Awaitable[Mapping[str, Any]]],
    limits: Limits,
) -> bytes:
    """Return a request's body.

    Raises:
        Problem: `too-large`, from its announced length or as it comes in; `too-slow`;
            `bad-request`, the announced length is not a number.
        ClientGone: the connection was closed before the end.
    """
    _check_announced(headers, limits)
    try:
        async with asyncio.timeout(limits.read_s):
            return await _read(receive, limits)
    except TimeoutError as error:
        raise Problem(
            "too-slow",
            f"The body must come within {limits.read_s:g} s.",
            headers=CLOSE,
        ) from error


async def _read(receive: Callable[[], Awaitable[Mapping[str, Any]]], limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limits.body_bytes:
            raise _too_large(limits)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_announced(headers: Iterable[tuple[bytes, bytes]], limits: Limits) -> None:
    announced = next((value for name, value in headers if name == b"content-length"), None)
    if announced is None:
        return
    if not announced.isdigit() or len(announced) > 18:
        raise Problem("bad-request", "Content-Length must be a number of bytes.", headers=CLOSE)
    if int(announced) > limits.body_bytes:
        raise _too_large(limits)


def _too_large(limits: Limits) -> Problem:
    return Problem(
        "too-large", f"The body must have at most {limits.body_bytes:,} bytes.", headers=CLOSE
    )


async def send_whole(
    send: Callable[[dict[str, Any]], Awaitable[None]],
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    """Send one complete answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
