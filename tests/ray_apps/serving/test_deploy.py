"""One real server for all: answers over sockets, what listens, what is refused, what is left."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import orjson
import psutil
import pytest

from arclight.bundle import BundleFile
from arclight.catalog import Catalog
from arclight.errors import IntegrityError, MissingError, RefusedError, SpecError
from arclight.spec import Replicas
from arclight.store import open_store, sha256_file
from cluster.profiles import Profile, RayPlace
from ray_apps.serving import deploy
from ray_apps.serving.api_keys import ApiKeys
from ray_apps.serving.deploy import Binding, find_port, pin, served
from ray_apps.serving.door import HEAD_S
from ray_apps.serving.problem import PROBLEM_JSON
from tests.ray_apps.serving.small_model import ROW, publish_small_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arclight.bundle import ModelBundle
    from tests.ray_apps.make_dataset import Made

PREDICT = "/v1/models/delay:predict"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A store with one small model."""
    catalog = Catalog(open_store(tmp_path_factory.mktemp("serving") / "store"))
    publish_small_model(catalog)
    return catalog


@pytest.fixture(scope="module")
def url(catalog: Catalog, small_profile: Profile) -> Iterator[str]:
    """The server; when it is gone, nothing of it is left."""
    before = set(psutil.Process().children(recursive=True))
    with served(catalog, ["delay"], profile=small_profile, port=0) as url:
        yield url
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left


@pytest.mark.ray
def test_the_golden_rows_come_back_over_http(catalog: Catalog, url: str) -> None:
    golden = catalog.model("delay").golden
    answer = httpx.post(url + PREDICT, json={"rows": golden.rows})
    assert answer.status_code == 200
    scores = [p["score"] for p in answer.json()["predictions"]]
    assert scores == pytest.approx([s[0] for s in golden.scores], abs=1e-12)
    assert answer.json()["version"] == 1


@pytest.mark.ray
def test_unseen_levels_and_far_numbers_are_scored(url: str) -> None:
    rows = [
        {**ROW, "a_string": "no such airport"},
        dict.fromkeys(ROW),
        {**ROW, "a_float64": 1e300},
        {**ROW, "a_float64": -1e300, "a_string": ""},
    ]
    answer = httpx.post(url + PREDICT, json={"rows": rows})
    assert answer.status_code == 200
    assert all(0 < p["score"] < 1 for p in answer.json()["predictions"])
    # the small model knows EWR and JFK, and numbers around 0
    assert answer.json()["unusual"] == {
        "a_float64": {"missing": 1, "far": 2},
        "a_string": {"missing": 1, "unseen": 3},
    }


@pytest.mark.ray
def test_clients_that_leave_hold_nothing_up(url: str) -> None:
    """More of them than a replica takes; each asks for much and is gone at once."""
    host, port = url.removeprefix("http://").split(":")
    body = orjson.dumps({"rows": [ROW] * 10_000})
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
    for _ in range(70):
        with socket.create_connection((host, int(port)), timeout=20) as wire:
            wire.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
    began = time.monotonic()
    statuses = []
    while time.monotonic() - began < 30 and statuses[-3:] != [200] * 3:
        statuses.append(httpx.post(url + PREDICT, json=ROW, timeout=30).status_code)
        if statuses[-1] != 200:
            time.sleep(0.2)
    assert statuses[-3:] == [200] * 3
    assert set(statuses) <= {200, 503}


HOSTILE_PATHS = (
    "/../../../../etc/passwd", "/v1/models/../../../../etc/passwd", "/v1/models//etc/passwd",
    "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/v1/models/%252e%252e%252fetc%252fpasswd",
    "/v1/models/..%c0%af..%c0%afetc/passwd", "/v1/models/delay%00", "/v1/models/delay%23",
    "/v1/models/delay%0d%0aX-Evil:%201", "/v1/models/..\\..\\etc", "file:///etc/passwd",
    "//etc/passwd", "/v1/models/delay;/etc/passwd", "/metrics", "/docs", "/openapi.json",
)  # fmt: skip


@pytest.mark.ray
@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_X2_no_path_leads_anywhere_as_a_real_server_decodes_it(url: str, path: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        wire.sendall(head.encode())
        answer = b"".join(iter(lambda: wire.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) in (400, 404), answer[:200]
    assert b"root:" not in answer
    assert b"x-evil" not in head.lower()
    assert b"Traceback" not in body


@pytest.mark.ray
@pytest.mark.parametrize("header", ["Host: evil.example", "Origin: https://evil.example"])
@pytest.mark.parametrize("path", ["/healthz", "/v1/models", PREDICT])
def test_X6_foreign_hosts_and_pages_are_refused_by_a_real_server(
    url: str, path: str, header: str
) -> None:
    name, _, value = header.partition(": ")
    assert httpx.get(url + path, headers={name: value}).status_code == 403
    assert httpx.delete(url + path).status_code == 405


@pytest.mark.ray
def test_twenty_times_the_clients_are_answered_or_told_to_come_back(url: str) -> None:
    """One replica works on 32; 640 ask at once, each on a connection of its own."""
    replica = next(
        p for p in psutil.Process().children(recursive=True) if "ServeReplica" in p.name()
    )
    before = replica.memory_info().rss
    body = orjson.dumps({"rows": [ROW] * 50})

    async def ask(client: httpx.AsyncClient) -> tuple[int, str | None]:
        answer = await client.post(url + PREDICT, content=body, headers=JSON)
        return answer.status_code, answer.headers.get("retry-after")

    async def crowd() -> list[tuple[int, str | None]]:
        limits = httpx.Limits(max_connections=640)
        # whoever is taken is answered before this time is over, or the client raises
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            return await asyncio.gather(*(ask(client) for _ in range(640)))

    answers = asyncio.run(crowd())
    statuses = Counter(status for status, _ in answers)
    assert set(statuses) <= {200, 503}, statuses
    assert statuses[200] >= 32
    assert statuses[503] > 0, "the crowd was too small to show anything"
    assert all(retry is not None for status, retry in answers if status == 503)
    assert replica.memory_info().rss - before < 200 << 20
    assert httpx.post(url + PREDICT, json=ROW).status_code == 200


@pytest.mark.ray
def test_a_killed_replica_comes_back_by_itself(url: str) -> None:
    """One replica: callers are told 5xx or cut off until another has loaded; none hangs."""
    replica = next(
        p for p in psutil.Process().children(recursive=True) if "ServeReplica" in p.name()
    )
    replica.kill()
    began = time.monotonic()
    seen: list[int | str] = []
    slowest = 0.0
    while time.monotonic() - began < 60 and seen[-3:] != [200] * 3:
        asked = time.monotonic()
        try:
            seen.append(httpx.post(url + PREDICT, json=ROW, timeout=45).status_code)
        except httpx.NetworkError:  # a time-out is none, and fails the test
            seen.append("cut off")
        except httpx.RemoteProtocolError:
            seen.append("cut off")
        slowest = max(slowest, time.monotonic() - asked)
        time.sleep(0.05)
    print(f"recovered after {time.monotonic() - began:.1f} s: {Counter(seen)}")  # noqa: T201
    assert not replica.is_running() or replica.status() == psutil.STATUS_ZOMBIE
    assert seen[-3:] == [200] * 3, seen[-5:]
    assert set(seen) <= {200, 500, 503, "cut off"}, set(seen)
    assert slowest < 45


@pytest.mark.ray
def test_only_loopback_listens(url: str) -> None:
    httpx.get(url + "/healthz").raise_for_status()
    listening = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                listening[connection.laddr] = process.name()
    assert any(address.port == int(url.rpartition(":")[2]) for address in listening)
    outside = {
        address: name
        for address, name in listening.items()
        if address.ip.removeprefix("::ffff:") not in ("127.0.0.1", "::1")
    }
    assert not outside


@pytest.mark.ray
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_huge_body_is_refused_and_memory_stays_flat(url: str, announced: bool) -> None:
    replica = next(
        p for p in psutil.Process().children(recursive=True) if "ServeReplica" in p.name()
    )
    before = replica.memory_info().rss
    part = b"x" * (1 << 20)
    status = _send_large(url, [part] * 100, announced=announced)
    assert status in (413, None)  # None: closed while we were still sending
    assert replica.memory_info().rss - before < 80 << 20
    assert httpx.post(url + PREDICT, json=ROW).status_code == 200


def _send_large(url: str, parts: list[bytes], *, announced: bool) -> int | None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        length = f"Content-Length: {sum(map(len, parts))}" if announced else ""
        kind = length or "Transfer-Encoding: chunked"
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: {host}:{port}\r\n{kind}\r\n"
        wire.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        try:
            for part in parts:
                wire.sendall(part if announced else b"%x\r\n%s\r\n" % (len(part), part))
        except OSError:
            pass
        try:
            first = wire.recv(64)
        except OSError:
            return None
        return int(first.split()[1]) if first else None


@pytest.mark.ray
def test_a_connection_without_a_whole_head_is_closed(url: str) -> None:
    """Whether nothing came, a part of a head after an answer, or bytes that begin none."""
    host, port = url.removeprefix("http://").split(":")
    health = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n"
    lost = f"POST /nothing HTTP/1.1\r\nHost: {host}\r\nContent-Length: "
    cases = [
        ("", 0, b""),
        (f"{health}\r\n", 200, b"GET /healthz HT"),
        (f"{health}\r\n", 200, health.encode()),
        (f"{lost}0\r\n\r\n", 404, b"\r\n"),
        (f"{lost}1000\r\n\r\n", 404, b"x" * 10),
    ]
    with ExitStack() as stack:
        wires = []
        for first, status, rest in cases:  # they wait side by side
            wire = socket.create_connection((host, int(port)), timeout=3 * HEAD_S)
            wires.append(stack.enter_context(wire))
            wire.sendall(first.encode())
            if status:
                _read_whole(wire, status)  # head and body may come apart
            with suppress(ConnectionError):
                wire.sendall(rest)
        for wire in wires:
            with suppress(ConnectionError):
                assert b"".join(iter(lambda wire=wire: wire.recv(4096), b"")) == b""


def _read_whole(wire: socket.socket, status: int) -> None:
    answer = HTTPResponse(wire)
    answer.begin()
    assert answer.status == status
    answer.read()


@pytest.mark.ray
def test_what_the_proxy_would_do_for_anybody_is_not_done(url: str) -> None:
    for path in ("/-/routes", "/-/healthz"):
        answer = httpx.get(url + path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM_JSON.decode())
    for name, value in {
        "x-request-timeout-seconds": b"\xff",
        "x-request-disconnect-disabled": b"?1",
        "serve-multiplexed-model-id": b"\xff",
        "x_session_id": b"\xff",
    }.items():
        assert httpx.get(url + "/healthz", headers={name: value}).status_code == 200


@pytest.mark.ray
@pytest.mark.parametrize("mine", ["trace-7.a_B", None, "two words", "x" * 65])
def test_an_answer_has_one_id_which_its_body_repeats(url: str, mine: str | None) -> None:
    headers = {} if mine is None else {"x-request-id": mine}
    answer = httpx.post(url + PREDICT, json=ROW, headers=headers)
    (told,) = answer.headers.get_list("x-request-id")
    assert answer.json()["request_id"] == told
    assert (told == mine) == (mine == "trace-7.a_B")


@pytest.mark.ray
def test_a_slow_sender_is_given_up_while_others_are_served(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as wire:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n"
        wire.sendall(head.encode())
        began = time.monotonic()
        wire.settimeout(0.5)
        first = b""
        while time.monotonic() - began < 60 and not first:
            assert httpx.post(url + PREDICT, json=ROW, timeout=10).status_code == 200
            try:
                wire.sendall(b"x")
                first = wire.recv(64)
            except TimeoutError:
                continue
            except OSError:
                break
        assert not first or b"408" in first
        assert time.monotonic() - began < 60


@pytest.mark.ray
def test_a_taken_port_is_said_before_anything_starts(
    catalog: Catalog, url: str, small_profile: Profile
) -> None:
    port = int(url.rpartition(":")[2])
    with (
        pytest.raises(SpecError, match=f"port {port} .* must be free.*--port"),
        served(catalog, ["delay"], profile=small_profile, port=port),
    ):
        pytest.fail("started")


def test_a_free_port_is_found() -> None:
    port = find_port("127.0.0.1", 0)
    assert find_port("127.0.0.1", port) == port
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert port < low  # else a connection might take it before Ray listens there


def test_another_port_is_found_where_those_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(deploy, "QUIET_PORTS", range(port, port + 1))
        monkeypatch.setattr(deploy, "TRIES", 1)
        assert find_port("127.0.0.1", 0) != port


@pytest.mark.parametrize(
    ("refs", "error", "text"),
    [([], SpecError, "at least one"), (["delay", "delay@1"], SpecError, "given once"),
     (["delya"], MissingError, "Did you mean 'delay'"), (["delay@9"], MissingError, "version 9")],
)  # fmt: skip
def test_models_are_pinned(
    catalog: Catalog, refs: list[str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        pin(catalog, refs)
    assert pin(catalog, ["delay"])[0].ref == "delay@1"


@pytest.mark.parametrize("binding", [Binding(host="0.0.0.0"), Binding(host="::", keys=ApiKeys())])
def test_other_addresses_are_refused_without_tls_and_keys(
    catalog: Catalog, small_profile: Profile, binding: Binding
) -> None:
    with (
        pytest.raises(RefusedError, match="must not be listened on"),
        served(catalog, ["delay"], profile=small_profile, port=0, binding=binding),
    ):
        pytest.fail("started")


def test_a_place_that_cannot_hold_it_is_refused(catalog: Catalog, small_profile: Profile) -> None:
    away = Profile(name="away", ray=RayPlace(address="host:6379", token_path="token"))
    many = Replicas(min=99, max=99)
    for profile, replicas, text in ((away, Replicas(), "attached"), (small_profile, many, "99")):
        with (
            pytest.raises(SpecError, match=text),
            served(catalog, ["delay"], profile=profile, port=0, replicas=replicas),
        ):
            pytest.fail("started")


def test_a_damaged_model_never_listens(tmp_path: Path, small_profile: Profile) -> None:
    catalog = Catalog(open_store(tmp_path / "store"))
    bundle = publish_small_model(catalog)
    file = catalog.folder(bundle) / "model.ubj"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)
    with (
        pytest.raises(IntegrityError, match="SHA-256"),
        served(catalog, ["delay"], profile=small_profile, port=0),
    ):
        pytest.fail("started")


def _edit_record(catalog: Catalog, bundle: ModelBundle, **changes: object) -> None:
    """Write a record as somebody would who wants it to fit what lies beside it."""
    path = catalog.folder(bundle) / bundle.model_file
    files = (
        BundleFile(
            path=bundle.model_file, size_bytes=path.stat().st_size, sha256=sha256_file(path)
        ),
    )
    edited = bundle.model_copy(update={"files": files, **changes})
    name = f"{bundle.number}.json"
    catalog.store.path("models", bundle.name, "versions", name).write_text(edited.to_json())


@pytest.mark.parametrize("case", ["golden rows differ", "a file that ends the loader"])
def test_a_version_that_does_not_hold_never_listens_and_says_why(
    own: Callable[[str, str], tuple[Made, ModelBundle]], small_profile: Profile, case: str
) -> None:
    made, bundle = own("binary", "lightgbm")
    if case == "golden rows differ":
        scores = tuple((score + 0.01,) for (score,) in bundle.golden.scores)
        golden = bundle.golden.model_copy(update={"scores": scores})
        _edit_record(made.catalog, bundle, golden=golden)
        reasons = ("must repeat the scores of its golden rows",)
    else:
        path = made.catalog.folder(bundle) / bundle.model_file
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * 0.35)])
        _edit_record(made.catalog, bundle)
        reasons = ("was ended by SIG", "process of its own")
    port = find_port("127.0.0.1", 0)
    with (
        pytest.raises(IntegrityError) as caught,
        served(made.catalog, [bundle.ref], profile=small_profile, port=port),
    ):
        pytest.fail("started")
    assert all(reason in caught.value.message for reason in reasons), caught.value.message
    assert find_port("127.0.0.1", port) == port
