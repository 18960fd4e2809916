"""X1, X2, X6, X12: the gate before every route, walked from the route table."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import orjson
import pytest

from arclight.errors import RefusedError
from ray_apps.serving.access import Access, check_binding
from ray_apps.serving.api_keys import ROLES, ApiKeys, make_key
from ray_apps.serving.app import ROUTES, App, Route
from tests.ray_apps.serving.small_model import ROW, FakeScorer, client, make_app, make_bundle

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.anyio

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MADE = {role: make_key(role, role, expires=NOW + dt.timedelta(days=1)) for role in ROLES}
ENDED = make_key("ended", "admin", expires=NOW)
KEYS = ApiKeys(keys=(*(key for key, _ in MADE.values()), ENDED[0]))
ACCESS = Access(keys=KEYS, clock=lambda: NOW)
INFER = {
    "inputs": [
        {"name": name, "shape": [1], "datatype": kind, "data": [ROW[name]]}
        for name, kind in {
            "a_bool": "BOOL", "a_int8": "INT8", "a_int64": "INT64", "a_float32": "FP32",
            "a_float64": "FP64", "a_string": "BYTES", "a_date": "BYTES", "a_timestamp": "BYTES",
        }.items()
    ]
}  # fmt: skip


def app(access: Access = ACCESS) -> App:
    return make_app(FakeScorer(make_bundle()), access=access)


async def ask(route: Route, version: str = "", **headers: str) -> httpx.Response:
    path = route.path.replace("{name}", "delay").replace("{version}", version)
    body = orjson.dumps(INFER if "infer" in path else ROW) if route.method == "POST" else None
    headers = {"content-type": "application/json", **headers}
    async with client(app()) as calls:
        return await calls.request(route.method, path, content=body, headers=headers)


def bearer(secret: str) -> str:
    return f"Bearer {secret}"


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", bearer("arc_admin_" + "0" * 64), bearer(ENDED[1]),
     MADE["admin"][1], "Basic " + MADE["admin"][1]],
    ids=["none", "empty", "no secret", "blank", "wrong", "ended", "no scheme", "basic"],
)  # fmt: skip
async def test_no_route_answers_without_a_valid_key(route: Route, given: str | None) -> None:
    answer = await ask(route, **({} if given is None else {"authorization": given}))
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["status"] == 401


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
@pytest.mark.parametrize("role", ROLES)
async def test_every_route_asks_for_its_role(route: Route, role: str) -> None:
    answer = await ask(route, authorization=bearer(MADE[role][1]))
    enough = ROLES.index(role) >= ROLES.index(route.role)
    assert answer.status_code == (200 if enough else 403), answer.text


async def test_a_viewer_may_look_but_not_predict() -> None:
    roles = {route.path: route.role for route in ROUTES}
    assert roles["/v1/models/{name}:predict"] == "submitter"
    assert roles["/v2/models/{name}{version}/infer"] == "submitter"


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/openapi.json", "/metrics", "/v1/models/../../etc/passwd", "/v1/models/a%2fb",
     "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/v1/models/%252e%252e%252f", "//etc/passwd",
     "/v1/models/delay%00:predict", "/v1/models/delay%23", "/v1/models/DELAY", "/healthz/",
     "/v1/models/delay%0a", "/v2/models/delay/versions/-1"],
)  # fmt: skip
async def test_other_paths_are_nowhere_and_need_a_key_to_learn_it(path: str) -> None:
    async with client(app()) as calls:
        assert (await calls.get(path)).status_code == 401
        key = {"authorization": bearer(MADE["admin"][1])}
        assert (await calls.get(path, headers=key)).status_code == 404


@pytest.mark.parametrize(
    ("header", "value"),
    [("host", "evil.example"), ("host", "127.0.0.1.evil.example"), ("host", "127.0.0.1@evil"),
     ("host", ""), ("host", "localhost:8000:1"), ("host", "127.0.0.2"),
     ("origin", "https://evil.example"), ("origin", "null"), ("origin", "http://localhost.evil"),
     ("origin", "file://")],
)  # fmt: skip
@pytest.mark.parametrize("open_to_all", [True, False])
async def test_foreign_hosts_and_origins_are_refused(
    header: str, value: str, open_to_all: bool
) -> None:
    headers = {"authorization": bearer(MADE["admin"][1]), header: value}
    async with client(app(Access() if open_to_all else ACCESS)) as calls:
        answer = await calls.get("/healthz", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:9"])
async def test_own_hosts_are_served(host: str) -> None:
    async with client(app(Access())) as calls:
        headers = {"host": host, "origin": f"http://{host}"}
        assert (await calls.get("/healthz", headers=headers)).status_code == 200


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "HEAD", "BREW"])
async def test_unlisted_methods_are_refused(method: str) -> None:
    async with client(app()) as calls:
        answer = await calls.request(method, "/healthz")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
async def test_each_path_has_its_own_methods(route: Route) -> None:
    other = "GET" if route.method == "POST" else "POST"
    path = route.path.replace("{name}", "delay").replace("{version}", "/versions/3")
    async with client(app(Access())) as calls:
        answer = await calls.request(other, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == route.method


async def test_a_deciding_header_sent_twice_is_refused() -> None:
    async with client(app()) as calls:
        pairs = [("authorization", bearer(MADE["viewer"][1]))] * 2
        assert (await calls.get("/healthz", headers=pairs)).status_code == 400


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.5", "::", "example.org"])
@pytest.mark.parametrize(("tls", "keys"), [(False, False), (True, False), (False, True)])
def test_beyond_loopback_needs_tls_and_keys(host: str, tls: bool, keys: bool) -> None:
    with pytest.raises(RefusedError, match="must not be listened on without") as caught:
        check_binding(host, has_tls=tls, has_keys=keys)
    assert ("--tls-cert" in str(caught.value)) == (not tls)
    assert ("--keys" in str(caught.value)) == (not keys)


def test_loopback_or_both_may_listen() -> None:
    check_binding("127.0.0.1", has_tls=False, has_keys=False)
    check_binding("0.0.0.0", has_tls=True, has_keys=True)
