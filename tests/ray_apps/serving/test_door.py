"""What is cut off before any key is asked for; the server as a whole is in `test_deploy.py`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from ray_apps.serving.door import HEAD_BYTES, NO_UPGRADE, Door, Impatient
from ray_apps.serving.problem import PROBLEM_JSON

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

POST = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
HEADS = {
    "a path": (b"GET /", b"x" * 4096, True),
    "many lines": (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 700, True),
    "one line": (b"GET / HTTP/1.1\r\nA: ", b"x" * 4096, True),
    "lines behind a body": (POST + b"1\r\nx\r\n0\r\n", b"A: b\r\n" * 700, True),
    "a chunk's extension": (POST + b"1;", b"x" * 4096, True),
    "a body in chunks": (POST, b"1000\r\n%s\r\n" % (b"x" * 4096), False),
}


class Wire(asyncio.Transport):
    """A connection that takes whatever is written."""

    is_cut = False
    written = b""

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self.written += data

    def pause_reading(self) -> None:
        """Take no more requests."""

    def resume_reading(self) -> None:
        """Take them again."""

    def abort(self) -> None:
        """Cut the connection."""
        self.is_cut = True

    def close(self) -> None:
        """Take no more."""
        self.is_cut = True

    def is_closing(self) -> bool:
        """Say whether it was cut."""
        return self.is_cut


@pytest.mark.parametrize("case", HEADS)
async def test_a_head_without_an_end_is_cut_off(case: str) -> None:
    """The proxy would keep all of it: a gigabyte in the seconds that a head may take."""

    async def app(_scope: object, receive: Callable[[], Awaitable[object]], _send: object) -> None:
        await receive()

    first, rest, is_cut = HEADS[case]
    state, wire, connection = connect(app)
    connection.data_received(first)
    taken = 0
    while not wire.is_cut and taken < 4 * HEAD_BYTES:
        connection.data_received(rest)
        taken += len(rest)
    assert wire.is_cut == is_cut
    connection.connection_lost(ConnectionError())
    await asyncio.gather(*state.tasks)


@pytest.mark.parametrize("form", [b"GET /%s HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nA: %s\r\n\r\n"])
@pytest.mark.parametrize("is_over", [False, True])
async def test_a_head_that_comes_with_its_end_is_measured_too(form: bytes, is_over: bool) -> None:
    """A connection is read by up to 256 KiB at a time: a whole head may be there at once."""
    asked: list[object] = []

    async def app(_scope: object, receive: Callable[[], Awaitable[object]], _send: object) -> None:
        asked.append(wire.is_cut)
        await receive()
        await receive()  # the caller's going

    state, wire, connection = connect(app)
    connection.data_received(form % (b"x" * (HEAD_BYTES if is_over else HEAD_BYTES - 100)))
    await asyncio.sleep(0)
    assert asked == ([] if is_over else [False])
    assert wire.is_cut == is_over
    assert not wire.written
    connection.connection_lost(ConnectionError())
    await asyncio.gather(*state.tasks)


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize("announced", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
async def test_a_body_that_the_parser_would_lose_is_refused(announced: bytes) -> None:
    """As Java's client sends it: the parser reads no body, and what comes of it as a request."""
    asked: list[object] = []

    async def app(scope: object, *_: object) -> None:
        asked.append(scope)

    _, wire, connection = connect(app)
    connection.data_received(b"POST / HTTP/1.1\r\n%s%s\r\n\r\n" % (UPGRADE, announced))
    assert wire.is_closing()
    assert wire.written.startswith(b"HTTP/1.1 400")
    assert NO_UPGRADE.encode() in wire.written
    await asyncio.sleep(0)
    assert not asked


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_another_protocol_without_a_body_is_answered_in_this_one(protocol: bytes) -> None:
    """Uvicorn's library for web sockets answers without an id."""
    asked: list[dict[str, object]] = []

    async def app(scope: dict[str, object], *_: object) -> None:
        asked.append(scope)

    state, _, connection = connect(app, ws="auto")
    connection.data_received(
        b"GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n" % protocol
    )
    await asyncio.gather(*state.tasks)
    assert [(a["type"], a["path"]) for a in asked] == [("http", "/healthz")]
    connection.connection_lost(ConnectionError())


NO_REQUESTS = {
    "another protocol": b"\x16\x03\x01",
    "no version": b"GET / mine\r\n",
    "a header's name": b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\nA: b\r\nb c: d\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\n" + 2 * b"Content-Length: 5\r\n",
    "a chunk": POST.replace(b"\r\n", b"\r\nX-Request-Id: mine\r\n", 1) + b"no length\r\n",
    "an upgrade": b"POST / HTTP/1.1\r\nX-Request-Id: mine\r\n%sContent-Length: 5\r\n\r\n"
    % UPGRADE,
}


@pytest.mark.parametrize("case", NO_REQUESTS)
async def test_what_is_no_request_is_told_as_every_problem_is(case: str) -> None:
    """Uvicorn says so in plain text and without an id, which the interface promises."""
    state, wire, connection = connect(_waits)
    connection.data_received(NO_REQUESTS[case])
    head, _, body = wire.written.partition(b"\r\n\r\n")
    told = dict(line.split(b": ") for line in head.lower().split(b"\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 400 ")
    assert told[b"content-type"] == PROBLEM_JSON
    assert int(told[b"content-length"]) == len(body)
    is_given = case in ("another protocol", "no version")
    assert (told[b"x-request-id"] != b"mine") == is_given
    assert json.loads(body)["request_id"].encode() == told[b"x-request-id"]
    assert wire.is_closing()
    connection.connection_lost(ConnectionError())
    await asyncio.gather(*state.tasks)


async def test_what_is_no_request_is_no_answer_to_the_one_before() -> None:
    """A 400 that comes where an answer is awaited would be taken for it."""
    state, wire, connection = connect(_waits)
    connection.data_received(b"GET / HTTP/1.1\r\n\r\nno request\r\n\r\n")
    assert (wire.is_closing(), wire.written) == (True, b"")
    connection.connection_lost(ConnectionError())
    await asyncio.gather(*state.tasks)


async def test_an_id_is_not_given_to_what_comes_behind_its_request() -> None:
    async def app(_scope: object, _receive: object, send: Callable[..., Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    state, wire, connection = connect(app)
    connection.data_received(b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\n\r\n")
    await asyncio.gather(*state.tasks)
    connection.data_received(b"\x16\x03\x01")
    assert b"HTTP/1.1 400 " in wire.written
    assert b"mine" not in wire.written
    connection.connection_lost(ConnectionError())


async def _waits(_scope: object, receive: Callable[[], Awaitable[object]], _send: object) -> None:
    while await receive() != {"type": "http.disconnect"}:
        pass


def connect(
    app: Callable[..., object], *, ws: str = "none"
) -> tuple[ServerState, Wire, Impatient]:
    """Return a server's state, and a connection to it from both sides."""
    config = uvicorn.Config(app, http=Impatient, ws=ws, lifespan="off", log_config=None)
    config.load()
    state, wire = ServerState(), Wire()
    connection = Impatient(config=config, server_state=state, app_state={})
    connection.connection_made(wire)
    return state, wire, connection


@pytest.mark.parametrize(
    ("kind", "status"), [(b"text/plain; charset=utf-8", 503), (PROBLEM_JSON, 404)]
)
async def test_a_proxy_that_knows_no_path_yet_says_come_back(kind: bytes, status: int) -> None:
    """A client takes 404 for the last word: this model is not here."""

    async def proxy(scope: object, receive: object, send: Callable[..., Awaitable[None]]) -> None:
        headers = [(b"content-type", kind), (b"x-request-id", b"mine")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b"Path not found.", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    transport = httpx.ASGITransport(Door(proxy))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/v1/models/delay")
    assert (answer.status_code, answer.headers["x-request-id"]) == (status, "mine")
    if status == 503:
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["request_id"] == "mine"
    else:
        assert answer.text == "Path not found."


async def test_nobody_is_told_of_the_proxy_s_own_paths() -> None:
    async def proxy(scope: object, *_: object) -> None:
        pytest.fail(f"asked: {scope}")

    for path in ("*", "/-/routes"):
        sent: list[dict[str, object]] = []

        async def send(message: dict[str, object], sent: list[dict[str, object]] = sent) -> None:
            sent.append(message)

        await Door(proxy)({"type": "http", "path": path, "headers": []}, None, send)
        assert sent[0]["status"] == 404
        assert (b"content-type", PROBLEM_JSON) in sent[0]["headers"]


@pytest.mark.parametrize(
    "name", ["serve-multiplexed-model-id", "serve_multiplexed_model_id", "x_session_id",
             "X-Session-Id", "x-request-timeout-seconds", "x-request-disconnect-disabled"],
)  # fmt: skip
async def test_what_the_proxy_would_obey_does_not_reach_it(name: str) -> None:
    """It takes `-` and `_` for the same."""
    assert await _passed((name.lower().encode(), b"7"), (b"a", b"b")) == [(b"a", b"b")]


async def test_of_several_ids_one_reaches_the_proxy() -> None:
    """It puts the first into the answer's head, and the last into its body."""
    ids = [(b"x-request-id", value) for value in (b"one", b"two", b"no id")]
    assert await _passed(*ids, (b"a", b"b")) == [(b"a", b"b"), (b"x-request-id", b"two")]


async def _passed(*headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers that reach the proxy."""
    seen: list[tuple[bytes, bytes]] = []

    async def proxy(scope: dict[str, list[tuple[bytes, bytes]]], *_: object) -> None:
        seen.extend(scope["headers"])

    await Door(proxy)({"type": "http", "path": "/", "headers": list(headers)}, None, None)
    return seen
