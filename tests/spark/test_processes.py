"""What hangs on the process itself: its time zone, and another one that builds the same."""

from __future__ import annotations

import datetime as dt
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from arclight.catalog import Catalog
from arclight.manifest import SPLITS
from arclight.store import open_store
from tests.spark.etl_case import Case, make_case, rows
from tests.spark.etl_process import answers, etl_process

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from arclight.manifest import DatasetManifest

pytestmark = pytest.mark.spark

COUNT = 400
# Half-hours around each change of the clock: New York's gap and overlap, Berlin's gap and overlap
STARTS = [(2024, 3, 10), (2024, 11, 3), (2024, 3, 31), (2024, 10, 27)]
TIMES = [
    dt.datetime(*STARTS[i % 4]) + dt.timedelta(minutes=30 * (i // 4)) for i in range(COUNT)
]  # fmt: skip
EVERY_CAST = """
    SELECT t.*, line.at AS line_at, line.zoneless AS line_zoneless,
           cast(line.text AS timestamp) AS cast_at, to_timestamp(line.text) AS parsed_at,
           unix_timestamp(t.naive) AS seconds, date_format(t.aware, 'yyyy-MM-dd HH:mm z') AS said,
           cast(t.naive AS date) AS day
    FROM t JOIN line ON t.id = line.id
"""


def make_times_case(folder: Path) -> Case:
    """Return a case with times of every kind, from Parquet and from text, cast in every way."""
    folder.mkdir()
    naive = pa.array(TIMES, pa.timestamp("us"))
    table = rows(COUNT, naive=naive, naive_ns=naive.cast(pa.timestamp("ns")))
    aware = naive.cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("ns", tz="Europe/Berlin"))
    times = ["naive", "naive_ns", "aware", "line_at", "line_zoneless", "cast_at", "parsed_at"]
    case = make_case(
        folder,
        table.append_column("aware", aware),
        sql=EVERY_CAST,
        key=["id", "day", *times],
        time="naive",
        split={"by": "time", "valid_from": "2024-03-31T02:30:00", "test_from": "2024-10-27"},
    )
    (folder / "line").mkdir()
    text = [f"{i},{at},{at},{at}" for i, at in enumerate(TIMES)]
    (folder / "line" / "a.csv").write_text("\n".join(text) + "\n")
    case.body["sources"]["line"] = {
        "path": "line", "format": "csv",
        "schema": "id bigint, at timestamp, zoneless timestamp_ntz, text string",
    }  # fmt: skip
    derive = {f"{name}_hour": f"hour({name})" for name in times}
    case.body["features"] |= {"derive": {**derive, "shown": "cast(aware AS string)"}}
    return case


def stored_times(stored: pa.Table) -> set[tuple[Any, ...]]:
    """Return the distinct distances of each row's times from what they must be."""
    names = ("naive", "naive_ns", "aware", "line_at", "line_zoneless", "cast_at", "parsed_at")
    wanted = [at.replace(tzinfo=dt.UTC) for at in TIMES]
    columns = [stored[name].to_pylist() for name in names]
    ids = stored["id"].to_pylist()
    return {
        tuple(at - wanted[i] for at in ats)
        for i, ats in zip(ids, zip(*columns, strict=True), strict=True)
    }


def build_in_zone(session: SparkSession, case: Case, zone: str) -> DatasetManifest:
    """Build in this process, as if it had been started in a time zone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        try:
            return case.build(session)
        finally:
            patch.undo()
            time.tzset()


def test_no_time_zone_of_a_process_reaches_the_data(session: SparkSession, tmp_path: Path) -> None:
    zones = ("America/New_York", "Europe/Berlin", "Asia/Kathmandu")
    outer, *inner = [make_times_case(tmp_path / zone.replace("/", "-")) for zone in zones]
    with etl_process(outer, outer.folder / "store", TZ=zones[0]) as started:
        here = [
            build_in_zone(session, case, zone) for case, zone in zip(inner, zones[1:], strict=True)
        ]
        [there] = answers([started])
    assert stored_times(inner[0].splits(here[0])) == {(dt.timedelta(0),) * 7}
    assert {there["digest"]} == {manifest.content_digest for manifest in here}


@pytest.mark.fault
def test_etls_at_once_lose_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    cases = []
    for place, seed in enumerate((1, 1, 2)):  # twice the same spec, and another of its name
        folder = tmp_path / f"user-{place}"
        folder.mkdir()
        cases.append(make_case(folder))
        cases[-1].body["sources"]["t"]["path"] = str(tmp_path / "t")
        cases[-1].body["etl"]["split"]["seed"] = seed
    Case(tmp_path, {}).write("t", rows(300))
    with ExitStack() as stack:
        found = answers([stack.enter_context(etl_process(case, store)) for case in cases])
    assert not any("skipped" in one["said"] for one in found)  # each of them really built it
    assert found[0]["dataset"] == found[1]["dataset"] != found[2]["dataset"]
    catalog = Catalog(open_store(store))
    manifests = list(catalog.datasets("case"))
    assert [m.number for m in manifests] == [2, 1]
    data = {folder.name for folder in (store / "datasets" / "case" / "data").iterdir()}
    assert data == {m.folder.rsplit("/", 1)[1] for m in manifests}
    for manifest in manifests:
        case = Case(tmp_path, {})
        assert sorted(case.splits(manifest)["id"].to_pylist()) == list(range(300))
        assert sum(manifest.rows[part] for part in SPLITS) == 300
