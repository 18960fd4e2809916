"""The HTTP application: one ASGI callable, one table of routes, one gate before all of them."""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from arclight.errors import printable
from ray_apps.serving.access import Access, Limits, hold_role, method_refused
from ray_apps.serving.arrow_stream import ARROW_STREAM
from ray_apps.serving.body import ClientGone, read_body, send_whole
from ray_apps.serving.endpoint import JSON, Endpoint, Reply
from ray_apps.serving.problem import PROBLEM_JSON, Problem
from ray_apps.serving.request_id import HEADER, new_id, told_id
from ray_apps.serving.tensors import model_metadata

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from ray_apps.serving.api_keys import Role

logger = logging.getLogger(__name__)

INLINE_BYTES = 4096
"""A body up to this size is a row or a few: answered at once; a thread costs more than that."""
THREADS = 2
_NAME = r"(?P<name>[a-z0-9][a-z0-9-]{0,62})"
_VERSION = r"(?:/versions/(?P<version>[0-9]{1,9}))?"


@dataclass(frozen=True)
class Request:
    """What a handler gets: a route's parts and the whole body."""

    request_id: str
    content_type: bytes
    body: bytes
    parts: Mapping[str, str | None]


@dataclass(frozen=True)
class Route:
    """One line of the table: a method, a path, the role it needs and who answers."""

    method: str
    path: str
    role: Role
    handler: str
    pattern: re.Pattern[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        text = re.escape(self.path).replace(r"\{name\}", _NAME).replace(r"\{version\}", _VERSION)
        object.__setattr__(self, "pattern", re.compile(text))


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/models/{name}:predict", "submitter", "predict"),
    Route("GET", "/v1/models/{name}", "viewer", "describe"),
    Route("GET", "/v1/models", "viewer", "list_models"),
    Route("GET", "/healthz", "viewer", "live"),
    Route("GET", "/v2", "viewer", "server"),
    Route("GET", "/v2/health/live", "viewer", "live"),
    Route("GET", "/v2/health/ready", "viewer", "ready"),
    Route("GET", "/v2/models/{name}{version}", "viewer", "metadata"),
    Route("GET", "/v2/models/{name}{version}/ready", "viewer", "model_ready"),
    Route("POST", "/v2/models/{name}{version}/infer", "submitter", "infer"),
)


class App:
    """Serves loaded models; holds no state of a request beyond it."""

    def __init__(
        self, endpoints: Mapping[str, Endpoint], *, access: Access, limits: Limits
    ) -> None:
        self._endpoints = endpoints
        self._access = access
        self._limits = limits
        self._busy = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="predict")

    async def __call__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Mapping[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one connection's scope: a request, or the start and end of the server."""
        if scope["type"] == "lifespan":
            await self._live_and_end(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Mapping[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        headers = [(b"cache-control", b"no-store")]
        told = told_id(scope["headers"])  # the proxy gives one, and puts it into the answer
        request_id = told or new_id()
        if told is None:
            headers.append((HEADER, request_id.encode()))
        try:
            reply = await self._reply(scope, receive, request_id)
        except ClientGone:
            return
        except Problem as problem:
            if problem.status >= 500 and problem.slug != "overloaded":
                logger.error("request %s: %s", request_id, problem.detail)
            headers += [(b"content-type", PROBLEM_JSON), *problem.headers]
            await send_whole(send, problem.status, headers, problem.body(request_id))
            return
        except Exception:  # noqa: BLE001 -- the boundary of a request; logged with its traceback
            logger.error("request %s failed\n%s", request_id, _traceback())
            failed = Problem("internal", "The request failed; its id is in the server's log.")
            headers.append((b"content-type", PROBLEM_JSON))
            await send_whole(send, failed.status, headers, failed.body(request_id))
            return
        headers.append((b"content-type", reply.content_type))
        await send_whole(send, 200, headers, reply.body)

    async def _reply(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Mapping[str, Any]]],
        request_id: str,
    ) -> Reply:
        """Gate, then route, then role, then limits, then the handler."""
        key = self._access.admit(scope)
        route, parts = find_route(scope["method"], scope["path"])
        hold_role(key, route.role)
        _hold_unpacked(scope["headers"])
        if self._busy >= self._limits.concurrent:
            wait = str(self._limits.retry_after_s)
            raise Problem(
                "overloaded",
                f"This replica works on {self._busy} requests; come back in {wait} s.",
                headers=((b"retry-after", wait.encode()),),
            )
        self._busy += 1
        try:
            body = await read_body(scope["headers"], receive, self._limits)
            content_type = next((v for k, v in scope["headers"] if k == b"content-type"), b"")
            request = Request(request_id, _media_type(content_type), body, parts)
            reply: Reply = await getattr(self, route.handler)(request)
            return reply
        finally:
            self._busy -= 1

    async def _live_and_end(
        self,
        receive: Callable[[], Awaitable[Mapping[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self._threads.shutdown(wait=False, cancel_futures=True)
                await send({"type": "lifespan.shutdown.complete"})
                return

    # handlers, by the names in ROUTES

    async def predict(self, request: Request) -> Reply:
        """Answer rows in JSON or in an Arrow stream."""
        endpoint = self._endpoint(request)
        if request.content_type == ARROW_STREAM:
            return await self._run(endpoint.answer_stream, request, inline=False)
        _hold_json(request)
        return await self._run(endpoint.answer_rows, request)

    async def infer(self, request: Request) -> Reply:
        """Answer Open Inference tensors."""
        _hold_json(request)
        return await self._run(self._endpoint(request).answer_tensors, request)

    async def describe(self, request: Request) -> Reply:
        """Say what a model takes and gives."""
        bundle = self._endpoint(request).bundle
        return _json(
            {
                "model": bundle.name,
                "version": bundle.number,
                "task": bundle.task,
                "inputs": [column.model_dump() for column in bundle.signature.inputs],
                "outputs": [column.model_dump() for column in bundle.signature.outputs],
                "classes": bundle.plan.classes,
                "threshold": bundle.threshold,
                "dataset": bundle.dataset,
            }
        )

    async def list_models(self, _request: Request) -> Reply:
        """Name the models served here."""
        served = [endpoint.bundle for endpoint in self._endpoints.values()]
        return _json({"models": [{"model": b.name, "version": b.number} for b in served]})

    async def live(self, _request: Request) -> Reply:
        """Say that the server lives."""
        return _json({"live": True})

    async def ready(self, _request: Request) -> Reply:
        """Say that every model is loaded: a server without one never gets this far."""
        return _json({"ready": True})

    async def server(self, _request: Request) -> Reply:
        """Name the server, for Open Inference clients."""
        return _json({"name": "arclight", "version": "1", "extensions": []})

    async def metadata(self, request: Request) -> Reply:
        """Say what a model takes and gives, as Open Inference tensors."""
        return _json(model_metadata(self._endpoint(request).bundle))

    async def model_ready(self, request: Request) -> Reply:
        """Say that a model is loaded."""
        return _json({"name": self._endpoint(request).bundle.name, "ready": True})

    def _endpoint(self, request: Request) -> Endpoint:
        name, version = request.parts["name"], request.parts.get("version")
        endpoint = self._endpoints.get(str(name))
        if endpoint is None:
            raise Problem("no-model", f"Model '{name}' is not served here.")
        if version is not None and int(version) != endpoint.bundle.number:
            served = endpoint.bundle.number
            raise Problem("no-model", f"Of model '{name}' version {served} is served here.")
        return endpoint

    async def _run(
        self, work: Callable[[bytes, str], Reply], request: Request, *, inline: bool = True
    ) -> Reply:
        """Answer a small body at once, a large one in a thread, so that health checks go on."""
        if inline and len(request.body) <= INLINE_BYTES:
            return work(request.body, request.request_id)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, request.body, request.request_id)


def find_route(method: str, path: str) -> tuple[Route, Mapping[str, str | None]]:
    """Return the route of a path and its named parts.

    Raises:
        Problem: `no-route`, or `method` when the path is there for another one.
    """
    allowed = []
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match is not None:
            if route.method == method:
                return route, match.groupdict()
            allowed.append(route.method)
    if allowed:
        raise method_refused(tuple(allowed))
    raise Problem("no-route", "See docs/http.md for what is here.")


def _traceback() -> str:
    """Return the traceback with what a caller may have put in it made harmless.

    No line begins where a log's own lines do, and nothing in one can steer a terminal.
    """
    lines = traceback.format_exc().splitlines()
    return "\n".join(f"  {printable(line, limit=1000)}" for line in lines)


def _media_type(header: bytes) -> bytes:
    return header.partition(b";")[0].strip().lower()


def _hold_unpacked(headers: Iterable[tuple[bytes, bytes]]) -> None:
    codings = {value.strip().lower() for name, value in headers if name == b"content-encoding"}
    if codings - {b"", b"identity"}:
        raise Problem(
            "media-type",
            "Send the body as it is, without Content-Encoding.",
            headers=((b"accept-encoding", b"identity"),),
        )


def _hold_json(request: Request) -> None:
    if request.content_type != JSON:
        raise Problem(
            "media-type",
            "Send 'Content-Type: application/json', or application/vnd.apache.arrow.stream to "
            "':predict'.",
        )


def _json(document: dict[str, Any]) -> Reply:
    return Reply(JSON, orjson.dumps(document))
