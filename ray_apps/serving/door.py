"""What stands before Ray Serve's proxy, which acts on requests that no gate of ours has seen.

The proxy asks for middlewares by an import path in its environment, in its own process, before it
listens. It has no deadline for a request's head and takes one of any length, reads bodies of any
length while no replica answers, and obeys headers that switch its own deadline off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import uvicorn.config
from starlette.middleware import Middleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ray_apps.serving.access import Limits
from ray_apps.serving.body import send_whole
from ray_apps.serving.problem import PROBLEM_JSON, Problem
from ray_apps.serving.request_id import HEADER, new_id, told_id

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, MutableMapping

    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MIDDLEWARES = "ray_apps.serving.door.middlewares"
HEAD_S = 10.0
"""From a connection, or the first byte of a further request, to the end of the request's head."""
HEAD_BYTES = 1 << 16
"""Of a head, and of anything that is neither a head nor a body, such as what follows a chunk."""
OBEYED = frozenset(
    {
        b"x-request-timeout-seconds", b"x-request-disconnect-disabled",
        b"serve-multiplexed-model-id", b"x-session-id",
    }
)  # fmt: skip
"""Headers by which any caller may tell the proxy to wait for ever, or whom to ask; it takes `_`
in a name for `-`."""
ANNOUNCING = frozenset({b"content-length", b"transfer-encoding"})
NO_UPGRADE = (
    "A request with a body must not ask for another protocol (Upgrade); send it as HTTP/1.1."
)
MALFORMED = (
    "The request must be HTTP/1.1: a line of method, path and version, headers of a name and a "
    "value each, and a body of the length, or in the chunks, that they announce."
)
OWN_PATHS = "/-/"
NOT_FOUND = 404
AWAY = Problem(
    "away",
    "The server has only just begun, or ends; come back in 1 s.",
    headers=((b"retry-after", b"1"),),
)


def middlewares() -> list[Middleware]:
    """Return what every request goes through first; heads get a deadline, too."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Impatient.__name__}"
    return [Middleware(Door)]


class Door:
    """Takes from a request what would bind the proxy, and bounds its body."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._most = Limits().body_bytes

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        """Pass a request on."""
        path = scope["path"]
        # the proxy would tell anybody what it serves; OPTIONS may be for `*`
        if path.startswith(OWN_PATHS) or not path.startswith("/"):
            await _refuse(send, Problem("no-route", "There is nothing at this path."), new_id())
            return
        scope["headers"] = _passed(scope["headers"])
        await self._app(scope, self._bounded(receive), _answering(send))

    def _bounded(self, receive: Receive) -> Receive:
        """Return a receive that ends one byte after the longest body, which a replica refuses."""
        left = self._most + 1

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal left
            message = await receive()
            body = message.get("body", b"")
            if message["type"] == "http.request" and len(body) >= left:
                message = {**message, "body": body[:left], "more_body": False}
            left = max(0, left - len(body))
            return message

        return bounded


def _answering(send: Send) -> Send:
    """Return a send that tells callers to come back where the proxy knows no path.

    Every path is ours to answer: what it says in plain text is that the application is not there
    yet, or any more.
    """
    is_replaced = False

    async def answering(message: MutableMapping[str, Any]) -> None:
        nonlocal is_replaced
        if message["type"] == "http.response.start" and message["status"] == NOT_FOUND:
            headers = dict(message["headers"])
            if headers.get(b"content-type") != PROBLEM_JSON:
                is_replaced = True
                await _refuse(send, AWAY, headers.get(HEADER, b"").decode() or new_id())
        if not is_replaced:
            await send(message)

    return answering


async def _refuse(send: Send, problem: Problem, request_id: str) -> None:
    headers = [
        (b"content-type", PROBLEM_JSON),
        (HEADER, request_id.encode()),
        *problem.headers,
    ]
    await send_whole(send, problem.status, headers, problem.body(request_id))


class Impatient(HttpToolsProtocol):
    """Closes a connection whose next request's head does not come within `HEAD_S`, `HEAD_BYTES`.

    A connection that waits between two requests is closed by the keep-alive's own deadline.
    """

    _deadline: asyncio.TimerHandle | None = None
    _beside = 0
    """Bytes since the last head or part of a body."""

    def connection_made(self, transport: Any) -> None:
        """Wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def _should_upgrade(self) -> bool:
        """Take what asks for a web socket as the plain request that it is, too."""
        return False

    def data_received(self, data: bytes) -> None:
        """Wait for a head also where bytes came that begin none, and ended the keep-alive."""
        self._beside += len(data)
        super().data_received(data)
        if self._beside > HEAD_BYTES:
            self.transport.abort()
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._deadline is None and not self.transport.is_closing():
            self._wait()

    def on_message_begin(self) -> None:
        """Wait for the rest of a head."""
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Take the request, unless its head is too long: what came with its end counts, too.

        Raises:
            ValueError: it is too long; the parser gives up, and the connection is cut.
        """
        self._end_wait()
        self._beside = 0
        lines = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.url) + lines > HEAD_BYTES:
            self.transport.abort()
            raise ValueError(f"a head of over {HEAD_BYTES:,} bytes")
        has_body = any(name in ANNOUNCING and value != b"0" for name, value in self.headers)
        if has_body and self.parser.should_upgrade():
            # the parser would take it for a request without a body, and the body for the next one
            self.send_400_response(NO_UPGRADE)
            return
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, as every other problem is told, and close the connection.

        Where an earlier answer is not there yet, it would be taken for that one.
        """
        if self.transport.is_closing():
            return  # it was refused before the parser gave up, too
        if self._answers_another():
            self.transport.abort()
            return
        # before the first head there are no headers, and behind an answer those of its request
        is_new = self.headers is not None and (
            self.cycle is None
            or not self.cycle.response_complete
            or self.cycle.scope is not self.scope
        )
        request_id = (told_id(self.headers) if is_new else None) or new_id()
        detail = msg if msg == NO_UPGRADE else MALFORMED
        body = Problem("bad-request", detail).body(request_id)
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: %s\r\n%s: %s\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%s"
            % (PROBLEM_JSON, HEADER, request_id.encode(), len(body), body)
        )
        self.transport.close()

    def _answers_another(self) -> bool:
        """Say whether the next bytes written are of a request before the one that is read."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        return bool(self.pipeline) or self.cycle.response_started or not self.cycle.more_body

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, which the application bounds."""
        self._beside = 0
        super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._end_wait()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._end_wait()
        self._deadline = self.loop.call_later(HEAD_S, self.transport.abort)

    def _end_wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _passed(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that the proxy may have, with one id of the request at most."""
    told = told_id(headers)
    kept = [(k, v) for k, v in headers if k != HEADER and k.replace(b"_", b"-") not in OBEYED]
    return kept if told is None else [*kept, (HEADER, told.encode())]
