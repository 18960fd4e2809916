"""Bad requests and the forms of a request, against the application itself."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pyarrow as pa
import pytest

from arclight.errors import RefusedError
from arclight.schema import ARROW_TYPES
from ray_apps.serving import protocol, tensors
from ray_apps.serving.access import Limits
from ray_apps.serving.app import INLINE_BYTES, THREADS, App
from ray_apps.serving.endpoint import Endpoint
from ray_apps.serving.problem import Problem
from ray_apps.serving.protocol import RowDecoder
from tests.ray_apps.serving.small_model import (
    COLUMNS,
    ROW,
    FakeScorer,
    client,
    make_app,
    make_bundle,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio
PREDICT = "/v1/models/delay:predict"
STREAM = "application/vnd.apache.arrow.stream"


def serve(task: str = "binary", **limits: Any) -> tuple[App, FakeScorer]:
    scorer = FakeScorer(make_bundle(task))
    return make_app(scorer, limits=Limits(**limits)), scorer


async def post(app: App, body: Any, path: str = PREDICT, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    async with client(app) as calls:
        return await calls.post(
            path, content=content, headers={"content-type": "application/json", **headers}
        )


async def test_rows_are_answered_in_order_by_name_and_version() -> None:
    app, _ = serve()
    answer = await post(app, {"rows": [ROW, {**ROW, "a_float64": 0.75}]})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"]
    del body["request_id"]
    assert body == {
        "model": "delay",
        "version": 3,
        "predictions": [{"score": 0.25, "label": False}, {"score": 0.75, "label": True}],
    }


async def test_many_rows_go_through_a_thread_with_the_same_answer() -> None:
    app, _ = serve()
    rows = [{**ROW, "a_float64": i / 1000} for i in range(1000)]
    assert len(orjson.dumps(rows)) > INLINE_BYTES
    scores = [p["score"] for p in (await post(app, {"rows": rows})).json()["predictions"]]
    assert scores == [i / 1000 for i in range(1000)]


async def test_a_long_prediction_does_not_hold_up_the_others() -> None:
    app, scorer = serve()
    loop = asyncio.get_running_loop()
    go, began = asyncio.Event(), asyncio.Event()

    def wait() -> None:
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(timeout=10)

    scorer.wait = wait
    slow = asyncio.create_task(post(app, {"rows": [ROW] * 500}))
    await asyncio.wait_for(began.wait(), 10)
    async with client(app) as calls:
        assert (await calls.get("/v2/health/live")).status_code == 200
    go.set()
    assert (await slow).status_code == 200


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
async def test_the_same_rows_as_json_tensors_and_arrow(task: str) -> None:
    app, _ = serve(task)
    rows = [ROW, {**dict.fromkeys(ROW), "a_float64": 0.75}]
    by_rows = (await post(app, {"rows": rows})).json()["predictions"]

    kinds = ["BOOL", "INT64", "INT64", "FP64", "FP64", "BYTES", "BYTES", "BYTES"]
    inputs = [
        {"name": name, "datatype": kind, "shape": [2, 1], "data": [row[name] for row in rows]}
        for name, kind in zip(ROW, kinds, strict=True)
    ]
    tensors = await post(app, {"id": "mine", "inputs": inputs}, "/v2/models/delay/infer")
    assert tensors.json()["id"] == "mine"
    assert tensors.json()["model_version"] == "3"
    outputs = {o["name"]: o["data"] for o in tensors.json()["outputs"]}

    schema = pa.schema([(c.name, ARROW_TYPES[c.type]) for c in COLUMNS])
    batch = RowDecoder(COLUMNS, max_rows=9).batch(rows).cast(schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    streamed = await post(app, sink.getvalue().to_pybytes(), **{"content-type": STREAM})
    assert streamed.headers["content-type"] == STREAM
    table = pa.ipc.open_stream(streamed.content).read_all()
    assert table.to_pydict() == outputs
    assert table.schema.metadata[b"version"] == b"3"

    if task == "multiclass":
        assert [p["label"] for p in by_rows] == outputs["label"]
        assert [p["scores"]["late"] for p in by_rows] == outputs["score_late"]
    else:
        assert [p["score"] for p in by_rows] == outputs["score"]
        assert [p.get("label") for p in by_rows] == outputs.get("label", [None, None])


async def test_metadata() -> None:
    app, _ = serve()
    async with client(app) as calls:
        plain = (await calls.get("/v1/models/delay")).json()
        open_inference = (await calls.get("/v2/models/delay/versions/3")).json()
        models = (await calls.get("/v1/models")).json()
    assert plain["inputs"][1] == {"name": "a_int8", "type": "int8"}
    assert (plain["version"], plain["threshold"]) == (3, 0.5)
    assert open_inference["inputs"][1] == {"name": "a_int8", "datatype": "INT8", "shape": [-1]}
    assert [o["name"] for o in open_inference["outputs"]] == ["score", "label"]
    assert models == {"models": [{"model": "delay", "version": 3}]}


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), (b'{"rows": [{"a": NaN}]}', 400), (b'{"a": 1, "a": 1}', 400),
     (b'{"a": Infinity}', 400), (b'{"a": -Infinity}', 400), (b'{"a": 1e999}', 400),
     (b'{"rows": [{"x": {"b": 1, "b": 2}}]}', 400), (b"\xff\xfe", 400), (b"{}{}", 400),
     (b"[" * 10_000, 400), (b"[" * 10_000 + b"]" * 10_000, 400),
     (b'{"rows": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400),
     (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400),
     (b"[]", 422), (b'{"rows": []}', 422), (b"{}", 422),
     (orjson.dumps({**ROW, "x": 1}), 422)],
)  # fmt: skip
async def test_a_wrong_body_is_told_as_a_problem(body: bytes, status: int) -> None:
    app, _ = serve()
    answer = await post(app, body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "errors", "request_id"} <= set(problem)
    assert "Traceback" not in answer.text
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("name", list(ROW))
async def test_each_wrong_field_is_named_over_http(name: str) -> None:
    app, _ = serve()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({**ROW, name: ["x"]}, "must be "),
        ({k: v for k, v in ROW.items() if k != name}, "is missing"),
    ]
    for row, text in wrong:
        answer = await post(app, {"rows": [ROW, row]})
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert (error["row"], error["field"]) == (1, name)
        assert text in error["detail"]
    all_wrong = await post(app, {"rows": [{name: [7] for name in ROW}]})
    assert {error["field"] for error in all_wrong.json()["errors"]} == set(ROW)


@pytest.mark.parametrize(
    ("change", "text"),
    [(lambda i: i.pop(), "is missing"), (lambda i: i.append(i[0]), "stands twice"),
     (lambda i: i[0].update(name="b"), "not a column"),
     (lambda i: i[1].update(shape=[2]), "shape"),
     (lambda i: i[1].update(datatype="FP64"), "INT8"),
     (lambda i: i[1].update(data=[1.5]), "integer"),
     (lambda i: i[1].update(data=[1, 2], shape=[2]), "equal shapes"),
     (lambda i: i[1].pop("data"), "data"),
     (lambda i: i[1].update(more=1), "more"), (lambda i: i.append(7), "object with a name"),
     (lambda i: i.clear(), "is missing")],
)  # fmt: skip
async def test_wrong_tensors_are_named(change: Callable[[Any], Any], text: str) -> None:
    app, _ = serve()
    kinds = ["BOOL", "INT8", "INT64", "FP32", "FP64", "BYTES", "BYTES", "BYTES"]
    inputs = [
        {"name": name, "datatype": kind, "shape": [1], "data": [ROW[name]]}
        for name, kind in zip(ROW, kinds, strict=True)
    ]
    change(inputs)
    answer = await post(app, {"inputs": inputs}, "/v2/models/delay/infer")
    assert answer.status_code == 422
    assert text in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models/other:predict", 404), ("/v2/models/delay/versions/2/infer", 404)],
)
async def test_what_is_not_served_is_not_found(path: str, status: int) -> None:
    app, _ = serve()
    assert (await post(app, ROW, path)).status_code == status


async def test_other_content_types_are_refused() -> None:
    app, _ = serve()
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert (await post(app, ROW, **{"content-type": kind})).status_code == 415
    good = await post(app, ROW, **{"content-type": "Application/JSON; charset=utf-8"})
    assert good.status_code == 200


@pytest.mark.parametrize("path", [PREDICT, "/v2/models/delay/infer"])
async def test_a_body_that_is_packed_is_refused_as_such(path: str) -> None:
    """It said that the JSON is not UTF-8."""
    app, _ = serve()
    for coding in ("gzip", "deflate, gzip", "br"):
        answer = await post(app, ROW, path, **{"content-encoding": coding})
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
        assert "without Content-Encoding" in answer.json()["detail"]
    plain = await post(app, ROW, path, **{"content-encoding": "Identity"})
    assert plain.status_code != 415


async def test_rows_the_plan_rejects_are_named() -> None:
    app, scorer = serve()
    scorer.reject = {"infinite:distance": [1]}
    answer = await post(app, {"rows": [ROW, ROW]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["row"] == 1
    assert "feature 'distance' is infinite for this row" in answer.text


async def test_a_score_that_is_no_number_is_said_and_never_sent(caplog: Any) -> None:
    app, scorer = serve()
    scorer.spoil = [0]
    answer = await post(app, ROW)
    assert answer.status_code == 500
    assert "score" in answer.json()["title"]
    assert "NaN" not in answer.text
    assert "null" not in answer.text
    assert "delay@3" in caplog.text


async def test_a_failure_inside_shows_its_id_and_nothing_else(caplog: Any) -> None:
    app, scorer = serve()
    scorer.wait = lambda: {}[1]
    answer = await post(app, ROW)
    assert answer.status_code == 500
    assert "KeyError" not in answer.text
    assert "KeyError" in caplog.text
    assert answer.json()["request_id"] in caplog.text
    scorer.wait = None
    assert (await post(app, ROW)).status_code == 200


async def test_X16_what_a_failure_quotes_cannot_forge_a_line_of_the_log(caplog: Any) -> None:
    app, scorer = serve()

    def fail() -> None:
        raise ValueError("\x1b[2J\r2026-01-01 INFO request done\nroot: all is well\u2028x\x07")

    scorer.wait = fail
    assert (await post(app, ROW)).status_code == 500
    (record,) = (r for r in caplog.records if r.name == "ray_apps.serving.app")
    first, *rest = record.getMessage().split("\n")
    assert first.startswith("request ")
    assert all(line.startswith("  ") for line in rest)
    assert not any(c in record.getMessage() for c in "\x1b\r\u2028\x07")
    assert record.exc_info is None


@pytest.mark.parametrize("form", ["rows", "tensors", "arrow"])
async def test_what_is_unusual_is_counted_in_the_answer(form: str) -> None:
    app, _ = serve()
    rows = [ROW, {**ROW, "a_float64": 1e300}, {**ROW, "a_float64": None}]
    counted = {"a_float64": {"missing": 1, "far": 1}}
    assert await unusual_of(app, form, rows) == counted
    assert await unusual_of(app, form, [ROW, ROW]) is None


async def unusual_of(app: App, form: str, rows: list[dict[str, Any]]) -> Any:
    if form == "rows":
        return (await post(app, {"rows": rows})).json().get("unusual")
    if form == "tensors":
        kinds = ["BOOL", "INT64", "INT64", "FP64", "FP64", "BYTES", "BYTES", "BYTES"]
        inputs = [
            {"name": n, "datatype": k, "shape": [len(rows)], "data": [row[n] for row in rows]}
            for n, k in zip(ROW, kinds, strict=True)
        ]
        answer = (await post(app, {"inputs": inputs}, "/v2/models/delay/infer")).json()
        told = answer.get("parameters", {}).get("unusual")
    else:
        batch = RowDecoder(COLUMNS, max_rows=9).batch(rows)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        streamed = await post(app, sink.getvalue().to_pybytes(), **{"content-type": STREAM})
        told = pa.ipc.open_stream(streamed.content).schema.metadata.get(b"unusual")
    return None if told is None else orjson.loads(told)


async def chunks(count: int, size: int, seen: list[int]) -> AsyncIterator[bytes]:
    for number in range(count):
        seen.append(number)
        yield b"x" * size


async def test_a_body_too_large_is_refused_by_its_announced_length() -> None:
    app, _ = serve(body_bytes=1000)
    seen: list[int] = []
    answer = await post_stream(app, chunks(100, 1000, seen), **{"content-length": "100000"})
    assert answer.status_code == 413
    assert len(seen) <= 1


async def test_a_body_too_large_is_refused_as_it_comes() -> None:
    app, _ = serve(body_bytes=5000)
    seen: list[int] = []
    answer = await post_stream(app, chunks(100_000, 1000, seen))
    assert answer.status_code == 413
    assert len(seen) <= 10


@pytest.mark.parametrize("length", ["-1", "1e3", "", "9" * 40])
async def test_a_length_that_is_none_is_refused(length: str) -> None:
    app, _ = serve()
    answer = await post_stream(app, chunks(1, 10, []), **{"content-length": length})
    assert answer.status_code in (400, 413)


async def post_stream(app: App, body: AsyncIterator[bytes], **headers: str) -> httpx.Response:
    """Send messages one at a time, as a server does; httpx's own transport joins them first."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        part = await anext(body, None)
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    pairs = {"host": "localhost", "content-type": "application/json", **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": PREDICT,
        "headers": [(k.encode(), v.encode()) for k, v in pairs.items()],
    }
    await app(scope, receive, send)
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=sent[1]["body"])


async def test_a_slow_body_is_given_up() -> None:
    app, _ = serve(read_s=0.05)

    async def drip() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b" "

    answer = await asyncio.wait_for(post_stream(app, drip()), 5)
    assert answer.status_code == 408
    assert answer.headers["connection"] == "close"


async def test_beyond_the_limit_callers_are_told_to_come_back() -> None:
    app, _ = serve(concurrent=2, retry_after_s=7)
    go = asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        await go.wait()
        yield orjson.dumps(ROW)

    busy = [asyncio.create_task(post_stream(app, held())) for _ in range(2)]
    await asyncio.sleep(0)
    refused = await post(app, ROW)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "7"
    go.set()
    assert [(await task).status_code for task in busy] == [200, 200]
    assert (await post(app, ROW)).status_code == 200


async def test_a_client_that_left_is_not_answered_and_frees_its_place() -> None:
    app, scorer = serve(concurrent=1)
    scorer.wait = lambda: pytest.fail("work for nobody")
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": PREDICT, "headers": headers}
    await app(scope, receive, send)
    assert sent == []
    scorer.wait = None
    assert (await post(app, ROW)).status_code == 200


async def test_work_of_a_client_that_left_is_not_begun() -> None:
    """Ray Serve cancels a request whose client is gone; what waits for a thread never runs."""
    app, scorer = serve(concurrent=9)
    loop = asyncio.get_running_loop()
    go = threading.Event()
    begun: list[int] = []
    two = asyncio.Event()

    def wait() -> None:
        begun.append(1)
        if len(begun) == THREADS:
            loop.call_soon_threadsafe(two.set)
        assert go.wait(10)

    scorer.wait = wait
    large = {"rows": [ROW] * 500}
    kept = [asyncio.create_task(post(app, large)) for _ in range(THREADS)]
    await asyncio.wait_for(two.wait(), 10)
    left = [asyncio.create_task(post(app, large)) for _ in range(3)]
    await asyncio.sleep(0.1)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    go.set()
    assert [(await task).status_code for task in kept] == [200] * THREADS
    assert (await post(app, large)).status_code == 200
    assert len(begun) == THREADS + 1


async def test_a_cancelled_request_frees_its_place() -> None:
    app, _ = serve(concurrent=1)

    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    task = asyncio.create_task(post_stream(app, never()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await post(app, ROW)).status_code == 200


async def test_the_lifespan_is_answered_and_websockets_are_not() -> None:
    app, _ = serve()
    said: list[str] = []
    asked = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(asked)}

    async def send(message: dict[str, str]) -> None:
        said.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket"}, receive, send)
    assert said == [
        "lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close",
    ]  # fmt: skip


async def test_golden_rows_warm_the_whole_path() -> None:
    scorer = FakeScorer(make_bundle())
    Endpoint(scorer, max_rows=10).warm_up()
    scorer.spoil = [0]
    with pytest.raises(RefusedError, match=r"delay@3.*golden rows"):
        Endpoint(scorer, max_rows=10).warm_up()


async def test_many_wrong_tensors_cost_no_more_than_the_first_hundred(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(protocol, "nearest", lambda name, _: asked.append(name) or "")
    app, _ = serve()
    inputs = [
        {"name": f"n{i}", "shape": [1], "datatype": "FP64", "data": [1]} for i in range(5000)
    ]
    answer = await post(app, {"inputs": inputs}, "/v2/models/delay/infer")
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert len(asked) == protocol.MAX_HINTS


async def test_too_many_rows_of_tensors_are_refused_before_they_are_made() -> None:
    column = next(c for c in COLUMNS if c.type == "float64")
    data = [1.0] * 101
    tensor = {"name": column.name, "shape": [101], "datatype": "FP64", "data": data}
    decoder = RowDecoder((column,), max_rows=100)
    decoder.batch = None  # type: ignore[assignment,method-assign] -- rows must not be made
    with pytest.raises(Problem, match="at most 100 rows, got 101"):
        tensors.decode_tensors(orjson.dumps({"inputs": [tensor]}), (column,), decoder)
