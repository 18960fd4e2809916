"""The whole line on the flights of 2013: raw Parquet to a served model, with one table at the end.

Run it with `make demo`, or `python -m examples.flights.demo` after `python -m
examples.flights.fetch`. What it does can be typed as well:

    arclight run examples/flights/flights.yaml
    arclight rows examples/flights/flights.yaml out/december --where "month = 12"
    arclight score flight-delay@champion out/december out/scores --store examples/flights/.arclight
    arclight serve flight-delay@champion --store examples/flights/.arclight
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from arclight.report import figure_rows
from cluster.profiles import load_profile
from jobs.figures import rounded, row_account
from jobs.guard import guarded
from jobs.rows import rows_command
from jobs.run import run_spec
from jobs.say import say, say_table
from jobs.score import score_command
from ray_apps.serving.client import predict_over_http
from ray_apps.serving.deploy import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.run import RunResult

HERE = Path(__file__).parent
SPEC = HERE / "flights.yaml"
STORE = str(HERE / ".arclight")
OUT = HERE / "out"
MODEL = "flight-delay@champion"
DECEMBER = "month = 12"
REQUESTS = 200


def main() -> None:
    """Run the line, score December, serve, ask, and print what came of it."""
    begun = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    clock: dict[str, float | None] = {}
    result = run_spec(SPEC, store=STORE, profile="local")
    clock.update(result.run.seconds)
    catalog = result.run.catalog
    with timed(clock, "serve"):
        server = served(catalog, [MODEL], profile=load_profile("local"), port=0)
        url = server.__enter__()
    try:
        rows = example_rows(result)
        ask = predict_over_http(url, result.bundle.name)
        first = ask(rows[:1])[0]
        clock["first answer after"] = time.monotonic() - begun
        with timed(clock, f"{REQUESTS} requests"):
            for index in range(REQUESTS):
                ask([rows[index % len(rows)]])
    finally:
        server.__exit__(None, None, None)
    with timed(clock, "rows of December"):
        rows_command(
            SPEC, OUT / "december", where=DECEMBER, store=STORE, profile="local", as_json=False
        )
    with timed(clock, "score December"):
        score_command(
            MODEL, OUT / "december", OUT / "scores", store=STORE, profile="local", as_json=False
        )
    show(result, clock, rows[0], first)


@contextmanager
def timed(clock: dict[str, float | None], name: str) -> Iterator[None]:
    """Note how long a block took."""
    begun = time.monotonic()
    yield
    clock[name] = time.monotonic() - begun


def example_rows(result: RunResult) -> list[dict[str, Any]]:
    """Return the model's golden rows: raw rows of train and valid as a request carries them."""
    return [dict(row) for row in result.bundle.golden.rows]


def show(
    result: RunResult, clock: dict[str, float | None], row: dict[str, Any], first: Any
) -> None:
    """Print the one table, where the reports are, and the line to try."""
    seconds = [
        (f"seconds: {name}", "skipped" if took is None else f"{took:.1f}")
        for name, took in clock.items()
    ]
    account = row_account(result.manifest)
    rows = [("rows: joined", f"{sum(account.values()):,}")]
    rows += [(f"rows: {part}", f"{count:,}") for part, count in account.items()]
    scored = sum(
        pq.ParquetFile(file).metadata.num_rows
        for file in sorted((OUT / "scores").glob("*.parquet"))
    )
    rows.append(("rows: December scored", f"{scored:,}"))
    figures = [
        (f"test: {name}", f"{rounded(value)} [{rounded(low)} … {rounded(high)}]")
        for name, value, low, high in figure_rows(result.evaluation.report)
    ]
    say_table(
        f"{result.bundle.ref}, from raw Parquet", ("what", "value"), seconds + rows + figures
    )
    say(f"first answer: {json.dumps(first)}")
    for path in result.reports:
        say(f"report: {path}")
    body = json.dumps({"rows": [row]})
    say(f"serve it:  .venv/bin/arclight serve {MODEL} --store examples/flights/.arclight")
    say(
        "ask it:    curl -s http://127.0.0.1:8000/v1/models/flight-delay:predict "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
